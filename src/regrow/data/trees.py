"""Folders, tar and zip archives, read alike and without unpacking."""

from __future__ import annotations

import os
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path, PureWindowsPath
from typing import BinaryIO

from regrow.reading import (
    UnreadableError,
    check_names,
    check_size,
    decoding,
    open_file,
    open_unpacked,
    read_file,
    refused,
)

__all__ = ["Tree", "open_tree", "stamp"]

Reader = Callable[[], bytes]


class Tree:
    """Files under one root, named with slashes; made by :func:`open_tree`.

    Args:
        where: the folder or archive.
        files: reads each file, by its name.
    """

    def __init__(self, where: Path, files: Mapping[str, Reader]) -> None:
        self.where, self._files = where, files

    def names(self) -> list[str]:
        """Return the names of all files, sorted."""
        return sorted(self._files)

    def read(self, name: str) -> bytes:
        """Return a file's content.

        Raises:
            FileNotFoundError: there is none of this name.
            ValueError: it is damaged.
        """
        if name not in self._files:
            raise self.missing(name)
        try:
            with decoding(self.at(name)):
                return self._files[name]()
        except FileNotFoundError:
            raise self.missing(name) from None

    def stamps(self) -> list[tuple[str, int, int]]:
        """Return name, size and time of change of what this reads: if they stay, so did it."""
        if self.where.is_dir():
            return [stamp(self.where / name) for name in self.names()]
        return [stamp(self.where)]

    def at(self, name: str) -> str:
        """Return what to call a file in a message."""
        return str(self.where / name) if self.where.is_dir() else f"{self.where}: {name}"

    def missing(self, name: str) -> FileNotFoundError:
        """Return the error that says a file is not there."""
        return FileNotFoundError(f"{self.at(name)} is missing: get {self.where} again")


def open_tree(where: Path, inside: str = "") -> Tree:
    """Open a folder, or a tar or zip archive.

    Args:
        where: its path.
        inside: the folder of an archive that is the root.

    Raises:
        UnreadableError: an archive is damaged, unpacks to far too much, or holds what no data set
            does: what is no plain file, two files of one name, or a name that leads out of it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as name:
        ...     _ = (Path(name) / "a.txt").write_bytes(b"hi")
        ...     open_tree(Path(name)).read("a.txt")
        b'hi'
    """
    if where.is_dir():
        return Tree(where, _of_folder(where))
    with decoding(where):
        members = _of_zip(where) if where.suffix == ".zip" else _of_tar(where)
        files = [(_checked(where, name).removeprefix(f"{inside}/"), read) for name, read in members]
        check_names([name for name, _ in files], "file")
    return Tree(where, dict(files))


def stamp(path: Path) -> tuple[str, int, int]:
    """Return a file's name, size and time of change: if they stay, so did its content."""
    with decoding(path):
        try:
            stat = path.stat()
        except FileNotFoundError:
            raise FileNotFoundError(f"{path}: no such file") from None
    return str(path.absolute()), stat.st_size, stat.st_mtime_ns


def _of_folder(where: Path) -> dict[str, Reader]:
    paths = (Path(folder) / file for folder, _, files in os.walk(where) for file in files)
    return {path.relative_to(where).as_posix(): partial(read_file, path) for path in paths}


def _of_zip(where: Path) -> list[tuple[str, Reader]]:
    open_file(where).close()  # no pipe, which would block
    archive = zipfile.ZipFile(where)  # closes with the last of its readers
    infos = [info for info in archive.infolist() if not info.is_dir()]
    return [(info.filename, partial(_unzipped, where, archive, info)) for info in infos]


def _unzipped(where: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    # What a member claims to be is all that zipfile gives of it.
    check_size(f"{where}: {info.filename}", info.file_size, info.compress_size)
    return archive.read(info)


def _of_tar(where: Path) -> list[tuple[str, Reader]]:
    """Hold all files in memory, for a tar archive can only be read through."""
    files: list[tuple[str, Reader]] = []
    stored, total = where.stat().st_size, 0
    with (
        open_unpacked(where) as unpacked,
        # As a stream: whatever a member claims to be, no more than is there is read.
        tarfile.open(fileobj=unpacked, mode="r|") as archive,
    ):
        for member in archive:
            total += member.size
            check_size(where, total, stored)
            file = archive.extractfile(member) if member.isfile() else None
            if file is not None and not member.issparse():
                files.append((member.name, partial(bytes, file.read())))
            elif not member.isdir():
                raise _foreign(where, member.name)
        _read_to_the_end(archive, unpacked)
    return files


def _checked(where: Path, name: str) -> str:
    path = PureWindowsPath(name)  # which knows both slashes, and drives
    if path.drive or path.root or ".." in path.parts:
        raise _foreign(where, name)
    return path.as_posix()


def _read_to_the_end(archive: tarfile.TarFile, unpacked: BinaryIO) -> None:
    """Refuse an archive that breaks off where tarfile takes it for its end, or its checksum."""
    if archive.fileobj is None or archive.fileobj.tell() < archive.offset + tarfile.BLOCKSIZE:
        raise EOFError("it breaks off")
    while unpacked.read(1 << 20):
        pass


def _foreign(where: Path, name: str) -> UnreadableError:
    return refused(
        where,
        f"holds {name!r}, a link or a name that leads out of it, as no published data set does",
        "nothing was read; get it again from its publisher",
    )
