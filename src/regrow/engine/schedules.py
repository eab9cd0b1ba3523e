"""Schedules: a quantity as a function of progress through a run, and times in steps or fractions.

A schedule is a function of progress: 0 at the start of its window, 1 at the end. Windows are given
in optimizer steps (int) or as a fraction of the run (float).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

__all__ = [
    "Constant",
    "Cosine",
    "Cubic",
    "Early",
    "Linear",
    "Schedule",
    "Sigmoid",
    "Steps",
    "in_steps",
]


class Schedule(Protocol):
    """Anything that maps progress in [0, 1] to a value; a plain function will do."""

    def __call__(self, progress: float, /) -> float:
        """Return the value at this progress."""


@dataclass(frozen=True)
class Constant:
    """Stay at one value.

    Example:
        >>> Constant(0.3)(0.5)
        0.3
    """

    value: float

    def __call__(self, progress: float) -> float:
        """Return the value."""
        return self.value


@dataclass(frozen=True)
class Linear:
    """Move from start to end at constant speed: start + (end - start)·p.

    Example:
        >>> Linear(0.5, 0.25)(0.5)
        0.375
    """

    start: float
    end: float = 0.0

    def __call__(self, progress: float) -> float:
        """Return the value at this progress."""
        return self.start + (self.end - self.start) * progress


@dataclass(frozen=True)
class Cosine:
    """Move along half a cosine: end + (start - end)/2 · (1 + cos πp).

    Source: RigL's drop fraction with start = α, end = 0 (Evci et al. 2020, section 3).

    Example:
        >>> Cosine(0.3)(0.0), Cosine(0.3)(0.5), Cosine(0.3)(1.0)
        (0.3, 0.15, 0.0)
    """

    start: float
    end: float = 0.0

    def __call__(self, progress: float) -> float:
        """Return the value at this progress."""
        return self.end + (self.start - self.end) / 2 * (1 + math.cos(math.pi * progress))


@dataclass(frozen=True)
class Cubic:
    """Fall fast, then settle: end + (start - end)·(1 - p)³.

    Source: gradual magnitude pruning (Zhu & Gupta 2017, arXiv 1710.01878, eq. 1).

    Example:
        >>> Cubic(1.0)(0.5)
        0.125
    """

    start: float
    end: float = 0.0

    def __call__(self, progress: float) -> float:
        """Return the value at this progress."""
        return self.end + (self.start - self.end) * (1 - progress) ** 3


@dataclass(frozen=True)
class Steps:
    """Jump from value to value: each holds from its moment on.

    Args:
        moments: pairs (progress, value) in ascending order; the first at progress 0.

    Raises:
        ValueError: the moments do not start at 0 or do not ascend.

    Example:
        >>> Steps(((0.0, 0.3), (0.5, 0.1)))(0.7)
        0.1
    """

    moments: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        starts = [start for start, _ in self.moments]
        if not starts or starts[0] != 0 or starts != sorted(set(starts)):
            raise ValueError(f"moments={self.moments}: must ascend from progress 0")

    def __call__(self, progress: float) -> float:
        """Return the value in force at this progress."""
        return next(value for start, value in reversed(self.moments) if progress >= start)


@dataclass(frozen=True)
class Sigmoid:
    """Fall slowly, then fast, then slowly, along a sigmoid σ.

    start + (end - start)·((σ(12p - 6) - ½)/(2σ(6) - 1) + ½)

    Source: the density decay of CHTss (Zhang et al. 2025), normalised to reach its ends exactly.

    Example:
        >>> [round(Sigmoid(1.0)(p), 6) for p in (0.0, 0.5, 1.0)]
        [1.0, 0.5, 0.0]
    """

    start: float
    end: float = 0.0

    def __call__(self, progress: float) -> float:
        """Return the value at this progress."""
        risen = (_sigmoid(6 * (2 * progress - 1)) - 0.5) / (2 * _sigmoid(6.0) - 1) + 0.5
        return self.start + (self.end - self.start) * risen


@dataclass(frozen=True)
class Early:
    """Run a schedule faster, so that it ends at a part of the window and then stays.

    Args:
        schedule: what is run.
        until: the progress at which it has ended, in (0, 1].

    Example:
        >>> Early(Linear(1.0), until=0.5)(0.25), Early(Linear(1.0), until=0.5)(0.9)
        (0.5, 0.0)
    """

    schedule: Schedule
    until: float

    def __post_init__(self) -> None:
        if not 0 < self.until <= 1:
            raise ValueError(f"until={self.until}: must lie in (0, 1]")

    def __call__(self, progress: float) -> float:
        """Return the value at this progress."""
        return self.schedule(min(progress / self.until, 1.0))


def in_steps(when: int | float, total_steps: int, argument: str) -> int:
    """Turn a moment given in steps (int) or as a fraction of the run (float) into steps.

    Args:
        when: an int from 0 to ``total_steps``, or a float from 0.0 to 1.0.
        total_steps: the length of the run in optimizer steps.
        argument: the argument's name, for the error.

    Returns:
        The step; fractions are rounded to the nearest.

    Raises:
        TypeError: neither int nor float.
        ValueError: outside the run.

    Example:
        >>> in_steps(0.75, 1000, "stop_at"), in_steps(750, 1000, "stop_at")
        (750, 750)
    """
    if isinstance(when, bool) or not isinstance(when, int | float):
        raise TypeError(f"{argument}={when!r}: steps (int) or a fraction of the run (float)")
    limit = 1.0 if isinstance(when, float) else total_steps
    if not 0 <= when <= limit:
        raise ValueError(
            f"{argument}={when!r}: must lie in 0..{limit}; an int counts optimizer steps "
            f"(of total_steps={total_steps}), a float is a fraction of the run"
        )
    return round(when * total_steps) if isinstance(when, float) else when


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))
