"""Statistics over several tasks, each with a few runs (Agarwal et al. 2021, arXiv 2108.13264).

A task is a data set, a game, a model: whatever several methods were tried on. Values of different
tasks must be comparable, such as accuracies, or scores normalised by a baseline's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from regrow.lab.statistics import LEVEL, Interval, Values, finite

__all__ = [
    "interquartile_interval",
    "mean_over_tasks",
    "probability_of_improvement",
]

_RESAMPLES = 5000


def mean_over_tasks(tasks: Mapping[str, Values], *, overlap: float = 0.0) -> Interval:
    """Average the tasks' means, each task weighing the same, whatever its number of runs.

    mean = Σ m_t / T, with the variance Σ (1/n_t + ρ) s_t² / T² and Welch's degrees of freedom: it
    says what other seeds would change on these tasks, not what other tasks would.

    Args:
        tasks: values by task, one a seed, such as differences to a baseline of the same seed.
        overlap: ρ, the test rows for each training row, if a task's values are of its data split
            anew: splits share rows, and without ρ the interval is far too narrow. 0 for seeds.

    Returns:
        Its ``n`` is that of the task with the fewest runs.

    Raises:
        ValueError: there are no tasks, or a value is not finite.

    Source: Satterthwaite 1946; Welch 1947; ρ: Nadeau & Bengio 2003, Inference for the
    generalization error.

    Example:
        >>> found = mean_over_tasks({"a": [1.0, 2.0, 3.0], "b": [5.0, 6.0, 7.0, 6.0]})
        >>> found.mean, found.n
        (4.0, 3)
    """
    runs = list(_arrays(tasks, "tasks").values())
    mean, n = float(np.mean([run.mean() for run in runs])), min(map(len, runs))
    if n == 1:
        return Interval(mean, math.nan, math.nan, 1)
    parts = np.array([run.var(ddof=1) / len(run) + overlap * run.var(ddof=1) for run in runs])
    if not parts.any():
        return Interval(mean, mean, mean, n)
    shares = parts / parts.max()  # squares of tiny variances would be 0
    freedom = shares.sum() ** 2 / sum(
        share**2 / (len(run) - 1) for share, run in zip(shares, runs, strict=True)
    )
    from scipy.special import stdtrit  # noqa: PLC0415 (an extra; scipy.stats is slow to import)

    half = float(stdtrit(freedom, (1 + LEVEL) / 2) * np.sqrt(parts.sum())) / len(runs)
    return Interval(mean, mean - half, mean + half, n)


def interquartile_interval(
    tasks: Mapping[str, Values],
    *,
    resamples: int = _RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Compute the interquartile mean over all runs of all tasks, and its bootstrap interval.

    The bootstrap is stratified: runs are drawn anew inside each task, tasks stay.

    Args:
        tasks: values by task, one a seed, as many for each task.
        resamples: how often runs are drawn anew.
        seed: of the drawing; the same seed gives the same interval.

    Returns:
        Its ``mean`` is the interquartile mean, its ``n`` the runs of a task.

    Raises:
        ValueError: there are no tasks, one has more runs than another, or a value is not finite.

    Example:
        >>> found = interquartile_interval({"a": [1.0, 2.0, 3.0], "b": [2.0, 3.0, 4.0]})
        >>> found.mean, found.n
        (2.5, 3)
    """
    runs = _arrays(tasks, "tasks")
    if len({len(array) for array in runs.values()}) > 1:
        counts = ", ".join(f"{name} {len(array)}" for name, array in runs.items())
        raise ValueError(f"runs by task: {counts}; give each as many, or the larger weigh more")
    rng = np.random.default_rng(seed)
    drawn = [_draw(array, resamples, rng) for array in runs.values()]
    pooled = np.concatenate(list(runs.values()))
    n = len(next(iter(runs.values())))
    return _percentile(float(_middle(pooled)), _middle(np.concatenate(drawn, axis=1)), n)


def probability_of_improvement(
    ours: Mapping[str, Values],
    theirs: Mapping[str, Values],
    *,
    resamples: int = _RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Compute how likely a run of ours beats a run of theirs on the same task.

    The mean over tasks of P(X > Y) + P(X = Y) / 2, over all pairs of runs; 0.5 is no difference.

    Args:
        ours: values by task.
        theirs: values by task, of the same tasks; the numbers of runs may differ.
        resamples: how often runs are drawn anew, inside each task and each side by itself.
        seed: of the drawing; the same seed gives the same interval.

    Returns:
        Its ``mean`` is the probability, its ``n`` the fewest runs that one side has of a task.

    Raises:
        ValueError: the tasks differ, or a value is not finite.

    Example:
        >>> probability_of_improvement({"a": [2.0, 3.0, 4.0]}, {"a": [1.0, 2.0, 3.0]}).mean
        0.7777777777777778
    """
    if alone := sorted(set(ours) ^ set(theirs)):
        raise ValueError(f"tasks {', '.join(alone)}: only one side has them")
    x, y = _arrays(ours, "ours"), _arrays(theirs, "theirs")
    rng = np.random.default_rng(seed)
    drawn = [
        _wins(_draw(x[task], resamples, rng), _draw(y[task], resamples, rng)) for task in sorted(x)
    ]
    estimate = float(np.mean([_wins(x[task], y[task]) for task in x]))
    n = min(len(array) for side in (x, y) for array in side.values())
    return _percentile(estimate, np.mean(drawn, axis=0), n)


def _arrays(tasks: Mapping[str, Values], name: str) -> dict[str, np.ndarray]:
    if not tasks:
        raise ValueError(f"{name} is empty: at least one task is needed")
    return {task: finite(values, f"{name}[{task!r}]") for task, values in tasks.items()}


def _middle(values: np.ndarray) -> np.ndarray:
    """Average the middle half along the last dimension."""
    cut = values.shape[-1] // 4
    ordered = np.sort(values, axis=-1)[..., cut : values.shape[-1] - cut]
    return np.asarray(ordered.mean(axis=-1))


def _draw(values: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    return np.asarray(rng.choice(values, (resamples, len(values))))


def _wins(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Share of pairs in which x is larger, ties counting half, along the last dimension."""
    signs = np.sign(x[..., :, None] - y[..., None, :])
    return np.asarray((1 + signs.mean(axis=(-1, -2))) / 2)


def _percentile(estimate: float, drawn: np.ndarray, n: int) -> Interval:
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(estimate, float(low), float(high), n)
