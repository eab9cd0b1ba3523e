"""The study's records as its questions see them: a value by selector, data set and split."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np

from regrow.lab.records import Record, Records
from regrow.lab.statistics import Interval, differences, mean_interval
from regrow.studies.feature_selection.protocol import TEST_SHARE

__all__ = [
    "Cells",
    "Measure",
    "accuracy",
    "cells",
    "difference",
    "in_order",
    "mean_ranks",
    "one_machine",
    "over_sets",
    "rank_difference",
    "resampled_mean",
    "shared_sets",
]

Measure = Callable[[Record], float | None]
Cells = Mapping[str, Mapping[str, Mapping[int, float]]]
"""By selector, data set, and unit: a split of the fair protocol, a seed of the paper's."""

_RATIO = TEST_SHARE / (1 - TEST_SHARE)


def accuracy(judge: str) -> Measure:
    """Return what reads a judge's test accuracy, in per cent."""

    def read(record: Record) -> float | None:
        found = record.result["accuracy"].get(judge)
        return None if found is None else 100 * float(found)

    return read


def cells(
    records: Records, measure: Measure, *, protocol: str = "fair", k: int | None = None
) -> Cells:
    """Gather a measure by selector, data set and unit.

    A split's value is the mean over its seeds: what is paired are splits. The paper's protocol has
    one split, so there it is seeds.

    Args:
        records: of the study.
        measure: what is read; records for which it is None are left out.
        protocol: of the records.
        k: of the records; None takes what the fair protocol has.
    """
    found: dict[str, dict[str, dict[int, list[float]]]] = {}
    for record in records.where(trial="Select", protocol=protocol):
        value = measure(record)
        if value is None or (k is not None and record.config["k"] != k):
            continue
        config = record.config
        unit = config["split"] if protocol == "fair" else config["seed"]
        by_set = found.setdefault(config["selector"], {}).setdefault(config["data"], {})
        by_set.setdefault(unit, []).append(value)
    return {
        selector: {
            data: {unit: sum(values) / len(values) for unit, values in sorted(units.items())}
            for data, units in sets.items()
        }
        for selector, sets in found.items()
    }


def one_machine(records: Records) -> Records:
    """Keep the records of the processor that made most of them: seconds of two do not compare.

    Example:
        >>> one_machine(Records([])).all
        []
    """
    made = Counter(record.environment.get("cpu") for record in records.all)
    most = made.most_common(1)[0][0] if made else None
    return records.where(lambda record: record.environment.get("cpu") == most)


def shared_sets(found: Cells, *selectors: str) -> list[str]:
    """Name the data sets that all of some selectors have.

    Raises:
        ValueError: a selector has no records, or no set is shared.
    """
    for selector in selectors:
        if selector not in found:
            raise ValueError(f"no records of {selector}")
    shared = set.intersection(*(set(found[selector]) for selector in selectors))
    if not shared:
        raise ValueError(f"no data set that {' and '.join(selectors)} share")
    return [data for data in found[selectors[0]] if data in shared]


def resampled_mean(tasks: Mapping[str, Mapping[int, float]], ratio: float = _RATIO) -> Interval:
    """Average over data sets, with an interval that knows that splits of one set overlap.

    mean = Σ m_t / T; variance Σ (1/J + ρ) s_t² / T², J splits, ρ the test rows for each training
    row; Student's t with Welch's degrees of freedom. Without ρ intervals of resampled splits are
    far too narrow.

    Args:
        tasks: values by data set and split.
        ratio: ρ; 0 if what is averaged shares no rows by being resampled, such as seeds.

    Returns:
        What other splits of these data sets would change. Its ``n`` is the fewest splits.

    Raises:
        ValueError: there are no tasks.

    Source: Nadeau & Bengio 2003, Inference for the generalization error.

    Example:
        >>> found = resampled_mean({"a": {0: 1.0, 1: 2.0, 2: 3.0}}, ratio=0.0)
        >>> round(found.low, 3), round(found.high, 3)
        (-0.484, 4.484)
    """
    if not tasks:
        raise ValueError("no data sets to average over")
    runs = [np.array(list(units.values()), float) for units in tasks.values()]
    mean, n = float(np.mean([run.mean() for run in runs])), min(map(len, runs))
    if n == 1:
        return Interval(mean, math.nan, math.nan, 1)
    parts = np.array([(1 / len(run) + ratio) * run.var(ddof=1) for run in runs])
    if not parts.any():
        return Interval(mean, mean, mean, n)
    freedom = parts.sum() ** 2 / sum(
        part**2 / (len(run) - 1) for part, run in zip(parts, runs, strict=True)
    )
    from scipy.stats import t  # noqa: PLC0415 (slow to import)

    half = float(t.ppf(0.975, freedom) * np.sqrt(parts.sum())) / len(runs)
    return Interval(mean, mean - half, mean + half, n)


def difference(found: Cells, one: str, other: str) -> dict[str, dict[int, float]]:
    """Subtract one selector's value from another's, paired inside each data set they share.

    Raises:
        ValueError: they share nothing.
    """
    paired = {}
    for data in shared_sets(found, one, other):
        first, second = found[one][data], found[other][data]
        if set(first) & set(second):
            paired[data] = differences(first, second, common=True)
    if not paired:
        raise ValueError(f"no split that {one} and {other} share")
    return paired


def over_sets(tasks: Mapping[str, Mapping[int, float]]) -> Interval:
    """Average over data sets, with the interval of other data sets: t over the sets' means.

    Example:
        >>> over_sets({"a": {0: 1.0}, "b": {0: 2.0}, "c": {0: 3.0}}).mean
        2.0
    """
    return mean_interval([float(np.mean(list(units.values()))) for units in tasks.values()])


def mean_ranks(found: Cells, selectors: list[str]) -> dict[str, dict[str, dict[int, float]]]:
    """Rank selectors inside each data set and split that all of them have; 1 is the best.

    Ties share the mean of their ranks.

    Args:
        found: values, higher is better.
        selectors: which are ranked.

    Returns:
        Ranks in the form of :data:`Cells`.

    Example:
        >>> cell = {"a": {"s": {0: 3.0}}, "b": {"s": {0: 1.0}}, "c": {"s": {0: 3.0}}}
        >>> [ranks["s"][0] for ranks in mean_ranks(cell, ["a", "b", "c"]).values()]
        [1.5, 3.0, 1.5]
    """
    from scipy.stats import rankdata  # noqa: PLC0415 (slow to import)

    ranks: dict[str, dict[str, dict[int, float]]] = {name: {} for name in selectors}
    for data in shared_sets(found, *selectors):
        units = set.intersection(*(set(found[name][data]) for name in selectors))
        for unit in sorted(units):
            order = rankdata([-found[name][data][unit] for name in selectors])
            for name, rank in zip(selectors, order, strict=True):
                ranks[name].setdefault(data, {})[unit] = float(rank)
    return ranks


def rank_difference(found: Cells, one: str, other: str, selectors: list[str]) -> Interval:
    """Return by how much one selector's mean rank is lower (better) than another's."""
    ranks = mean_ranks(found, selectors)
    return resampled_mean(difference(ranks, other, one))


def in_order(found: Cells, names: list[str]) -> list[str]:
    """Order selectors by their mean over the data sets that all have, the best first."""
    present = [name for name in names if name in found]
    sets = shared_sets(found, *present) if present else []

    def mean(name: str) -> float:
        return float(np.mean([np.mean(list(found[name][data].values())) for data in sets]))

    return sorted(present, key=mean, reverse=True)
