"""Times several calls in turns, so that a busy machine slows all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

__all__ = ["Timing", "interleaved", "now"]


@dataclass(frozen=True)
class Timing:
    """Seconds of one thing, repeated: of the wall clock, or another.

    Args:
        seconds: of each repetition.

    Example:
        >>> Timing((3.0, 1.0, 2.0)).median
        2.0
    """

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median."""
        return float(np.median(self.seconds))

    @property
    def quartiles(self) -> tuple[float, float]:
        """The spread: the middle half of all repetitions lies in between."""
        low, high = np.percentile(self.seconds, [25, 75])
        return float(low), float(high)

    def clearly_below(self, other: Timing) -> bool:
        """Tell whether the middle halves of two timings do not even touch.

        On a busy machine a difference of medians alone would choose at random.
        """
        return self.quartiles[1] < other.quartiles[0]


def interleaved(
    calls: Mapping[str, Callable[[], object]],
    *,
    seconds: float = 1.0,
    warmup: int = 2,
    least: int = 5,
    most: int = 200,
    again: bool = False,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Time several calls in turns.

    Args:
        calls: what is compared, by name.
        seconds: of timing in all; no new round begins after them.
        warmup: rounds that do not count.
        least: rounds that are made whatever they take.
        most: rounds that are made at most.
        again: whether each call is made once more right before it is timed, so that caches hold
            what is its own, as in a loop.
        clock: gives seconds; ``time.thread_time`` where one thread computes and others disturb it.

    Returns:
        Timings by name. A GPU is waited for at the end of every call.

    Raises:
        ValueError: there is nothing to time.

    Example:
        >>> times = interleaved({"a": lambda: None, "b": lambda: None}, seconds=0.0, least=3)
        >>> [len(timing.seconds) for timing in times.values()]
        [3, 3]
    """
    if not calls:
        raise ValueError("calls is empty: name at least one thing to time")
    seconds_of: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(warmup):
        for call in calls.values():
            _timed(call, clock)
    started = time.perf_counter()
    for round_ in range(most):
        if round_ >= least and time.perf_counter() - started > seconds:
            break
        # In turns, so that heat, other processes and clock speeds hit all alike.
        for name, call in calls.items():
            if again:
                call()
            seconds_of[name].append(_timed(call, clock))
    return {name: Timing(tuple(times)) for name, times in seconds_of.items()}


def _timed(call: Callable[[], object], clock: Callable[[], float]) -> float:
    # Calls on a GPU return before they are done: work of the call before must not be counted here.
    _wait()
    started = clock()
    call()
    _wait()
    return clock() - started


def now() -> float:
    """Return the seconds of the steadiest clock; a GPU is waited for.

    Where one thread computes, those that it has computed, which other processes disturb little;
    else those of the wall clock.
    """
    _wait()
    alone = torch.get_num_threads() == 1 and not torch.cuda.is_available()
    return time.thread_time() if alone else time.perf_counter()


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
