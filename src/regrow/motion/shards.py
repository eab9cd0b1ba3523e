"""Files of many packed scenes, written in one step and read by memory map."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import socket
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from regrow.motion.packing import pack, unpack
from regrow.motion.scene import Scene
from regrow.reading import UnreadableError, damaged, decoding, open_file

__all__ = ["SUFFIX", "Shard", "remove_leftovers", "whole", "write_shard"]

SUFFIX = ".scenes"
"""What names of shards end in."""

_MAGIC = b"regrow scenes 1\n"
_FOOT = struct.Struct("<QQI16s")  # where the index begins, its size and checksum, the magic


def write_shard(path: Path, scenes: Iterable[Scene], about: Mapping[str, Any] | None = None) -> int:
    """Write a shard; it appears whole or not at all, whoever is killed or writes the same.

    Args:
        path: of the shard.
        scenes: what goes in.
        about: what else the index shall hold, asked for when all scenes are written; as JSON.

    Returns:
        How many scenes were written.

    Raises:
        OSError: it could not be written; a shard that was there stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.part")
    entries: list[dict[str, Any]] = []
    try:
        with part.open("wb") as file:
            file.write(_MAGIC)
            for scene in scenes:
                data = pack(scene)
                entries.append(
                    {
                        "name": scene.name,
                        "start": file.tell(),
                        "size": len(data),
                        "crc": zlib.crc32(data),
                        "targets": len(scene.targets),
                    }
                )
                file.write(data)
            index = json.dumps({"about": dict(about or {}), "scenes": entries}).encode()
            start = file.tell()
            file.write(index)
            file.write(_FOOT.pack(start, len(index), zlib.crc32(index), _MAGIC))
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return len(entries)


def remove_leftovers(folder: Path) -> None:
    """Remove what writers on this machine left that were killed.

    Args:
        folder: of shards; folders in it count, too.
    """
    host = socket.gethostname()
    for part in folder.rglob(f".*{SUFFIX}.{host}.*.part"):
        pid = part.name.split(".")[-2]
        if pid.isdecimal() and not _runs(int(pid)):
            part.unlink(missing_ok=True)


def _runs(pid: int) -> bool:
    if os.name == "nt":  # there, os.kill ends the process
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class Shard:
    """A file of scenes, read where they are needed; it can be sent to worker processes.

    Args:
        path: the file.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableError: it is no shard, or damaged.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = write_shard(Path(folder) / "tea.scenes", [], {"from": "a garden"})
        ...     shard = Shard(Path(folder) / "tea.scenes")
        >>> len(shard), shard.about
        (0, {'from': 'a garden'})
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._map: mmap.mmap | None = None
        self.about, self._entries = self._index()

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Scene]:
        return (self[place] for place in range(len(self)))

    @property
    def names(self) -> list[str]:
        """Names of the scenes, in order."""
        return [entry["name"] for entry in self._entries]

    @property
    def targets(self) -> list[int]:
        """How many targets each scene has."""
        return [entry["targets"] for entry in self._entries]

    def __getitem__(self, place: int) -> Scene:
        """Read a scene.

        Raises:
            IndexError: there is no such place.
            UnreadableError: it is damaged; the message names the file and the scene.
        """
        entry = self._entries[place]
        data = memoryview(self._mapped())[entry["start"] : entry["start"] + entry["size"]]
        of = f"{self.path}, scene {place}"
        if zlib.crc32(data) != entry["crc"]:
            raise damaged(of, "its checksum is wrong")
        with decoding(of):
            return unpack(data)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_map": None}

    def _mapped(self) -> mmap.mmap:
        if self._map is None:
            with self.path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._map

    def _index(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        with open_file(self.path) as file:
            size = os.fstat(file.fileno()).st_size
            if size < len(_MAGIC) + _FOOT.size or file.read(len(_MAGIC)) != _MAGIC:
                raise damaged(self.path, "is no shard of scenes")
            file.seek(size - _FOOT.size)
            start, length, crc, magic = _FOOT.unpack(file.read(_FOOT.size))
            if magic != _MAGIC or start + length + _FOOT.size != size:
                raise damaged(self.path, "its end is not where it should be")
            file.seek(start)
            index = file.read(length)
        if zlib.crc32(index) != crc:
            raise damaged(self.path, "the checksum of its index is wrong")
        with decoding(self.path):
            found = json.loads(index)
            return found["about"], found["scenes"]


def whole(path: Path) -> Shard | None:
    """Return a shard, or None where there is none that can be read."""
    with contextlib.suppress(FileNotFoundError, UnreadableError):
        return Shard(path)
    return None
