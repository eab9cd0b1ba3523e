"""Which samples to train on: does a choice by loss beat choice at random, at equal steps?"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from regrow.lab import charts
from regrow.lab.effects import ACCURACY, EVERY, LOWEST, Effect, Measure, gain, level
from regrow.lab.records import Record
from regrow.lab.rules import claim, each
from regrow.lab.section import Section
from regrow.lab.study import Study
from regrow.lab.view import View
from regrow.studies.sample_pruning.design import ARMS, BY_HEART, CONDITIONS, PRESETS, SPARED

__all__ = ["CLAIMS", "STUDY"]

MARGIN = 0.3  # points of accuracy that matter
HIGHEST = 0.7  # the share at which the papers claim that nothing is lost
CHOOSING = ("ours", "InfoBatch", "SeTa", "UCB", "epsilon-greedy", "hard", "easy to hard")


def _number(field: str, name: str, unit: str) -> Measure:
    def read(record: Record) -> float:
        if (found := record.get(field)) is None:
            raise ValueError(f"no {name}")
        return float(found)

    return Measure(name, read, unit)


VISITS = _number("visits", "visits of wrong labels or copies, relative to all", "relative visits")


def over_cyclic(arm: str, condition: str = "clean", keep: Any = EVERY, **more: Any) -> Effect:
    """Ask what an arm gains over choice at random, without replacement across epochs."""
    return gain(arm, "cyclic", condition=condition, keep=keep, **more)


def over_full(arm: str) -> Effect:
    """Ask what 70 % of the steps, on chosen samples, lose to all steps on all data."""
    return gain({"arm": arm, "keep": HIGHEST}, {"arm": "full"}, condition="clean")


CLAIMS = (
    claim(
        "Visits by the square root of the loss beat choice at random, at equal steps.",
        "ours: a prototype on Fashion-MNIST at 14×14",
        {c: over_cyclic("ours", c) for c in ("clean", "copies", "imbalanced")},
        above=0,
    ),
    claim(
        "With wrong labels they lose nothing.",
        "ours: a prototype",
        over_cyclic("ours", "wrong"),
        above=-MARGIN,
    ),
    claim(
        "Where wrong labels are learnt by heart, the guard wins over choice at random.",
        "ours: a prototype on digits (60 epochs)",
        over_cyclic("ours", BY_HEART),
        above=0,
    ),
    claim(
        "It is the guard: without it they lose there.",
        "ours: a prototype on digits",
        gain("ours", "ours, no guard", condition=BY_HEART, keep=EVERY),
        above=0,
    ),
    claim(
        "Weights for unbiased gradients take a part of the gain away.",
        "ours: a prototype",
        gain("ours", "ours, weighted", condition="clean", keep=EVERY),
        above=0,
    ),
    claim(
        "InfoBatch on 70 % of the data is as good as full data.",
        "Qin et al. 2024 (abstract: lossless, 40 % saved)",
        each(("InfoBatch", "InfoBatch raw"), over_full),
        above=-MARGIN,
        note="Here without the full data at the end, which a fixed number of steps has to pay for.",
    ),
    claim(
        "SeTa on 70 % of the data is as good as full data.",
        "SeTa (CVPR 2025; abstract)",
        over_full("SeTa"),
        above=-MARGIN,
    ),
    claim(
        "So is choice at random on 70 %: what claims of losing nothing are to be held against.",
        "a control of ours",
        over_full("cyclic"),
        above=-MARGIN,
    ),
    claim(
        "InfoBatch is better than choice at random, at equal steps.",
        "a control of ours",
        over_cyclic("InfoBatch"),
        above=0,
    ),
    claim(
        "SeTa is better than choice at random, at equal steps.",
        "a control of ours",
        over_cyclic("SeTa"),
        above=0,
    ),
    claim(
        "Dynamic choice at random beats a static one.",
        "Raju et al. 2021 (abstract: at aggressive rates)",
        gain("random", "random once", condition="clean", keep=LOWEST),
        above=0,
    ),
    claim(
        "UCB and epsilon-greedy beat dynamic choice at random.",
        "Raju et al. 2021 (abstract)",
        each(
            ("UCB", "epsilon-greedy"),
            lambda arm: gain(arm, "random", condition="clean", keep=EVERY),
        ),
        above=0,
    ),
    claim(
        "From easy to hard, 70 % of the data reach full data.",
        "DDP-ASR 2024 (abstract), there for speech",
        over_full("easy to hard"),
        above=-MARGIN,
    ),
    claim(
        "Only hard samples are worse than random ones where labels are wrong.",
        "a control of ours",
        over_cyclic("hard", "wrong"),
        below=0,
    ),
    claim(
        "Drawing without replacement across epochs beats drawing anew.",
        "a control of ours",
        gain("cyclic", "random", condition="clean", keep=LOWEST),
        above=0,
    ),
)

_COLOUR = charts.palette(ARMS)


def by_condition(view: View) -> Iterator[Section]:
    """Draw what each criterion gains over choice at random, condition by condition."""
    for task, here in view.by("task").items():
        panels = {
            condition: charts.rows_of(
                here,
                {arm: over_cyclic(arm, condition) for arm in (*ARMS, *SPARED) if arm != "full"},
            )
            for condition in (*CONDITIONS, BY_HEART)
        }
        yield from charts.rows(
            f"What a choice gains over choice at random, at equal steps: {task}",
            "Test accuracy less that of cyclic random choice, which is full data stopped after as "
            "many steps; paired by seed, the mean over the shares kept. Spared: wrong labels and "
            f"copies are left out by who knows them. The band is ±{MARGIN:g} points.",
            {name: rows for name, rows in panels.items() if rows},
            x="points of accuracy",
            band=MARGIN,
        )


def by_share(view: View) -> Iterator[Section]:
    """Draw accuracy by the share that is kept, beside that of all data."""
    for task, here in view.by("task").items():
        panels, levels = {}, {}
        for condition in (*CONDITIONS, BY_HEART):
            asked = partial(level, condition=condition)
            places = here.where(condition=condition).axis("keep")
            curves = charts.curves_of(here, lambda arm, k, a=asked: a(arm, keep=k), ARMS, places)  # type: ignore[misc]
            if curves:
                panels[condition] = curves
                levels[condition] = charts.rows_of(here, {"full": asked("full")})
        yield from charts.curves(
            f"Accuracy by the share kept: {task}",
            "As many steps as the share says; the black line is all data, at all steps.",
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
        )


def accuracies(view: View) -> Iterator[Section]:
    """Write all accuracies."""
    for (task, here), condition in (
        (pair, c) for pair in view.by("task").items() for c in (*CONDITIONS, BY_HEART)
    ):
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
            heads = [f"{100 * float(k):g} % kept" for k in places]
            table = charts.values_table(made, heads)
            yield Section(f"All accuracies: {task}, {condition}", "In per cent.", table=table)


STUDY = Study(
    name="sample-pruning",
    title="Which samples to train on?",
    source="Qin et al. 2024, InfoBatch (ICLR, arXiv 2303.04947); SeTa (CVPR 2025); Raju et al. "
    "2021 (arXiv 2111.12621); Xiao et al. 2024, DDP-ASR (Interspeech, arXiv 2406.18373)",
    about="A classifier learns 30, 50 or 70 % of its samples in each epoch, chosen by chance or by "
    "their losses, on clean data, with copies, with rare classes, with a fifth of the labels "
    "wrong, and with wrong labels that are learnt by heart. All arms but full data take as many "
    "steps. The base is random choice without replacement across epochs: full data, stopped after "
    "as many steps.",
    presets=PRESETS,
    claims=CLAIMS,
    page=(
        partial(charts.verdicts_by_task, CLAIMS),
        by_condition,
        by_share,
        whom_they_visit,
        accuracies,
    ),
)
