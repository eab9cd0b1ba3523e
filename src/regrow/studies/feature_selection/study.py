"""Feature selection with sparse networks: are they better than what is at hand?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from regrow.lab.charts import curves, curves_of, rows
from regrow.lab.claims import Answer, Claim, Outcome, Verdict, undecided
from regrow.lab.effects import BySeed, Effect, Measure, gain, level
from regrow.lab.rules import claim, each
from regrow.lab.section import Details, Section, Table
from regrow.lab.statistics import Interval, differences, mean_interval
from regrow.lab.study import Study
from regrow.lab.view import View
from regrow.studies.feature_selection.cells import (
    JUDGES,
    KNOWN,
    LOGISTIC,
    OVER_SPLITS,
    SVM,
    Cells,
    average,
    cells,
    complete,
    in_order,
    mean,
    number,
    on_one_machine,
    ranks,
)
from regrow.studies.feature_selection.costs import costs, stability
from regrow.studies.feature_selection.design import COUNTS, FASHION, PRESETS, SETS, K, count_of
from regrow.studies.feature_selection.gallery import gallery
from regrow.studies.feature_selection.published import PUBLISHED, published_mean, published_ratio
from regrow.studies.feature_selection.selectors import (
    ALL,
    BASELINES,
    FAMILY,
    MASKED,
    OURS,
    RANDOM,
    STORED,
)

__all__ = ["CLAIMS", "STUDY"]

OTHERS = (*BASELINES, RANDOM)
FAIR: dict[str, Any] = {"protocol": "fair"}

# ---------------------------------------------------------------------- effects and rules


@dataclass(frozen=True)
class RanksAhead(Effect):
    """By how many ranks ours is ahead of another selector, all being ranked in each split.

    Args:
        over: the other selector.
        measure: by what they are ranked, the highest first.
    """

    over: str
    measure: Measure

    def by_seed(self, task: View) -> BySeed:
        """Rank them."""
        (data,) = task.axis("task")
        found = cells(task.where(**FAIR, arm=(OURS, *OTHERS)), self.measure)
        if missing := [name for name in (OURS, *OTHERS) if name not in found]:
            raise ValueError(f"no records of {', '.join(missing)}")
        placed = ranks(found)
        return differences(placed[self.over][data], placed[OURS][data])

    def __str__(self) -> str:
        return f"{OURS} over {self.over} (protocol fair)"


@dataclass(frozen=True)
class OverPublished(Effect):
    """By how much ours is above what the paper printed of another selector.

    Args:
        other: the other selector.
        measure: what is compared.
    """

    other: str
    measure: Measure = SVM

    def by_seed(self, task: View) -> BySeed:
        """Subtract what was printed of this data set."""
        own = level(OURS, self.measure).by_seed(task)
        (data,) = task.axis("task")
        return {seed: value - PUBLISHED[data][self.other] for seed, value in own.items()}

    def __str__(self) -> str:
        return f"{OURS} over {self.other} as published"


def _as_printed(view: View) -> View:
    """Narrow to the paper's protocol and the sets whose numbers it printed."""
    k = (K, count_of("madelon", K))
    return view.where(protocol="paper", k=k, task=tuple(PUBLISHED))


def _of(
    narrow: Callable[[View], View], made: Claim, beside: Callable[[View], str] = lambda _: ""
) -> Claim:
    """Judge a claim by some of the records, and say more beside its verdict."""

    def decide(view: View) -> Verdict:
        verdict = made.decide(narrow(view))
        said = (verdict.why, beside(narrow(view)))
        return replace(verdict, why="; ".join(part for part in said if part))

    return replace(made, decide=decide)


# ---------------------------------------------------------------------- claims


def better(
    sentence: str, effect: Callable[[str], Effect], note: str, answer: Answer | None = None
) -> Claim:
    """Claim that ours is above every baseline on the mean of the eleven sets."""
    return claim(
        sentence,
        "a claim of ours",
        each(OTHERS, effect),
        above=0,
        average=OVER_SPLITS,
        over="the eleven sets",
        by="split",
        tasks=SETS,
        note=note,
        answer=answer,
    )


def reaches(sentence: str, bar: float, sets: Sequence[str], what: str) -> Claim:
    """Set a target to our mean accuracy: the mean decides, whatever its interval."""
    effect = level(OURS, SVM, **FAIR)

    def decide(view: View) -> Verdict:
        interval = effect.interval(view, OVER_SPLITS, sets)
        outcome: Outcome = "supported" if interval.mean >= bar else "not supported"
        few = undecided(interval, "%")
        return few or Verdict(outcome, interval, "%", f"the target is {bar:g} %")

    rule = (
        f"{what}, SVM, mean over splits and seeds: at least {bar:.1f} %. This is a target on these "
        "splits and seeds, not an inference; the interval is told."
    )
    return Claim(sentence, "a target of ours", rule, decide)


def as_published(
    sentence: str,
    source: str,
    arms: tuple[str, str],
    bar: float = 0.0,
    answer: Answer | None = None,
) -> Claim:
    """Claim a gain at the paper's protocol; the published one is told beside it."""
    effect = gain(*arms, SVM)

    def beside(view: View) -> str:
        sets = effect.by_task(view)
        one, over = (published_mean(arm, list(sets)) for arm in arms)
        wins = sum(sum(units.values()) > 0 for units in sets.values())
        printed = f"the paper's tables say {one - over:+.2f} on the same {len(sets)} sets"
        return f"{printed}; more on {wins}"

    made = claim(sentence, source, effect, above=bar, over=_PRINTED, note=_PAPER, answer=answer)
    return _of(_as_printed, made, beside)


def cheaper(
    sentence: str, source: str, cost: Effect, bar: float, note: str = "", beside: str = ""
) -> Claim:
    """Claim that a cost is less than so many times another's, on one machine."""
    made = claim(
        sentence,
        source,
        cost,
        below=bar,
        average=OVER_SPLITS,
        over="data sets",
        by="split",
        note=note,
    )
    return _of(lambda view: on_one_machine(view).where(**FAIR), made, lambda _: beside)


def ratio(field: str, one: str, over: str) -> Effect:
    """Ask how many times another's cost one is."""
    return gain(
        one, over, Measure(_COSTS[field], number(field), f"times that of {over}", ratio=True)
    )


_COSTS = {
    "flops": "counted FLOPs of a fit",
    "fit_cpu_seconds": "CPU seconds of a fit on one thread",
    "fit_peak_bytes": "peak of resident memory above what there was before the fit",
}
_PRINTED = "the sets with published numbers"
_PAPER = f"At the paper's split, K = {K} (Madelon 20)."
_SOURCE = "Atashgahi et al. 2024"
_SPLITS = (
    "K = 50 (Madelon 20); seeds of a split are averaged, and intervals know that splits overlap "
    "(Nadeau & Bengio 2003)."
)

CLAIMS = (
    better(
        "Our selector, with one setting, is better than every single baseline.",
        lambda name: gain(OURS, name, SVM, **FAIR),
        f"Random choice is among them. {_SPLITS}",
        answer=Answer(
            "our selector is better than every single baseline",
            "our selector is not better than every baseline",
        ),
    ),
    better(
        "It is so in mean rank.",
        lambda name: RanksAhead(name, replace(SVM, name=f"rank by the {SVM.name}", unit="ranks")),
        "All are ranked in each split of each set.",
    ),
    better(
        "It is so when logistic regression learns from the chosen features.",
        lambda name: gain(OURS, name, LOGISTIC, **FAIR),
        "As the first claim.",
    ),
    reaches("Our selector reaches 87.0 % on the mean.", 87.0, SETS, "The eleven sets, K = 50"),
    reaches("It reaches 85 % on Madelon.", 85.0, ("madelon",), "K = 20"),
    reaches("It reaches 82.5 % on Fashion-MNIST.", 82.5, (FASHION,), "10,000 rows, K = 50"),
    _of(
        _as_printed,
        claim(
            "At the paper's protocol it is above SET-Attr, SET-QS and LassoNet as published.",
            "a claim of ours",
            each(("SET-Attr", "SET-QS", "LassoNet"), OverPublished),
            above=0,
            over=_PRINTED,
            note=_PAPER,
        ),
    ),
    as_published(
        "Sparse networks choose features at least as well as dense ones.",
        f"{_SOURCE}, section 5",
        ("SET-Attr", "Dense-Attr"),
        bar=-0.5,
        answer=Answer(
            "sparse networks choose features at least as well as dense ones",
            "sparse networks choose features worse than dense ones",
        ),
    ),
    as_published(
        "SET chooses better features than RigL.",
        f"{_SOURCE}, section 5",
        ("SET-Attr", "RigL-Attr"),
    ),
    as_published(
        "Neuron attribution is a better score than the strength of QuickSelection.",
        f"{_SOURCE}, abstract and table 6",
        ("SET-Attr", "SET-QS"),
    ),
    cheaper(
        "Sparse networks take less than half of a dense network's FLOPs.",
        f"{_SOURCE}, abstract and table 5 (55 % are saved)",
        ratio("flops", MASKED, "Dense-Attr"),
        0.5,
        beside=f"the paper's table 5 has {published_ratio(list(PUBLISHED)):.2f}, on the sets at "
        "hand and at densities it chose",
    ),
    cheaper(
        "That saving is real: masks make the fit twice as fast.",
        "a control of ours",
        ratio("fit_cpu_seconds", MASKED, "Dense-Attr"),
        0.5,
        "Other work on the machine hardly changes CPU seconds; they are of the one processor that "
        "made most records. Masks are on dense tensors, as in the paper's code.",
    ),
    cheaper(
        "Stored sparsely, it is twice as fast.",
        "a control of ours",
        ratio("fit_cpu_seconds", STORED, "Dense-Attr"),
        0.5,
        "As before, of a network that stores and computes active weights only (csr).",
    ),
    cheaper(
        "Stored sparsely, it needs half of the memory.",
        f"{_SOURCE}, abstract (50 % are saved, counted)",
        ratio("fit_peak_bytes", STORED, "Dense-Attr"),
        0.5,
    ),
    cheaper(
        "Our selector takes less than a fifth of LassoNet's time.",
        "a claim of ours",
        ratio("fit_cpu_seconds", OURS, "LassoNet"),
        0.2,
        "LassoNet's path is ten times coarser than its default.",
    ),
)

# ---------------------------------------------------------------------- figures

_HOW = (
    "Bars are 95 % intervals of the mean over splits, corrected for their overlap (Nadeau & Bengio "
    "2003)."
)


def accuracies(view: View) -> Iterator[Section]:
    """Draw mean accuracies, a panel a classifier, and mean ranks; write accuracies by set."""
    found = {judge: cells(view.where(**FAIR), measure) for judge, measure in JUDGES.items()}
    if not found["SVM"]:
        return
    whole = complete(found["SVM"])
    sets = list(next(iter(whole.values())))
    panels = {
        judge: {name: OVER_SPLITS(there[name]) for name in whole if name in there}
        for judge, here in found.items()
        if (there := here and complete(here))
    }
    part = sorted(set(found["SVM"]) - set(whole))
    left = f" Not shown, because they lack some of these sets: {', '.join(part)}." if part else ""
    if missing := [name for name in (*BASELINES, OURS, *FAMILY) if name not in found["SVM"]]:
        left += f" Not run, or their package is not installed: {', '.join(missing)}."
    yield from rows(
        "Mean accuracy on the test parts",
        f"Means over {', '.join(sets)} ({len(sets)} data sets), each weighing the same, by "
        f"the classifier that learned from the chosen features.{left}",
        panels,
        x="accuracy, %",
        zero=None,
        caption=_HOW,
        mark=OURS,
    )
    yield from _mean_ranks({name: cell for name, cell in whole.items() if name != ALL})
    tables = {judge: _by_set(here) for judge, here in found.items() if here}
    more = {judge: table for judge, table in tables.items() if judge != "SVM"}
    more["SVM, with standard deviations over splits"] = _by_set(found["SVM"], spread=True)
    yield Section(
        "Accuracy by data set",
        "SVM, mean over splits and seeds, per cent. K = 50; 20 of Madelon, 10 of digits.",
        table=tables["SVM"],
        details=[Details(words, table=table) for words, table in more.items()],
    )


def _mean_ranks(found: Cells) -> Iterator[Section]:
    if len(found) < 2:
        return
    means = {name: OVER_SPLITS(cell) for name, cell in ranks(found).items()}
    yield from rows(
        "Mean rank",
        "Selectors are ranked by the SVM's accuracy in each split of each set.",
        {"": dict(sorted(means.items(), key=lambda item: item[1].mean))},
        x=f"mean rank among {len(found)} selectors (1 is the best)",
        zero=None,
        caption=_HOW,
        mark=OURS,
    )


def _by_set(found: Cells, spread: bool = False) -> Table:
    """Write all selectors; the mean is over the sets that those share that have most of them."""
    sets = in_order({data for cell in found.values() for data in cell})
    whole = complete(found)
    shared = list(next(iter(whole.values())))
    left_out = ", Fashion-MNIST left out." if FASHION in sets else ""
    note = f"The mean is over {len(shared)} sets{left_out}"
    return _table(
        {name: found[name] for name in (*whole, *sorted(found))}, sets, shared, note, spread
    )


def _table(
    found: Cells, sets: Sequence[str], over: Sequence[str], note: str = "", spread: bool = False
) -> Table:
    """Write accuracies by selector and data set, and the mean of those that have all sets of it."""
    lines = []
    for name, cell in found.items():
        own = {data: cell[data] for data in over if data in cell}
        overall = f"{mean(own):.1f}" if len(own) == len(over) else "–"
        lines.append((name, overall, *(_value(cell.get(data), spread) for data in sets)))
    return Table(("", "mean", *sets), lines, note)


def _value(units: BySeed | None, spread: bool) -> str:
    if not units:
        return "–"
    values = list(units.values())
    sd = f" ± {np.std(values, ddof=1):.1f}" if spread and len(values) > 1 else ""
    return f"{average(units):.1f}{sd}"


def comparisons(view: View) -> Iterator[Section]:
    """Draw what ours gains over each other selector."""
    fair = view.where(**FAIR)
    sets = tuple(data for data in fair.axis("task") if data != FASHION)
    here = fair.where(task=sets) if sets else fair
    asked = {n: gain(OURS, n, SVM).maybe(here, OVER_SPLITS) for n in (*OTHERS, ALL, *FAMILY)}
    gains = {name: interval for name, interval in asked.items() if interval}
    columns = ("", "SVM", "over other sets", "sets won / lost", "logistic", "boosting")
    table = Table(columns, [_comparison(here, name) for name in gains])
    yield from rows(
        "Ours against each",
        "SVM, paired by split inside each data set, seeds of a split averaged; means over the sets "
        "that both have.",
        {"": gains},
        x="points of accuracy, ours less the other",
        caption=_HOW,
        details=[Details("Each difference, and what other data sets would change", table=table)],
    )


def _comparison(view: View, name: str) -> tuple[str, ...]:
    units = gain(OURS, name, SVM).by_task(view)
    means = [average(one) for one in units.values()]
    won = f"{sum(one > 0 for one in means)} / {sum(one < 0 for one in means)}"
    svm, *more = (
        _signed(gain(OURS, name, measure).maybe(view, OVER_SPLITS)) for measure in JUDGES.values()
    )
    return (name, svm, _signed(mean_interval(means)), won, *more)


def _signed(interval: Interval | None) -> str:
    if interval is None:
        return "–"
    half = "" if interval.n == 1 else f" ± {interval.half_width:.2f}"
    return f"{interval.mean:+.2f}{half}".replace("-", "−")


def papers_protocol(view: View) -> Iterator[Section]:
    """Draw accuracy by how many features are chosen; write the paper's numbers beside ours."""
    here = view.where(protocol="paper", k=COUNTS)
    shown = (OURS, "ExtraTrees", "LightGBM", "f_classif", "SET-Attr", "SET-QS", RANDOM)
    if len(here.axis("k")) > 1:
        yield from curves(
            "The paper's protocol: accuracy by number of features",
            "One split, SVM; means over the data sets.",
            {"": curves_of(here, lambda name, k: level(name, SVM, k=k), shown, here.axis("k"))},
            x="features chosen",
            y="accuracy, %",
        )
    found = cells(here.where(k=K, arm=(OURS, *OTHERS, *FAMILY)), SVM)
    if not found:
        return
    sets = [data for data in PUBLISHED if any(data in cell for cell in found.values())]
    lines = {name: found[name] for name in (*complete(found), *sorted(found))}
    for name in ("SET-Attr", "SET-QS", "Dense-Attr", "RigL-Attr", "LassoNet", "STG"):
        lines[f"{name}, published"] = {data: {0: PUBLISHED[data][name]} for data in sets}
    yield Section(
        f"The paper's protocol, K = {K}",
        "Accuracy of the SVM, per cent.",
        table=_table(lines, sets, sets),
    )


STUDY = Study(
    name="feature-selection",
    title="Feature selection with sparse neural networks",
    source="Atashgahi et al. 2024, Unveiling the Power of Sparse Neural Networks for Feature "
    "Selection (ECAI, arXiv 2408.04583)",
    about="A selector sees a training part and names K features; a classifier then learns from "
    "these alone, and its accuracy on the test part is what they are worth. The paper compares "
    "sparse networks with dense ones, LassoNet and STG; it shows no filter, no trees, no random "
    "choice, and one split of each data set. This study has them: stratified 70/30 splits, "
    "standardised by the training part, three classifiers, and the paper's own protocol. Differs "
    "from the papers: in the quick preset the family trains for 30 epochs instead of 100 or 200, "
    "scores every fifth step, and takes density 0.2 for all data where the paper chose one for "
    "each; LassoNet follows a path of factor 1.1, STG trains for 300 epochs with one penalty, "
    "Boruta grows 20 forests of 200 trees.",
    presets=PRESETS,
    claims=CLAIMS,
    known=KNOWN,
    page=(accuracies, comparisons, costs, stability, papers_protocol, gallery),
)
