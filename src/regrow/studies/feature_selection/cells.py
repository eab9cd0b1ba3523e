"""Values by selector, data set and split, and which of them can be compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from functools import partial
from typing import TypeAlias

import numpy as np

from regrow.lab.effects import BySeed, Measure, level, percent
from regrow.lab.learnt import Known
from regrow.lab.records import Record
from regrow.lab.tasks import mean_over_tasks
from regrow.lab.view import NotRun, View
from regrow.studies.feature_selection.design import FASHION, SETS
from regrow.studies.feature_selection.protocol import TEST_SHARE

__all__ = [
    "JUDGES",
    "KNOWN",
    "LOGISTIC",
    "OVER_SPLITS",
    "SVM",
    "Cells",
    "average",
    "cells",
    "complete",
    "in_order",
    "mean",
    "number",
    "on_one_machine",
    "ranks",
]

SVM = percent("accuracy.svc", "accuracy of an SVM")

_SOURCE = "results/feature-selection"
# Madelon and Arcene are left out: with all features an SVM is close to chance there.
KNOWN = [
    Known({"task": data, "arm": "all features", "protocol": "fair"}, level, _SOURCE, chance, SVM)
    for data, level, chance in (
        ("COIL20", 98.7, 5.0),
        ("Isolet", 94.5, 100 / 26),
        ("ORL", 94.3, 2.5),
        ("Yale", 77.2, 100 / 15),
        ("BASEHOCK", 93.9, 50.0),
        ("PCMAC", 87.9, 50.0),
        ("RELATHE", 87.3, 50.0),
        ("Prostate-GE", 90.3, 50.0),
        ("lymphoma", 76.5, 100 / 9),
        ("fashion-mnist", 85.5, 10.0),
    )
]
LOGISTIC = percent("accuracy.logistic", "accuracy of logistic regression")
JUDGES = {
    "SVM": SVM,
    "logistic regression": LOGISTIC,
    "gradient boosting": percent("accuracy.boosting", "accuracy of gradient boosting"),
}

OVER_SPLITS = partial(mean_over_tasks, overlap=TEST_SHARE / (1 - TEST_SHARE))
"""The mean over data sets, with an interval that knows that splits of one set overlap."""

Cells: TypeAlias = Mapping[str, Mapping[str, BySeed]]
"""By selector and data set, then by split of the fair protocol, by seed of the paper's."""


def cells(view: View, measure: Measure) -> Cells:
    """Gather a measure of records of one protocol; what no record has is left out."""
    found: dict[str, Mapping[str, BySeed]] = {}
    for arm in view.axis("arm"):
        with suppress(ValueError):
            found[arm] = level(arm, measure).by_task(view)
    return found


def in_order(sets: Collection[str]) -> list[str]:
    """Order data sets: the eleven, then others."""
    return [*(data for data in SETS if data in sets), *sorted(set(sets) - set(SETS))]


def complete(found: Cells) -> Cells:
    """Keep the selectors that have as many data sets as any, the best first, and these sets.

    Fashion-MNIST is none of the eleven, and is left out unless it is alone.
    """
    every = in_order({data for cell in found.values() for data in cell})
    sets = [data for data in every if data != FASHION] or every
    counts = {name: len(set(sets) & set(cell)) for name, cell in found.items()}
    names = [name for name, count in counts.items() if count == max(counts.values())]
    shared = [data for data in sets if all(data in found[name] for name in names)]
    if not shared:
        raise ValueError(f"no data set that {', '.join(names)} share")
    whole = {name: {data: found[name][data] for data in shared} for name in names}
    return dict(sorted(whole.items(), key=lambda item: mean(item[1]), reverse=True))


def mean(cell: Mapping[str, BySeed]) -> float:
    """Average a selector's means over data sets."""
    return float(np.mean([average(units) for units in cell.values()]))


def average(units: BySeed) -> float:
    """Average over splits, or seeds."""
    return float(np.mean(list(units.values())))


def ranks(found: Cells) -> Cells:
    """Rank selectors of the same data sets in each split that all have; 1 is the highest value.

    Ties share the mean of their ranks.

    Example:
        >>> made = {"a": {"s": {0: 3.0}}, "b": {"s": {0: 1.0}}, "c": {"s": {0: 3.0}}}
        >>> ranks(made)
        {'a': {'s': {0: 1.5}}, 'b': {'s': {0: 3.0}}, 'c': {'s': {0: 1.5}}}
    """
    from scipy.stats import rankdata  # noqa: PLC0415 (slow to import)

    placed: dict[str, dict[str, dict[int, float]]] = {name: {} for name in found}
    for data in next(iter(found.values())):
        for split in sorted(set.intersection(*(set(cell[data]) for cell in found.values()))):
            order = rankdata([-cell[data][split] for cell in found.values()])
            for name, rank in zip(found, order, strict=True):
                placed[name].setdefault(data, {})[split] = float(rank)
    return placed


def number(field: str) -> Callable[[Record], float]:
    """Return what reads a field of the results."""

    def read(record: Record) -> float:
        if (value := record.result.get(field)) is None:
            raise ValueError(f"no {field}")
        return float(value)

    return read


def on_one_machine(view: View) -> View:
    """Keep the records of the processor that made most of them: seconds of two do not compare."""
    there = {record.identity: record for _, record in view.rows if not isinstance(record, NotRun)}
    made = Counter(record.environment.get("cpu") for record in there.values())
    most = made.most_common(1)[0][0] if made else None

    def fits(record: Record) -> bool:
        return isinstance(record, NotRun) or record.environment.get("cpu") == most

    return View([row for row in view.rows if fits(row[1])], view.gaps)
