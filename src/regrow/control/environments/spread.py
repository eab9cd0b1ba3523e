"""Environments spread over processes: Python steps one run at a time, in each process."""

from __future__ import annotations

import contextlib
import pickle
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from regrow.control.environments.base import Bools, Environments, Floats, Seen

__all__ = ["Spread"]


class Spread(Environments):
    """Environments that are stepped by processes, of which each has a part of the runs.

    Steps of MuJoCo's models are made one after the other by calls from Python, of which only one at
    a time runs in a process: 16 threads are little faster than one. What comes out is what one
    process would have made, bit for bit. Processes end with this object, or with its process.

    Args:
        make: a function of a module, which makes the environments of some seeds.
        seeds: of the runs.
        processes: that step, at most one for each run.
        **arguments: of ``make``.

    Raises:
        ImportError: mujoco or dm_control is missing.
        RuntimeError: a process ended early, or a step was interrupted before.

    Example:
        >>> from regrow.control.environments import make
        >>> Spread(make, [0, 1, 2], processes=2, task="point-mass").reset().shape
        (3, 4)
    """

    def __init__(
        self,
        make: Callable[..., Environments],
        seeds: Sequence[int],
        *,
        processes: int,
        **arguments: Any,
    ) -> None:
        Environments.__init__(self, seeds, 1)
        self._parts = np.array_split(np.arange(self.runs), min(processes, self.runs))
        self._ends = [_start() for _ in self._parts]
        self._waiting = False
        weakref.finalize(self, _end, self._ends)
        makers = (
            (make, {"seeds": [self.seeds[run] for run in part], **arguments})
            for part in self._parts
        )
        self.observations, self.actions, self.episode = self._ask("make", makers)[0]
        self._seen: Seen | None = None  # an episode has begun since they were asked

    def begin_(self, run: int, random: Any) -> None:
        """Begin an episode of a run, in its process."""
        number = next(i for i, part in enumerate(self._parts) if run in part)
        given = run - int(self._parts[number][0]), random, self.seeds[run], int(self._numbers[run])
        self._ask("begin", [given], [self._ends[number]])
        self._seen = None

    def advance_(self, actions: Floats) -> tuple[Floats, Bools]:
        """Step all runs, those of different processes at once."""
        told = self._ask("advance", (actions[part] for part in self._parts))
        rewards, terminated, self._seen = (np.concatenate(one) for one in zip(*told, strict=True))
        return rewards, terminated

    def observe(self) -> Seen:
        """Return what is seen."""
        if self._seen is None:
            self._seen = self.all_("observe")
        return self._seen.copy()

    def state(self) -> dict[str, Floats]:
        """Return the states of all processes, one behind the other."""
        told = self._ask("state", (None for _ in self._parts))
        return {name: np.concatenate([one[name] for one in told]) for name in told[0]}

    def set_state_(self, state: Mapping[str, Floats]) -> None:
        """Go on from states."""
        parts = (
            (
                {name: rows[part] for name, rows in state.items()},
                [self.seeds[run] for run in part],
                self._numbers[part],
                self._steps[part],
            )
            for part in self._parts
        )
        self._seen = np.concatenate(self._ask("set_state", parts))

    def all_(self, what: str) -> Any:
        """Return what all processes tell, one behind the other."""
        return np.concatenate(self._ask(what, (None for _ in self._parts)))

    def _ask(
        self, what: str, given: Iterable[Any], ends: Sequence[subprocess.Popen[bytes]] = ()
    ) -> list[Any]:
        """Ask all processes, or some, and then wait for all their answers."""
        if self._waiting:  # for answers that would be taken for those to what is asked now
            raise RuntimeError("these environments were interrupted in a step: make them anew")
        self._waiting = True
        ends = ends or self._ends
        for end, one in zip(ends, given, strict=True):
            _send(end, what, one)
        answers = [_receive(end) for end in ends]
        self._waiting = False
        for well, told in answers:
            if not well:
                raise told
        return [told for _, told in answers]


def _start() -> subprocess.Popen[bytes]:
    # Not by multiprocessing, which would import the script that asks again.
    command = [sys.executable, "-m", "regrow.control.environments.stepping"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def _send(end: subprocess.Popen[bytes], what: str, given: Any) -> None:
    assert end.stdin is not None
    try:
        pickle.dump((what, given), end.stdin)
        end.stdin.flush()
    except BrokenPipeError:
        raise _ended(end) from None


def _receive(end: subprocess.Popen[bytes]) -> tuple[bool, Any]:
    assert end.stdout is not None
    try:
        answer: tuple[bool, Any] = pickle.load(end.stdout)
    except (EOFError, pickle.UnpicklingError):
        raise _ended(end) from None
    return answer


def _ended(end: subprocess.Popen[bytes]) -> RuntimeError:
    return RuntimeError(
        f"a process that steps environments ended with status {end.wait()}; what it said stands "
        "above. Fewer workers need less memory"
    )


def _end(ends: Sequence[subprocess.Popen[bytes]]) -> None:
    for end in ends:
        for pipe in (end.stdin, end.stdout):
            with contextlib.suppress(OSError):  # of one that is dead already
                if pipe is not None:
                    pipe.close()
        end.wait()
