"""Counts an optimizer's steps, and tells which of them are to update the topology."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from regrow.engine.idle import fills_state
from regrow.engine.method import Method

__all__ = ["Clock"]


class Clock:
    """Counts the steps of one run, and knows which one the next update falls on.

    Under GradScaler a fused optimizer decides on the device whether it skips a step for infinite
    gradients, and to ask the device is to wait for it. So calls are counted here and skipped steps
    there; the two are put together only where a step would otherwise be an update.

    Args:
        method: says which steps are updates.
        total_steps: the length of the run.

    Attributes:
        next: the step of the next update; None when there is none left.
        due: whether the step now going on is an update.
    """

    def __init__(self, method: Method, total_steps: int) -> None:
        self.method = method
        self.total_steps = total_steps
        self.next = method.next_update(0, total_steps)
        self.due = False
        self._running = False
        self._calls = 0
        self._skipped: Tensor | int = 0

    @property
    def steps(self) -> int:
        """Steps so far; those that were skipped for infinite gradients are none."""
        # int() waits for the device; from here on the host knows, so that nothing is subtracted
        # twice.
        self._calls -= int(self._skipped)
        self._skipped = 0
        return self._calls

    @property
    def near(self) -> bool:
        """Whether the next step is an update, unless a step before it was skipped."""
        return self.next is not None and self._calls + 1 >= self.next

    def progress(self, step: int | None) -> float:
        """Return how far through the window of updates a step lies, 0 to 1; None is its end."""
        return 1.0 if step is None else self.method.progress(step, self.total_steps)

    def begin_(self, optimizer: Optimizer, arguments: Sequence[Any]) -> bool:
        """Look at the step about to be made; return whether it is one of the run's.

        Args:
            optimizer: as it is before the step.
            arguments: what the step was given.
        """
        self._running = not fills_state(optimizer, arguments)
        # Cheapest question first: only where the count of calls says "update" is the device asked
        # how many steps it has really made.
        self.due = (
            self._running
            and self.near
            and self.steps + 1 >= (self.next or 0)
            and not skips(optimizer)
        )
        return self._running

    def end_(self, optimizer: Optimizer) -> bool:
        """Count the step just made; return whether it was one of the run's, and not yet counted.

        An optimizer whose step calls that of a parent class runs its hooks twice.
        """
        if not self._running:
            return False
        self._running = False
        self._calls += 1
        # Added on the device, without asking for its value.
        if (found_inf := _found_inf(optimizer)) is not None:
            self._skipped = self._skipped + found_inf
        return True

    def count_(self, steps: int) -> None:
        """Count steps that were made without hooks, by replays of a CUDA graph."""
        self._calls += steps

    def advance_(self, unsettled: Callable[[], bool]) -> None:
        """Pass the update that was due.

        Args:
            unsettled: tells whether a density has not come to its end, because a layer took no part
                in the last updates: it is then made up for at the next step, as after a resume.
        """
        self.due = False
        self.next = self.method.next_update(self.steps, self.total_steps)
        if self.next is None and unsettled():
            self.next = self.steps + 1

    def set_(self, steps: int, *, settled: bool) -> None:
        """Go on from a number of steps.

        Args:
            steps: so far.
            settled: whether the density has come to its end. If the window of updates ended before
                that, the next step makes up for it.
        """
        self._calls, self._skipped = steps, 0
        self.next = self.method.next_update(steps, self.total_steps)
        if self.next is None and not settled:
            self.next = steps + 1


def skips(optimizer: Optimizer) -> bool:
    """Tell whether a fused optimizer skips the present step for infinite gradients."""
    found_inf = _found_inf(optimizer)
    return found_inf is not None and bool(found_inf)


def _found_inf(optimizer: Optimizer) -> Tensor | None:
    """Return 1 on a step that a fused optimizer skips, which GradScaler leaves as an attribute."""
    found_inf = getattr(optimizer, "found_inf", None)
    return found_inf if isinstance(found_inf, Tensor) else None
