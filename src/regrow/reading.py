"""Reads files that may hold anything: plain files only, up to a size, errors that name the file."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import os
import stat
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO

__all__ = [
    "LIMIT",
    "UnreadableError",
    "allowed_size",
    "check_names",
    "check_size",
    "damaged",
    "decoding",
    "is_there",
    "open_file",
    "open_unpacked",
    "read_file",
    "refused",
]

LIMIT = "REGROW_MAX_UNPACKED"
"""The environment variable with the bytes that a file may unpack to."""

# A file may always unpack to this much: a picture of 89 million pixels, where Pillow warns, too.
_ALWAYS = 256 << 20
# And to this many times its size. Real tables and images stay below; gzip bombs reach 1,030.
_TIMES = 200

_PACKED: dict[bytes, Callable[[BinaryIO], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZ": bz2.open,
    b"\xfd7": lzma.open,
}
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class UnreadableError(ValueError):
    """A file that is not read; the message names it, says why, and what to do."""


def refused(of: object, why: object, fix: str) -> UnreadableError:
    """Return the error that says a file is not read.

    Args:
        of: the file, or what of it.
        why: what it is or does.
        fix: what to do.

    Example:
        >>> refused("tea.csv", "is a folder", "give a file")
        UnreadableError('tea.csv is a folder: give a file')
    """
    text = f"{of} {why}: {fix}"
    # A name that is no UTF-8 holds what cannot be printed.
    return UnreadableError(text.encode("utf-8", "backslashreplace").decode())


def damaged(of: object, why: object) -> UnreadableError:
    """Return the error that says a file is damaged.

    Args:
        of: the file, or what of it.
        why: what is wrong, and where.

    Example:
        >>> damaged("tea.csv", "no rows")
        UnreadableError('tea.csv is damaged (no rows): get it again')
    """
    return refused(of, f"is damaged ({why})", "get it again")


@contextlib.contextmanager
def decoding(of: object) -> Iterator[None]:
    """Turn whatever a decoder raises inside into the error that says the file is damaged.

    Decoders check little: a wrong byte shows as a wrong key, length, type or number, and as any
    error. A file that is not there, or may not be read, is not damaged, nor is one whose package is
    missing: those errors pass as they are.

    Args:
        of: the file, or what of it.

    Raises:
        UnreadableError: the decoder has failed.

    Example:
        >>> import zlib
        >>> with decoding("tea.gz"):
        ...     zlib.decompress(b"tea")
        Traceback (most recent call last):
        regrow.reading.UnreadableError: tea.gz is damaged (Error -3 while decompressing data: \
incorrect header check): get it again
    """
    try:
        yield
    except (FileNotFoundError, PermissionError, ImportError, UnreadableError):
        raise
    except MemoryError as error:
        raise damaged(of, "it needs more memory than there is") from error
    except Exception as error:
        raise damaged(of, str(error) or type(error).__name__) from error


def is_there(path: Path) -> bool:
    """Return whether a file is there; one of a name that no file can have is not.

    Example:
        >>> is_there(Path("a" * 300)), is_there(Path("/"))
        (False, False)
    """
    try:
        return path.is_file()
    except OSError:  # the name is too long
        return False


def open_file(path: Path) -> BinaryIO:
    """Open a plain file; pipes, sockets and devices, which may block, are refused.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableError: it is no plain file.

    Example:
        >>> open_file(Path("/"))
        Traceback (most recent call last):
        regrow.reading.UnreadableError: / is a folder, not a file: give a file's path
    """
    with decoding(path):
        try:
            kind = stat.S_IFMT(path.stat().st_mode)
        except FileNotFoundError:
            raise FileNotFoundError(f"{path}: no such file") from None
    if kind != stat.S_IFREG:
        raise refused(path, f"is {_KINDS.get(kind, 'odd')}, not a file", "give a file's path")
    return path.open("rb")


def read_file(path: Path) -> bytes:
    """Return the content of a plain file.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableError: as of :func:`open_file`.
    """
    with open_file(path) as file:
        return file.read()


def open_unpacked(path: Path, packed: bool | None = None) -> BinaryIO:
    """Open a plain file that may be packed; of what it unpacks to no more is read than is allowed.

    Args:
        path: the file.
        packed: whether it is gzipped; None: find out, and read bzip2 and xz, too.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableError: as of :func:`open_file`. Reading from what is returned raises it where the
            file unpacks to more than ``check_size`` allows.
    """
    file = open_file(path)
    start = file.read(2)
    file.seek(0)
    opener = _PACKED.get(b"\x1f\x8b" if packed else start)
    if opener is None or packed is False:
        return file
    size = os.fstat(file.fileno()).st_size
    return io.BufferedReader(_Unpacked(opener(file), file, path, size), 1 << 16)


def check_size(of: object, size: int, stored: int) -> None:
    """Refuse what takes far more memory than its file takes room, as what was made to harm does.

    Allowed are 256 MiB, and 200 times the file's size; or what ``$REGROW_MAX_UNPACKED`` says.

    Args:
        of: the file, or what of it.
        size: bytes in memory, as far as is known.
        stored: bytes in the file.

    Raises:
        UnreadableError: it takes more; the message says how to allow it.

    Example:
        >>> check_size("tea.gz", 10**9, 1000)
        Traceback (most recent call last):
        regrow.reading.UnreadableError: tea.gz takes 1,000 bytes and unpacks to 1,000,000,000 or \
more, of which 268,435,456 are allowed: if it is no mistake, set REGROW_MAX_UNPACKED=1000000000 or \
more in the environment
    """
    allowed = allowed_size(stored)
    if size > allowed:
        raise refused(
            of,
            f"takes {stored:,} bytes and unpacks to {size:,} or more, of which {allowed:,} are "
            "allowed",
            f"if it is no mistake, set {LIMIT}={size} or more in the environment",
        )


def check_names(names: Collection[str], what: str) -> None:
    """Refuse names of which one is there twice.

    Example:
        >>> check_names(["heat", "heat"], "column")
        Traceback (most recent call last):
        ValueError: column 'heat' is there twice
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{what} {name!r} is there twice")
        seen.add(name)


def allowed_size(stored: int) -> int:
    """Return how many bytes a file of a size may unpack to, as of ``check_size``.

    Raises:
        UnreadableError: the environment says something else than a number.
    """
    text = os.environ.get(LIMIT)
    if text is None:
        return max(_ALWAYS, _TIMES * stored)
    if not text.isdecimal():
        raise refused(f"{LIMIT}={text!r}", "in the environment is no number of bytes", "mend it")
    return int(text)


class _Unpacked(io.RawIOBase):
    """What a file unpacks to, up to what is allowed.

    Args:
        unpacked: reads what it unpacks to.
        file: the file.
        path: its path.
        size: its size.
    """

    def __init__(self, unpacked: IO[bytes], file: BinaryIO, path: Path, size: int) -> None:
        self._unpacked, self._file, self._path, self._size = unpacked, file, path, size
        self._read = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        with decoding(self._path):
            content = self._unpacked.read(len(buffer))
        self._read += len(content)
        check_size(self._path, self._read, self._size)
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        self._unpacked.close()
        self._file.close()
        super().close()
