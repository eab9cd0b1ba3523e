"""What a trial has in hand while it runs: metrics, progress, checkpoints that survive a kill."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from regrow.lab.files import append_line, read_json, write_bytes, write_json

__all__ = ["CHECKPOINT", "METRICS", "PROGRESS", "Run", "Show", "progress"]

Show = Callable[[Mapping[str, float | str]], None]

METRICS, CHECKPOINT, PROGRESS = "metrics.jsonl", "checkpoint.pt", "progress.json"
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
    """

    def __init__(
        self,
        folder: Path,
        options: Mapping[str, Any] | None = None,
        *,
        writes: bool = True,
        save_every: float = _SAVE_EVERY,
        show: Show = lambda _: None,
    ) -> None:
        self.folder, self.writes, self.save_every = folder, writes, save_every
        self.show = show
        self.options = dict(options or {})
        self._told = self._saved = time.monotonic()

    def log(self, **values: float | str) -> None:
        """Add a line of metrics, such as ``log(epoch=3, accuracy=0.9)``."""
        if self.writes:
            append_line(self.folder / METRICS, values)
            self.show(values)

    def tell(self, done: float, words: str = "") -> None:
        """Say how far the run is: a share from 0 to 1, and a few words. At most once a second."""
        now = time.monotonic()
        if not self.writes or now - self._told < _TELL_EVERY:
            return
        self._told = now
        write_json(self.folder / PROGRESS, {"done": done, "words": words})

    def due(self) -> bool:
        """Whether it is time to save a checkpoint."""
        return time.monotonic() - self._saved >= self.save_every

    def save(self, state: Mapping[str, Any]) -> None:
        """Save a checkpoint: tensors, numbers, strings and containers of them."""
        self._saved = time.monotonic()
        if not self.writes:
            return
        metrics = self.folder / METRICS
        length = metrics.stat().st_size if metrics.exists() else 0
        out = io.BytesIO()
        torch.save({"state": dict(state), "metrics": length}, out)
        write_bytes(self.folder / CHECKPOINT, out.getvalue())

    def load(self) -> dict[str, Any] | None:
        """Return the last checkpoint, if there is one; metrics logged after it are taken back."""
        path, metrics = self.folder / CHECKPOINT, self.folder / METRICS
        if not path.exists():
            if self.writes:
                metrics.unlink(missing_ok=True)
            return None
        saved = torch.load(path, map_location="cpu", weights_only=True)
        if self.writes and metrics.exists():
            os.truncate(metrics, saved["metrics"])
        state: dict[str, Any] = saved["state"]
        return state


def progress(folder: Path) -> float:
    """Return how far the run in a folder is, from 0 to 1, as far as it has told.

    Example:
        >>> progress(Path("not there"))
        0.0
    """
    try:
        return float(read_json(folder / PROGRESS)["done"])
    except (OSError, ValueError, KeyError):
        return 0.0
