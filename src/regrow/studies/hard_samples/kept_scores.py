"""Scores that took a training run to find are kept in the user's cache, for all processes."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from regrow.lab.files import write_bytes

__all__ = ["kept_scores"]


def kept_scores(path: Path, make: Callable[[], Tensor]) -> Tensor:
    """Return scores that lie in a file, or make them and put them there.

    Of several processes one makes them, under a lock, and the others wait for it. Where the folder
    cannot be written, or what lies there cannot be read, they are made each time.

    Args:
        path: the file, which is there whole or not at all.
        make: finite numbers, shape (n,).

    Returns:
        On the CPU, the numbers as they were made.
    """
    if (found := _load(path)) is not None:
        return found
    with _locked(path):
        if (found := _load(path)) is not None:
            return found
        made = make().detach().cpu()
        out = io.BytesIO()
        np.save(out, made.numpy(), allow_pickle=False)
        with contextlib.suppress(OSError):
            write_bytes(path, out.getvalue())
    return made


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    lock = FileLock(path.with_suffix(".lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError:  # nothing can be written here, so there is nothing to wait for
        yield
        return
    try:
        yield
    finally:
        lock.release()


def _load(path: Path) -> Tensor | None:
    try:
        scores = torch.from_numpy(np.load(path, allow_pickle=False))
    except (OSError, ValueError, EOFError, TypeError):
        return None
    return scores if scores.ndim == 1 and bool(scores.isfinite().all()) else None
