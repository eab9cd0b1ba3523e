"""Means over seeds, with what they are worth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Interval", "mean_interval", "paired_interval"]


@dataclass(frozen=True)
class Interval:
    """A mean and its confidence interval.

    Args:
        mean: of the values.
        low: lower end; NaN for a single value.
        high: upper end; NaN for a single value.
        n: number of values.
    """

    mean: float
    low: float
    high: float
    n: int

    @property
    def half_width(self) -> float:
        """Half the interval's length."""
        return (self.high - self.low) / 2

    def excludes(self, value: float) -> bool:
        """Whether the value lies outside the interval; never for a single value."""
        return value < self.low or value > self.high


def mean_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Compute the mean and Student's t interval.

    With three to ten seeds a percentile bootstrap is too narrow; the t interval is exact for normal
    values.

    Args:
        values: one a seed.
        level: the confidence level, between 0 and 1.

    Raises:
        ValueError: there are no values.

    Example:
        >>> interval = mean_interval([1.0, 2.0, 3.0])
        >>> interval.mean, round(interval.low, 3), round(interval.high, 3)
        (2.0, -0.484, 4.484)
    """
    if not values:
        raise ValueError("values is empty: a mean needs at least one value")
    mean = float(np.mean(values))
    n = len(values)
    if n == 1:
        return Interval(mean, math.nan, math.nan, 1)
    from scipy.stats import t  # noqa: PLC0415  (slow to import, and an extra)

    half = float(t.ppf((1 + level) / 2, n - 1) * np.std(values, ddof=1) / math.sqrt(n))
    return Interval(mean, mean - half, mean + half, n)


def paired_interval(
    values: Sequence[float], baseline: Sequence[float], level: float = 0.95
) -> Interval:
    """Compute the mean difference to a baseline run with the same seeds, and its interval.

    Raises:
        ValueError: the two are of different lengths.

    Example:
        >>> paired_interval([2.0, 3.0], [1.0, 2.0]).mean
        1.0
    """
    if len(values) != len(baseline):
        raise ValueError(f"{len(values)} values, but {len(baseline)} of the baseline: pair them")
    return mean_interval([a - b for a, b in zip(values, baseline, strict=True)], level)
