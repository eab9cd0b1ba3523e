"""Folders, tar and zip archives, read alike and without unpacking."""

from __future__ import annotations

import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path, PureWindowsPath

from regrow.reading import damaged

__all__ = ["Tree", "open_tree", "stamp"]

_BROKEN = (OSError, EOFError, RuntimeError, tarfile.TarError, zipfile.BadZipFile, zlib.error)


class Tree:
    """Files under one root, named with slashes; made by :func:`open_tree`.

    Args:
        where: the folder or archive.
        files: reads each file, by its name.
    """

    def __init__(self, where: Path, files: Mapping[str, Callable[[], bytes]]) -> None:
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
            return self._files[name]()
        except FileNotFoundError:
            raise self.missing(name) from None
        except _BROKEN as error:
            raise damaged(self.at(name), error) from error

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
        ValueError: an archive is damaged, or holds what no data set does: what is no plain file, or
            a name that leads out of it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as name:
        ...     _ = (Path(name) / "a.txt").write_bytes(b"hi")
        ...     open_tree(Path(name)).read("a.txt")
        b'hi'
    """
    if where.is_dir():
        return Tree(where, _of_folder(where))
    try:
        files = _of_zip(where) if where.suffix == ".zip" else _of_tar(where)
    except _BROKEN as error:
        raise damaged(where, error) from error
    return Tree(where, {name.removeprefix(f"{inside}/"): read for name, read in files.items()})


def stamp(path: Path) -> tuple[str, int, int]:
    """Return a file's name, size and time of change: if they stay, so did its content."""
    stat = path.stat()
    return str(path.absolute()), stat.st_size, stat.st_mtime_ns


def _of_folder(where: Path) -> dict[str, Callable[[], bytes]]:
    paths = (Path(folder) / file for folder, _, files in os.walk(where) for file in files)
    return {path.relative_to(where).as_posix(): path.read_bytes for path in paths}


def _of_zip(where: Path) -> dict[str, Callable[[], bytes]]:
    archive = zipfile.ZipFile(where)
    files = [info.filename for info in archive.infolist() if not info.is_dir()]
    return {_checked(where, file): partial(archive.read, file) for file in files}


def _of_tar(where: Path) -> dict[str, Callable[[], bytes]]:
    """Hold all files in memory, for a tar archive can only be read through."""
    files: dict[str, Callable[[], bytes]] = {}
    with tarfile.open(where) as archive:
        for member in archive:
            name = _checked(where, member.name)
            file = archive.extractfile(member) if member.isfile() else None
            if file is not None:
                files[name] = partial(bytes, file.read())
            elif not member.isdir():
                raise _foreign(where, member.name)
        _read_to_the_end(archive)
    return files


def _checked(where: Path, name: str) -> str:
    path = PureWindowsPath(name)  # which knows both slashes, and drives
    if path.drive or path.root or ".." in path.parts:
        raise _foreign(where, name)
    return path.as_posix()


def _read_to_the_end(archive: tarfile.TarFile) -> None:
    """Refuse an archive that breaks off where tarfile takes it for its end, or its checksum."""
    file = archive.fileobj
    if file is None or file.tell() < archive.offset + tarfile.BLOCKSIZE:
        raise EOFError("it breaks off")
    while file.read(1 << 20):
        pass


def _foreign(where: Path, name: str) -> ValueError:
    return ValueError(
        f"{where} holds {name!r}, a link or a name that leads out of it, as no published data set "
        "does: nothing was read; get it again from its publisher"
    )
