"""Nested validation: a criterion is picked on other data, by validation samples, and then tested.

Tests alone would flatter the best of many criteria. Here what is tested was picked without the data
it is tested on: for each data set under a condition, the criterion of the highest mean validation
gain over choice at random on all the others; once with the same data set under other conditions
among them, and once without.
"""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

from regrow.lab.claims import Claim, Verdict, above
from regrow.lab.effects import ACCURACY, EVERY, BySeed, Measure, gain, percent
from regrow.lab.tasks import mean_over_tasks
from regrow.lab.view import View
from regrow.studies.sample_pruning.design import CORE

__all__ = ["APART", "CANDIDATES", "NESTED", "VALIDATION", "Picked", "nested"]

VALIDATION = percent("validation_accuracy", "validation accuracy")

CANDIDATES = tuple(arm for arm in CORE if arm not in ("full", "InfoBatch raw"))


Cell: TypeAlias = tuple[str, str]
"""A task, and what its data are like."""


@dataclass(frozen=True)
class Picked:
    """A criterion that was picked on all data but one.

    Args:
        cell: what was left out: the task, and what its data are like.
        arm: the criterion's name.
        elsewhere: its mean validation gain on the others, in points.
        gains: its test gain on what was left out, by seed.
    """

    cell: Cell
    arm: str
    elsewhere: float
    gains: BySeed


def nested(view: View, *, apart: bool = False) -> list[Picked]:
    """Leave the data of each task and condition out in turn, and pick by all the others.

    Args:
        view: records, labelled by ``task`` and ``condition``. Only arms that are there everywhere
            are candidates; choice at random is one, too.
        apart: what is tested is picked on other data sets altogether, not on the same one under
            other conditions.

    Raises:
        ValueError: there are fewer than two cells, or two data sets, or two candidates.
    """
    inner = {arm: gains_of(view, arm, VALIDATION) for arm in CANDIDATES}
    cells = list(inner["cyclic"])
    inner = {arm: gains for arm, gains in inner.items() if list(gains) == cells}
    if len(cells) < 2 or len(inner) < 2:
        raise ValueError("nothing to pick by: two data sets or conditions and two arms are needed")
    if apart and len({task for task, _ in cells}) < 2:
        raise ValueError("nothing to pick by: two data sets are needed")
    found = []
    for cell in cells:
        others = [one for one in cells if (one[0] != cell[0] if apart else one != cell)]
        score = {arm: _mean(gains, others) for arm, gains in inner.items()}
        best = max(score, key=score.__getitem__)
        found.append(Picked(cell, best, score[best], gains_of(view, best, ACCURACY)[cell]))
    return found


def gains_of(view: View, arm: str, measure: Measure) -> dict[Cell, BySeed]:
    """Return an arm's gains over choice at random by cell and seed, mean over shares."""
    found = {}
    for task, here in view.by("task").items():
        for condition in here.axis("condition"):
            asked = gain(arm, "cyclic", measure=measure, condition=condition, keep=EVERY)
            with contextlib.suppress(ValueError):  # not run there
                found[str(task), condition] = asked.by_seed(here)
    return found


def _mean(gains: Mapping[Cell, BySeed], cells: Sequence[Cell]) -> float:
    return statistics.fmean(statistics.fmean(gains[cell].values()) for cell in cells)


def _decide(view: View, *, apart: bool = False) -> Verdict:
    picked = nested(view, apart=apart)
    interval = mean_over_tasks({", ".join(one.cell): one.gains for one in picked})
    arms = ", ".join(sorted({one.arm for one in picked}))
    return replace(above(interval, 0, ACCURACY.unit), why=f"picked: {arms}")


_RULE = (
    "For each data set under a condition: the candidate of the highest validation gain over cyclic "
    "on all {}, mean over keep; its test accuracy over cyclic there, paired by seed, mean over "
    "what is left out. The interval must lie above 0."
)

NESTED = Claim(
    "A criterion that was picked by validation on other data beats choice at random.",
    "a control of ours: nested validation",
    _RULE.format("the others"),
    _decide,
)

APART = Claim(
    "So does one that was picked on other data sets altogether.",
    "a control of ours: nested validation",
    _RULE.format("conditions of all other data sets"),
    partial(_decide, apart=True),
)
