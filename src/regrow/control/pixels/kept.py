"""Keeps the frames of a run beside its checkpoint, in files that only grow: saving stays cheap."""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from regrow.control.pixels.frames import Frames
from regrow.machine import naming

__all__ = ["KeptFrames"]

_EACH = 1024  # frames in a file


class KeptFrames:
    """The frames that a replay buffer holds, in a folder.

    A checkpoint names files, lengths and checksums. What was written after it is cut off when a
    run goes on from it, and files that it names go only once a later one has been saved.

    Args:
        folder: made if it is not there.
        ring: whose frames these are.
    """

    def __init__(self, folder: Path, ring: Frames) -> None:
        self.folder, self.ring = folder, ring
        self._parts: list[list[int]] = []  # number of the first frame, frames, checksum
        self._unused: list[list[int]] = []  # which the last checkpoint still names

    def save_(self) -> dict[str, Any]:
        """Write the frames that are new, and return what a checkpoint must hold."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for part in self._unused:
            self._path(part[0]).unlink(missing_ok=True)
        ring, oldest = self.ring, max(0, self.ring.frames_added - self.ring.capacity)
        written = sum(self._parts[-1][:2]) if self._parts else 0
        while (first := max(written, oldest)) < ring.frames_added:
            if not self._parts or first > written or self._parts[-1][1] >= _EACH:
                self._parts.append([first, 0, 0])
                self._path(first).write_bytes(b"")
            room = _EACH - self._parts[-1][1]
            written = min(first + room, ring.frames_added)
            self._append_(self._parts[-1], ring.read(first, written).tobytes(), written - first)
        self._unused = [part for part in self._parts if part[0] + part[1] <= oldest]
        self._parts = [part for part in self._parts if part[0] + part[1] > oldest]
        return {"parts": [list(part) for part in self._parts]}

    def _append_(self, part: list[int], content: bytes, count: int) -> None:
        path = self._path(part[0])
        with naming(path), path.open("ab") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part[1] += count
        part[2] = zlib.crc32(content, part[2])

    def load_(self, state: Mapping[str, Any]) -> None:
        """Put frames back into the ring, whose counts have been put back.

        Raises:
            ValueError: a file is missing or damaged.
        """
        self._parts = [list(part) for part in state["parts"]]
        each = self.ring.frames[0].numel()
        oldest = max(0, self.ring.frames_added - self.ring.capacity)
        for first, count, checksum in self._parts:
            path = self._path(first)
            content = path.read_bytes()[: count * each] if path.is_file() else b""
            if len(content) != count * each or zlib.crc32(content) != checksum:
                raise ValueError(
                    f"{path}: is missing or damaged, and the run cannot go on without its frames: "
                    "remove the run's folder to begin anew"
                )
            os.truncate(path, count * each)
            frames = np.frombuffer(content, np.uint8).reshape(count, *self.ring.frames.shape[1:])
            kept = max(first, oldest)
            self.ring.write_(kept, frames[kept - first :].copy())

    def remove(self) -> None:
        """Remove all files: the run is over."""
        for path in self.folder.glob("*.frames"):
            path.unlink()
        if self.folder.is_dir():
            self.folder.rmdir()

    def _path(self, first: int) -> Path:
        return self.folder / f"{first:09}.frames"
