"""Data-parallel trials: the first of several ranks runs the sweep, the others join each trial.

Start any command with ``torchrun --nproc-per-node N -m regrow ...``. A trial has a process group of
its own, so that one that failed leaves nothing half sent to the next. Between trials the ranks meet
at torchrun's store, and may wait there as long as it takes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import distributed

from regrow.lab.run import Run
from regrow.lab.trial import Trial

__all__ = ["all_ranks", "ranks_at_hand", "run_on_all"]

_TIMEOUT = timedelta(minutes=10)  # a rank that failed alone must not hold the others for ever
_ANY_TIME = timedelta(days=365)
_LOOK_EVERY = 0.5  # seconds, at whether another rank failed
_ERROR = "error"  # the key in the store of what went wrong first


def ranks_at_hand() -> int:
    """Return how many ranks a trial that is run now will train on.

    Example:
        >>> ranks_at_hand()
        1
    """
    team = _team.get()
    return team.ranks if team else 1


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
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    rendezvous = distributed.rendezvous(  # type: ignore[attr-defined]
        "env://", timeout=_TIMEOUT
    )
    team = _Team(*next(rendezvous))
    if team.rank:
        logging.getLogger("regrow").setLevel(logging.CRITICAL)  # the first rank says it
        _join(team)
        yield False
        return
    token = _team.set(team)
    try:
        yield True
    finally:
        _team.reset(token)
        team.send(None)


def run_on_all(trial: Trial, run: Run) -> Mapping[str, Any]:
    """Run a trial on every rank; the first one's result counts.

    Raises:
        Exception: what the trial raised here; if another rank failed before, with its traceback.
    """
    if (team := _team.get()) is None:
        return trial.run(run)
    team.send((trial, run.folder.resolve(), run.options, torch.get_num_threads()))
    with team.group():
        return trial.run(run)


def _join(team: _Team) -> None:
    """Take part in the trials of the first rank until it has none left."""
    while (sent := team.receive()) is not None:
        trial, folder, options, threads = sent
        torch.set_num_threads(threads)
        # The first rank fails as well, and records why.
        with contextlib.suppress(Exception), team.group():
            trial.run(Run(folder, options, writes=False))


@dataclass
class _Team:
    """What the ranks share: a store, and the count of what was sent through it."""

    store: Any  # torch tells no type checker about its stores
    rank: int
    ranks: int
    sent: int = 0

    def send(self, content: Any) -> None:
        self.sent += 1
        self.store.set(f"sent/{self.sent}", pickle.dumps(content))

    def receive(self) -> Any:
        self.sent += 1
        self.store.wait([f"sent/{self.sent}"], _ANY_TIME)
        return pickle.loads(self.store.get(f"sent/{self.sent}"))

    @contextlib.contextmanager
    def group(self) -> Iterator[None]:
        """Be one process group for as long as the trial lasts."""
        prefix = f"trial/{self.sent}"
        store = distributed.PrefixStore(prefix, self.store)  # type: ignore[attr-defined]
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        distributed.init_process_group(
            backend, store=store, rank=self.rank, world_size=self.ranks, timeout=_TIMEOUT
        )
        try:
            with _left_if_another_failed(store):
                yield
        except Exception as error:
            # Said before this rank leaves: those that wait for it fail only then, and find it.
            own = f"on rank {self.rank}:\n{traceback.format_exc()}"
            first = store.compare_set(_ERROR, "", own).decode()
            if first != own:
                error.add_note(first)
            _abort()
            raise
        finally:
            distributed.destroy_process_group()


@contextlib.contextmanager
def _left_if_another_failed(store: Any) -> Iterator[None]:
    """Leave the group as soon as another rank says that it failed.

    Ranks of gloo notice that one is gone. On GPUs they would wait until the time is out, and then
    be ended with everything that was still to be tried.

    Raises:
        RuntimeError: another failed; what was computed since may be wrong.
    """
    over, failed = threading.Event(), threading.Event()

    def look() -> None:
        while not over.wait(_LOOK_EVERY):
            if store.check([_ERROR]):
                failed.set()
                _abort()
                return

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
    if failed.is_set():
        raise RuntimeError("another rank failed")


def _abort() -> None:
    """End what ranks are at together, without waiting for the others."""
    if distributed.is_initialized():
        distributed.group.WORLD.abort()  # type: ignore[union-attr]


_team: ContextVar[_Team | None] = ContextVar("_team", default=None)
