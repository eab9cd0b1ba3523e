"""Means over seeds, with what they are worth; for several tasks at once see `tasks`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

__all__ = [
    "LEVEL",
    "Interval",
    "Values",
    "averaged",
    "differences",
    "finite",
    "interquartile_mean",
    "mean_interval",
    "paired_interval",
    "probability_of_improvement",
]

LEVEL = 0.95  # of confidence, as every page says

Values: TypeAlias = Mapping[int, float] | Sequence[float]
"""One number a seed, by seed or in the order of the seeds."""


@dataclass(frozen=True)
class Interval:
    """An estimate and its confidence interval.

    Args:
        mean: of the values; or another estimate, where a function says so.
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


def mean_interval(values: Values) -> Interval:
    """Compute the mean and Student's t interval of 95 %.

    With three to ten seeds a bootstrap is too narrow (of five normal values a 95 % one covers the
    mean about 85 times in 100); the t interval is exact for normal values.

    Args:
        values: one a seed.

    Raises:
        ValueError: there are no values, or one is not finite.

    Example:
        >>> interval = mean_interval([1.0, 2.0, 3.0])
        >>> interval.mean, round(interval.low, 3), round(interval.high, 3)
        (2.0, -0.484, 4.484)
    """
    numbers = finite(values)
    n, mean = len(numbers), float(np.mean(numbers))
    if n == 1:
        return Interval(mean, math.nan, math.nan, 1)
    from scipy.special import stdtrit  # noqa: PLC0415 (an extra; scipy.stats is slow to import)

    sd = float(np.std(numbers, ddof=1))
    half = float(stdtrit(n - 1, (1 + LEVEL) / 2) * sd / math.sqrt(n))
    return Interval(mean, mean - half, mean + half, n)


def paired_interval(values: Values, baseline: Values) -> Interval:
    """Compute the mean difference to a baseline run with the same seeds, and its t interval.

    Args:
        values: one a seed.
        baseline: by seed if the values are, else in the same order.

    Raises:
        ValueError: the two cannot be paired, or a value is not finite.

    Example:
        >>> paired_interval({1: 2.0, 2: 3.0}, {2: 2.0, 1: 1.0}).mean
        1.0
    """
    if isinstance(values, Mapping) and isinstance(baseline, Mapping):
        return mean_interval(differences(values, baseline))
    if isinstance(values, Mapping) or isinstance(baseline, Mapping):
        raise ValueError("values and baseline: both by seed, or both in the order of the seeds")
    if len(values) != len(baseline):
        raise ValueError(f"{len(values)} values, but {len(baseline)} of the baseline: pair them")
    return mean_interval([a - b for a, b in zip(values, baseline, strict=True)])


def differences(
    values: Mapping[int, float], baseline: Mapping[int, float], *, common: bool = False
) -> dict[int, float]:
    """Subtract a baseline run with the same seeds, seed by seed.

    Args:
        values: by seed.
        baseline: by seed.
        common: leave out seeds that only one of the two has.

    Raises:
        ValueError: a seed has no partner, or none is common.

    Example:
        >>> differences({1: 2.0, 2: 3.0}, {2: 2.5, 3: 1.0}, common=True)
        {2: 0.5}
    """
    alone = sorted(set(values) ^ set(baseline))
    if alone and not common:
        seeds = ", ".join(map(str, alone))
        raise ValueError(f"seeds {seeds}: only one side has them; run them, or say common=True")
    if alone and not set(values) & set(baseline):
        raise ValueError(f"empty: no seed in both {sorted(values)} and {sorted(baseline)}")
    return {seed: value - baseline[seed] for seed, value in values.items() if seed in baseline}


def averaged(parts: Sequence[Mapping[int, float]]) -> dict[int, float]:
    """Average over parts, seed by seed, of the seeds that all parts have.

    Args:
        parts: values by seed, at least one part.

    Example:
        >>> averaged([{0: 1.0, 1: 3.0}, {0: 3.0}])
        {0: 2.0}
    """
    common = set.intersection(*(set(part) for part in parts))
    return {seed: sum(part[seed] for part in parts) / len(parts) for seed in sorted(common)}


def finite(values: Values, name: str = "values") -> np.ndarray:
    """Return values as an array.

    Args:
        values: one a seed.
        name: what an error calls them.

    Raises:
        ValueError: there are none, or one is not finite.
    """
    pairs = list(values.items() if isinstance(values, Mapping) else enumerate(values))
    if not pairs:
        raise ValueError(f"{name} is empty: at least one value is needed")
    for key, value in pairs:
        if not math.isfinite(value):
            which = "seed" if isinstance(values, Mapping) else "index"
            raise ValueError(
                f"{name} holds {value} for {which} {key}: a mean would hide it; find out why, or "
                "leave it out and say so"
            )
    return np.array([value for _, value in pairs], dtype=float)


def interquartile_mean(values: Values) -> float:
    """Return the mean of the middle half: a quarter is left out at each end, rounded down.

    Neither a failed run nor a lucky one moves it much, and it uses more values than a median.

    Source: Agarwal et al. 2021, Deep Reinforcement Learning at the Edge of the Statistical
    Precipice (arXiv 2108.13264).

    Example:
        >>> interquartile_mean([0.0, 4.0, 6.0, 100.0])
        5.0
    """
    ordered = np.sort(finite(values))
    cut = len(ordered) // 4
    return float(ordered[cut : len(ordered) - cut].mean())


def probability_of_improvement(values: Values, baseline: Values) -> float:
    """Return how often a value is above one of the baseline, of all pairs; ties count half.

    Source: as of :func:`interquartile_mean`.

    Example:
        >>> probability_of_improvement([1.0, 3.0], [1.0, 2.0])
        0.625
    """
    differences = finite(values)[:, None] - finite(baseline, "baseline")[None]
    return float((np.sign(differences).mean() + 1) / 2)
