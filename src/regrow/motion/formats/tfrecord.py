"""Reads and writes TFRecord files, each record with both its checksums checked."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from regrow.motion.formats.crc import crc32c, masked
from regrow.reading import UnreadableError, damaged, open_file

__all__ = ["count_records", "read_records", "write_records"]

_HEAD, _FOOT = 12, 4
Skipped = Callable[[UnreadableError], None]


def read_records(path: Path, skipped: Skipped | None = None) -> Iterator[tuple[int, bytes]]:
    """Give the records of a TFRecord file with their numbers, from 0.

    Args:
        path: the file, not compressed.
        skipped: told of each record whose content is damaged, which is then left out; None: the
            first one is an error. After a damaged length nothing more can be found: it is told of,
            and the file ends there, as it does where it is cut off.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableError: a record is damaged; the message names the file and the record.

    Source: TensorFlow, "TFRecord and tf.train.Example": length as 8 bytes, its checksum as 4, the
    content, its checksum as 4, little-endian; checksums are CRC-32C, masked.
    """
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        number = 0
        while file.tell() < size:
            try:
                content = _content(file, path, number, _length(file, path, number, size))
            except _LostError as error:
                _tell(error.why, skipped)
                return
            except UnreadableError as error:
                _tell(error, skipped)
            else:
                yield number, content
            number += 1


def count_records(path: Path) -> int:
    """Return how many records a TFRecord file has, by their lengths; contents are not read.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableError: a length is damaged, or the file is cut off.
    """
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        number = 0
        while file.tell() < size:
            try:
                file.seek(_length(file, path, number, size) + _FOOT, os.SEEK_CUR)
            except _LostError as error:
                raise error.why from None
            number += 1
        return number


def write_records(path: Path, records: Iterable[bytes]) -> None:
    """Write a TFRecord file.

    Args:
        path: of the file; one that is there is replaced.
        records: contents.
    """
    with path.open("wb") as file:
        for record in records:
            head = struct.pack("<Q", len(record))
            file.write(head + struct.pack("<I", masked(crc32c(head))))
            file.write(record + struct.pack("<I", masked(crc32c(record))))


class _LostError(Exception):
    """Where the next record begins is not known."""

    def __init__(self, why: UnreadableError) -> None:
        super().__init__(str(why))
        self.why = why


def _tell(error: UnreadableError, skipped: Skipped | None) -> None:
    if skipped is None:
        raise error
    skipped(error)


def _length(file: BinaryIO, path: Path, number: int, size: int) -> int:
    """Return the length of the record that begins here."""
    of = f"{path}, record {number}"
    head = file.read(_HEAD)
    if len(head) < _HEAD:
        raise _LostError(damaged(of, "the file ends in its length"))
    if struct.unpack("<I", head[8:])[0] != masked(crc32c(head[:8])):
        raise _LostError(damaged(of, "the checksum of its length is wrong"))
    length: int = struct.unpack("<Q", head[:8])[0]
    if file.tell() + length + _FOOT > size:
        there = max(size - file.tell(), 0)
        raise _LostError(damaged(of, f"the file has {there:,} of its {length + _FOOT:,} bytes"))
    return length


def _content(file: BinaryIO, path: Path, number: int, length: int) -> bytes:
    content, foot = file.read(length), file.read(_FOOT)
    if len(foot) < _FOOT or struct.unpack("<I", foot)[0] != masked(crc32c(content)):
        raise damaged(f"{path}, record {number}", "the checksum of its content is wrong")
    return content
