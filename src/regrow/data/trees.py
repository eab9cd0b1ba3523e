"""Folders, tar and zip archives, read alike and without unpacking."""

from __future__ import annotations

import os
import tarfile
import zipfile
import zlib
from pathlib import Path, PureWindowsPath

from regrow.data.errors import damaged

__all__ = ["Folder", "Tar", "Tree", "Zip", "open_tree", "stamp"]

_BROKEN = (OSError, EOFError, RuntimeError, tarfile.TarError, zipfile.BadZipFile, zlib.error)


class Tree:
    """Files under one root, named with slashes.

    Args:
        where: the folder or archive.
    """

    def __init__(self, where: Path) -> None:
        self.where = where

    def names(self) -> list[str]:
        """Return the names of all files, sorted."""
        raise NotImplementedError

    def read(self, name: str) -> bytes:
        """Return a file's content.

        Raises:
            FileNotFoundError: there is none of this name.
            ValueError: it is damaged.
        """
        raise NotImplementedError

    def stamps(self) -> list[tuple[str, int, int]]:
        """Return name, size and time of change of what this reads: if they stay, so did it."""
        return [stamp(self.where)]

    def at(self, name: str) -> str:
        """Return what to call a file in a message."""
        return f"{self.where}: {name}"

    def missing(self, name: str) -> FileNotFoundError:
        """Return the error that says a file is not there."""
        return FileNotFoundError(f"{self.at(name)} is missing: get {self.where} again")


class Folder(Tree):
    """A folder.

    Args:
        where: its path.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as name:
        ...     _ = (Path(name) / "a.txt").write_bytes(b"hi")
        ...     Folder(Path(name)).read("a.txt")
        b'hi'
    """

    def names(self) -> list[str]:
        """Return the names of all files, sorted."""
        return sorted(
            (Path(folder) / file).relative_to(self.where).as_posix()
            for folder, _, files in os.walk(self.where)
            for file in files
        )

    def read(self, name: str) -> bytes:
        """Return a file's content."""
        try:
            return (self.where / name).read_bytes()
        except FileNotFoundError:
            raise self.missing(name) from None

    def stamps(self) -> list[tuple[str, int, int]]:
        """Return name, size and time of change of every file."""
        return [stamp(self.where / name) for name in self.names()]

    def at(self, name: str) -> str:
        """Return what to call a file in a message."""
        return str(self.where / name)


class Zip(Tree):
    """A zip archive.

    Args:
        where: its path.
        inside: the folder of the archive that is the root.

    Raises:
        ValueError: it is damaged, or a name leads out of it.
    """

    def __init__(self, where: Path, inside: str) -> None:
        super().__init__(where)
        try:
            self._archive = zipfile.ZipFile(where)
        except _BROKEN as error:
            raise damaged(where, error) from error
        files = [info.filename for info in self._archive.infolist() if not info.is_dir()]
        self._names = {_inside(where, file, inside): file for file in files}

    def names(self) -> list[str]:
        """Return the names of all files, sorted."""
        return sorted(self._names)

    def read(self, name: str) -> bytes:
        """Return a file's content."""
        if name not in self._names:
            raise self.missing(name)
        try:
            return self._archive.read(self._names[name])
        except _BROKEN as error:
            raise damaged(self.at(name), error) from error


class Tar(Tree):
    """A tar archive, compressed or not; it is held in memory, for a tar can only be read through.

    Args:
        where: its path.
        inside: the folder of the archive that is the root.

    Raises:
        ValueError: it is damaged, a name leads out of it, or it holds what is no plain file.
    """

    def __init__(self, where: Path, inside: str) -> None:
        super().__init__(where)
        try:
            self._files = dict(self._contents(inside))
        except _BROKEN as error:
            raise damaged(where, error) from error

    def names(self) -> list[str]:
        """Return the names of all files, sorted."""
        return sorted(self._files)

    def read(self, name: str) -> bytes:
        """Return a file's content."""
        if name not in self._files:
            raise self.missing(name)
        return self._files[name]

    def _contents(self, inside: str) -> list[tuple[str, bytes]]:
        files = []
        with tarfile.open(self.where) as archive:
            for member in archive:
                name = _inside(self.where, member.name, inside)
                file = archive.extractfile(member) if member.isfile() else None
                if file is not None:
                    files.append((name, file.read()))
                elif not member.isdir():
                    raise _foreign(self.where, member.name)
            _read_to_the_end(archive)
        return files


def open_tree(where: Path, inside: str = "") -> Tree:
    """Open a folder, or a tar or zip archive.

    Args:
        where: its path.
        inside: the folder of an archive that is the root.

    Raises:
        ValueError: an archive is damaged, or holds what no data set does.
    """
    if where.is_dir():
        return Folder(where)
    return Zip(where, inside) if where.suffix == ".zip" else Tar(where, inside)


def stamp(path: Path) -> tuple[str, int, int]:
    """Return a file's name, size and time of change: if they stay, so did its content."""
    stat = path.stat()
    return str(path.absolute()), stat.st_size, stat.st_mtime_ns


def _inside(where: Path, name: str, inside: str) -> str:
    path = PureWindowsPath(name)  # which knows both slashes, and drives
    if path.drive or path.root or ".." in path.parts:
        raise _foreign(where, name)
    return path.as_posix().removeprefix(f"{inside}/")


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
