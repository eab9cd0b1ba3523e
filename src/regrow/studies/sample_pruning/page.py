"""The figures and tables of the study's page."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import product

from regrow.lab import charts
from regrow.lab.effects import ACCURACY, EVERY, Measure, level
from regrow.lab.section import Section, Table, estimate
from regrow.lab.study import Part
from regrow.lab.tasks import mean_over_tasks
from regrow.lab.view import View
from regrow.studies.sample_pruning.claims import CLAIMS, MARGIN, over_cyclic, over_full
from regrow.studies.sample_pruning.design import ARMS, BY_HEART, CONDITIONS, SPARED
from regrow.studies.sample_pruning.nested import CANDIDATES, nested

__all__ = ["PAGE"]


VISITS = Measure(
    "visits of wrong labels or copies, relative to all",
    lambda record: record.get("visits"),
    "relative visits",
)
MAIN = ("cyclic", "ours", "InfoBatch", "SeTa", "UCB", "hard", "easy to hard", "random once")
_BASES = ("full", "cyclic")
_COLOUR = charts.palette(MAIN)

# Accuracy less that of full data, in points, by the share kept: ResNet-18 on CIFAR-10, where full
# data reach 95.6 %. Table 1 of InfoBatch, as other papers quote it.
PUBLISHED: Mapping[str, Mapping[float, float]] = {
    "random once, as published": {0.7: -1.0, 0.5: -2.3, 0.3: -5.4},
    "InfoBatch, as published": {0.7: 0.0, 0.5: -0.5, 0.3: -0.9},
}
_BESIDE = ("cyclic", "random", "random once", "InfoBatch", "InfoBatch raw", "SeTa", "ours")


def by_condition(view: View) -> Iterator[Section]:
    """Draw what each criterion gains over choice at random, condition by condition."""
    for task, here in view.by("task").items():
        panels = {
            condition: charts.rows_of(
                here,
                {a: over_cyclic(a, condition) for a in (*ARMS, *SPARED) if a not in _BASES},
            )
            for condition in (*CONDITIONS, BY_HEART)
        }
        yield from charts.rows(
            f"What a choice gains over choice at random, at equal steps: {task}",
            "Test accuracy less that of cyclic random choice, which is full data stopped after as "
            "many steps; paired by seed, the mean over the shares kept. Spared: wrong labels and "
            f"copies are left out by who knows them. The band is ±{MARGIN:g} points.",
            {name: rows for name, rows in panels.items() if rows},
            x="points",
            band=MARGIN,
        )


def by_share(view: View) -> Iterator[Section]:
    """Draw accuracy by the share that is kept, beside that of all data."""
    for task, here in view.by("task").items():
        panels, levels = {}, {}
        for condition in (*CONDITIONS, BY_HEART):
            asked = partial(level, condition=condition)
            places = here.where(condition=condition).axis("keep")
            curves = charts.curves_of(here, lambda arm, k, a=asked: a(arm, keep=k), MAIN, places)  # type: ignore[misc]
            if curves:
                panels[condition] = curves
                levels[condition] = charts.rows_of(here, {"full": asked("full")})
        yield from charts.curves(
            f"Accuracy by the share kept: {task}",
            "As many steps as the share says; the dotted line is all data, at all steps. Some of "
            "the criteria; the tables below have all.",
            panels,
            x="share of the samples kept",
            y="test accuracy, %",
            colours=_COLOUR,
            levels=levels,
            same_y=False,
        )


def whom_they_visit(view: View) -> Iterator[Section]:
    """Draw how often wrong labels and copies are learnt, relative to all samples."""
    for task, here in view.by("task").items():
        panels = {
            condition: charts.rows_of(
                here,
                {a: level(a, VISITS, condition=condition, keep=EVERY) for a in ARMS if a != "full"},
            )
            for condition in ("wrong", BY_HEART, "copies")
        }
        yield from charts.rows(
            f"How often wrong labels and copies are learnt: {task}",
            "Relative to the mean of all samples; 1 is choice at random.",
            {name: rows for name, rows in panels.items() if rows},
            x="relative visits",
            zero=1.0,
        )


def ours_by_data(view: View) -> Iterator[Section]:
    """Write what ours gains over choice at random, for all data and shares."""
    places = sorted(view.axis("keep"))
    lines = []
    for (task, here), condition in _cells(view):
        asked = [over_cyclic("ours", condition, keep).maybe(here) for keep in (*places, EVERY)]
        if any(asked):
            lines.append((f"{task}, {condition}", *map(estimate, asked)))
    yield Section(
        "What ours gains over choice at random",
        "Points of test accuracy at equal steps, paired by seed, ± half the 95 % interval.",
        table=Table(("", *map(_kept, places), "mean over these"), lines),
    )


def _cells(view: View) -> Iterator[tuple[tuple[object, View], str]]:
    """Yield each task with its records, and each condition."""
    return product(view.by("task").items(), (*CONDITIONS, BY_HEART))


def beside_published(view: View) -> Iterator[Section]:
    """Write what is lost to full data at each share, beside what was published."""
    for task, here in view.by("task").items():
        places = sorted(here.where(condition="clean").axis("keep"), reverse=True)
        lines = [
            (arm, *(estimate(over_full(arm, k).maybe(here)) for k in places)) for arm in _BESIDE
        ]
        lines += [
            (name, *(_signed(lost.get(k)) for k in places)) for name, lost in PUBLISHED.items()
        ]
        note = (
            "Published: ResNet-18 on CIFAR-10, 200 epochs, full data 95.6 % (InfoBatch, table 1, "
            "as other papers quote it); there InfoBatch trains on all data in the last eighth of "
            "the epochs. SeTa's abstract says: nothing lost at half the cost, little at 30 % of it."
        )
        yield Section(
            f"What is lost to full data, beside what was published: {task}",
            "Clean data; test accuracy less that of all data at all steps, in points.",
            table=Table(("", *map(_kept, places)), lines, note),
        )


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}".replace("-", "−")


def _kept(share: float) -> str:
    return f"{100 * share:g} % kept"


def picked_elsewhere(view: View) -> Iterator[Section]:
    """Write which criterion validation on other data picks, and what it gains where it was not."""
    heads = ("left out", "picked on the others", "validation gain there", "its test gain here")
    note = (
        "Gains over cyclic random choice, in points, mean over the shares kept. Candidates, as far "
        f"as they were run everywhere: {', '.join(CANDIDATES)}. Validation samples are a tenth of "
        "the training data, with right labels."
    )
    for apart, title, about in (
        (False, "picked without the data it is tested on", "Each data set under a condition"),
        (True, "picked on other data sets altogether", "Each data set, under all conditions,"),
    ):
        with contextlib.suppress(ValueError):  # the claims say why
            yield Section(
                f"Nested validation: {title}",
                f"{about} is left out in turn.",
                table=Table((*heads, "ours here"), _picked(view, apart), note),
            )


def _picked(view: View, apart: bool) -> list[tuple[str, ...]]:
    lines: list[tuple[str, ...]] = []
    for one in nested(view, apart=apart):
        task, condition = one.cell
        ours = over_cyclic("ours", condition).maybe(view.where(task=task))
        here = mean_over_tasks({task: one.gains})
        told = one.arm, _signed(one.elsewhere), estimate(here), estimate(ours)
        lines.append((", ".join(one.cell), *told))
    return lines


def accuracies(view: View) -> Iterator[Section]:
    """Write all accuracies."""
    for (task, here), condition in _cells(view):
        places = here.where(condition=condition).axis("keep")
        cell = partial(level, measure=ACCURACY, condition=condition)
        lines = {
            arm: [cell(arm, keep=k).maybe(here) for k in places]
            for arm in (*ARMS, *SPARED)
            if arm != "full"
        }
        full = cell("full").maybe(here)
        made = {"full": [full] * len(places)} | lines
        made = {name: row for name, row in made.items() if any(row)}
        if places and made:
            table = charts.values_table(made, list(map(_kept, places)))
            yield Section(f"All accuracies: {task}, {condition}", "In per cent.", table=table)


PAGE: Sequence[Part] = (
    partial(charts.verdicts_by_task, CLAIMS),
    ours_by_data,
    by_condition,
    by_share,
    whom_they_visit,
    beside_published,
    picked_elsewhere,
    accuracies,
)
