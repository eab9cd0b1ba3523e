"""The interface of a run: metrics, progress, checkpoints, options; and which device these name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

__all__ = ["RunLike", "device_of"]


class RunLike(Protocol):
    """Takes metrics, progress and checkpoints; :class:`regrow.lab.run.Run` writes them to disk."""

    @property
    def folder(self) -> Path:
        """Where weights are written."""

    @property
    def options(self) -> Mapping[str, Any]:
        """What training must know of this machine: ``data_dir``, ``device`` and so on."""

    @property
    def writes(self) -> bool:
        """Whether this process writes files; of several ranks one does."""

    def log(self, **values: float | str) -> None:
        """Add a line of metrics."""

    def tell(self, done: float, words: str = "") -> None:
        """Report the share that is done, from 0 to 1."""

    def due(self) -> bool:
        """Whether it is time to save a checkpoint."""

    def save(self, state: Mapping[str, Any]) -> None:
        """Save a checkpoint."""

    def load(self) -> dict[str, Any] | None:
        """Return the last checkpoint, if there is one."""


def device_of(options: Mapping[str, Any]) -> torch.device:
    """Return the device that the options of a run name; "auto" or none: a GPU if there is one.

    Raises:
        ValueError: it is a GPU and there is none.
    """
    name = options.get("device") or "auto"
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device={name!r}: torch sees no GPU here; use 'cpu'")
    if name == "cuda":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device(name)
