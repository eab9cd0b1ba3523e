"""What a trial has in hand while it runs: metrics, progress, checkpoints that survive a kill."""

from __future__ import annotations

import hashlib
import io
import logging
import math
import os
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from regrow.lab.files import (
    Damaged,
    append_line,
    parse_lines,
    read_json,
    read_whole,
    remove,
    sync,
    write_bytes,
    write_json,
)

__all__ = [
    "CHECKPOINT",
    "METRICS",
    "PROGRESS",
    "TOLD",
    "Run",
    "Show",
    "progress",
    "told_number",
    "told_words",
]

logger = logging.getLogger(__name__)

Show = Callable[[Mapping[str, float | str]], None]

METRICS, CHECKPOINT, PROGRESS = "metrics.jsonl", "checkpoint.pt", "progress.json"
TOLD = "told.json"  # what trackers of others were told, see regrow.lab.loggers
_TELL_EVERY = 1.0  # seconds
_SAVE_EVERY = 60.0


class Run:
    """A run of one trial, in a folder of its own.

    Args:
        folder: where the trial writes.
        options: what the trial needs to know of this machine and must not depend on, such as
            ``data_dir`` and ``device``.
        writes: False for ranks other than the first, which read the same checkpoints.
        save_every: seconds between checkpoints.
        show: is called with every line of metrics, in this process.
        begin: is called once, when the trial first tells of itself: it was begun as asked for.
    """

    def __init__(
        self,
        folder: Path,
        options: Mapping[str, Any] | None = None,
        *,
        writes: bool = True,
        save_every: float = _SAVE_EVERY,
        show: Show = lambda _: None,
        begin: Callable[[], None] = lambda: None,
    ) -> None:
        self.folder, self.writes, self.save_every = folder, writes, save_every
        self.show, self._begin = show, begin
        self.options = dict(options or {})
        self.begun = False  # whether the trial has told of itself: it was begun as asked for
        self._told = self._saved = time.monotonic()

    def log(self, **values: float | str) -> None:
        """Add a line of metrics, such as ``log(epoch=3, accuracy=0.9)``."""
        self._was_begun()
        if self.writes:
            append_line(self.folder / METRICS, values)
            self.show(values)

    def tell(self, done: float, words: str = "") -> None:
        """Say how far the run is: a share from 0 to 1, and a few words. At most once a second."""
        self._was_begun()
        now = time.monotonic()
        if not self.writes or now - self._told < _TELL_EVERY:
            return
        self._told = now
        write_json(self.folder / PROGRESS, {"done": done, "words": words})

    def _was_begun(self) -> None:
        if not self.begun:
            self._begin()
            self.begun = True

    def due(self) -> bool:
        """Whether it is time to save a checkpoint."""
        return time.monotonic() - self._saved >= self.save_every

    def save(self, state: Mapping[str, Any]) -> None:
        """Save a checkpoint: tensors, numbers, strings and containers of them."""
        self._saved = time.monotonic()
        if not self.writes:
            return
        metrics, logged = self.folder / METRICS, b""
        if metrics.exists():
            sync(metrics)  # a power cut must not leave a checkpoint whose metrics are lost
            logged = metrics.read_bytes()
        out = io.BytesIO()
        content = {"state": dict(state), "metrics": len(logged), "sha256": _hash(logged)}
        torch.save(content, out)
        write_bytes(self.folder / CHECKPOINT, out.getvalue())

    def load(self) -> dict[str, Any] | None:
        """Return the last checkpoint, if there is one; metrics logged after it are taken back.

        A checkpoint that is damaged, or does not fit the metrics, is named in the log and removed:
        the run starts anew.
        """
        path, metrics = self.folder / CHECKPOINT, self.folder / METRICS
        try:
            saved = _read_checkpoint(path, metrics)
        except Damaged as error:
            logger.warning("%s: the trial starts anew", error)
            saved = None
        if saved is None:
            for one in (path, metrics) if self.writes else ():
                remove(one)
            return None
        if self.writes and metrics.exists():
            os.truncate(metrics, saved["metrics"])
        state: dict[str, Any] = saved["state"]
        return state


def _read_checkpoint(path: Path, metrics: Path) -> dict[str, Any] | None:
    """Read a checkpoint and look whether the metrics are those it was saved with.

    Raises:
        Damaged: it cannot be read, or the metrics are shorter or not what was written.
    """
    if not os.path.lexists(path):
        return None
    content = io.BytesIO(read_whole(path))
    try:
        with zipfile.ZipFile(content) as archive:
            if (name := archive.testzip()) is not None:  # torch compares no checksums
                raise ValueError(f"the checksum of {name} is wrong")
        content.seek(0)
        saved = torch.load(content, map_location="cpu", weights_only=True)
    except Exception as error:  # of many kinds, whatever the bytes are taken for
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise Damaged(f"{path} is damaged ({why})") from error
    wanted = {"state": dict, "metrics": int}
    if not isinstance(saved, dict) or any(type(saved.get(n)) is not t for n, t in wanted.items()):
        raise Damaged(f"{path} is damaged (no state and length of metrics)")
    length = max(saved["metrics"], 0)
    logged = read_whole(metrics)[:length] if length else b""
    if len(logged) != length or saved.get("sha256", _hash(logged)) != _hash(logged):
        raise Damaged(f"{metrics} is damaged ({path.name} was saved with other {length} bytes)")
    parse_lines(metrics, logged, whole=True)  # a checkpoint of before checksums tells the length
    return saved


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def progress(folder: Path) -> float:
    """Return how far the run in a folder is, from 0 to 1, as far as it has told.

    Example:
        >>> progress(Path("not there"))
        0.0
    """
    return min(1.0, told_number(folder / PROGRESS, "done"))


def told_words(folder: Path) -> str:
    """Return what the run in a folder says it is at, as far as it has told.

    Example:
        >>> told_words(Path("not there"))
        ''
    """
    try:
        return str(read_json(folder / PROGRESS).get("words", ""))
    except Damaged:
        return ""


def told_number(path: Path, key: str) -> float:
    """Read a number from a small file that only helps; 0 if it is damaged or not there.

    Args:
        path: of the file.
        key: of the number, which is not below 0.
    """
    try:
        value = read_json(path).get(key)
    except Damaged:
        return 0.0
    right = isinstance(value, int | float) and math.isfinite(value) and value >= 0
    return float(value) if right else 0.0  # type: ignore[arg-type]
