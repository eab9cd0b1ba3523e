"""Data-parallel trials: the first of several ranks runs the sweep, the others join each trial.

Start any command with ``torchrun --nproc-per-node N -m regrow ...``.
"""

from __future__ import annotations

import contextlib
import os
import traceback
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from regrow.lab.run import Run
from regrow.lab.trial import Trial

__all__ = ["all_ranks", "rank_and_ranks", "run_on_all"]

_TIMEOUT = timedelta(minutes=10)  # a rank that failed alone must not hold the others for ever


def rank_and_ranks() -> tuple[int, int]:
    """Return which process this is, and how many train together.

    Example:
        >>> rank_and_ranks()
        (0, 1)
    """
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


@contextlib.contextmanager
def all_ranks() -> Iterator[bool]:
    """Bring the ranks that torchrun started together; without it, there is this process alone.

    Yields:
        Whether this is the first rank, which is to go on. The others have by then taken part in
        every trial of the first, and have nothing left to do.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or not distributed.is_available():
        yield True
        return
    gpus = torch.cuda.is_available()
    if gpus:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo", timeout=_TIMEOUT)
    try:
        if distributed.get_rank():
            _join()
            yield False
        else:
            yield True
            _send(None)
    finally:
        distributed.destroy_process_group()


def run_on_all(trial: Trial, run: Run) -> Mapping[str, Any]:
    """Run a trial on every rank; the first one's result counts."""
    if rank_and_ranks()[1] > 1:
        _send((trial, run.folder.resolve(), run.options))
    return trial.run(run)


def _join() -> None:
    """Take part in the trials of the first rank until it has none left."""
    while (sent := _send(None)) is not None:
        trial, folder, options = sent
        try:
            trial.run(Run(folder, options, writes=False))
        except Exception:  # the first rank keeps its own, this one would be lost
            traceback.print_exc()


def _send(content: tuple[Trial, Path, Mapping[str, Any]] | None) -> Any:
    """Send the first rank's content to all, and return it."""
    box = [content]
    distributed.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]
