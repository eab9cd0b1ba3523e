"""Figures and tables of the study's page: accuracy, ranks, differences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np
from matplotlib.figure import Figure

from regrow.lab.figures import draw_curves, draw_rows
from regrow.lab.records import Records
from regrow.lab.report import Folded, Section, Table, if_there, svg
from regrow.lab.statistics import Interval
from regrow.studies.feature_selection.columns import ALL, BASELINES, FAMILY, OURS, RANDOM
from regrow.studies.feature_selection.cost_page import costs, stability
from regrow.studies.feature_selection.gallery import gallery
from regrow.studies.feature_selection.presets import COUNTS, SETS
from regrow.studies.feature_selection.published import PUBLISHED
from regrow.studies.feature_selection.trial import JUDGES
from regrow.studies.feature_selection.view import (
    Cells,
    accuracy,
    cells,
    difference,
    in_order,
    mean_ranks,
    over_sets,
    resampled_mean,
    shared_sets,
)

__all__ = ["sections"]

_JUDGES = {"svc": "SVM", "logistic": "logistic regression", "boosting": "gradient boosting"}
_HOW = (
    "Bars are 95 % intervals of the mean over splits, corrected for their overlap (Nadeau & Bengio "
    "2003)."
)


def sections(records: Records) -> Sequence[Section]:
    """Make the sections, figures first."""
    found = {judge: cells(records, accuracy(judge)) for judge in JUDGES}
    made = [] if not found["svc"] else [*_fair(found)]
    return [*made, *costs(records), *stability(records), *_paper(records), *gallery(records)]


def _fair(found: Mapping[str, Cells]) -> Iterator[Section]:
    whole, part = _whole(found["svc"])
    yield _means(found, whole, part)
    yield from _ranks(found["svc"], whole)
    yield from _differences(found)
    yield _by_set(found)


def _whole(found: Cells) -> tuple[list[str], list[str]]:
    """Return selectors that have as many data sets as any, and those that have fewer."""
    sets = [data for data in _sets(found) if data != "fashion-mnist"] or _sets(found)
    most = max(len(set(sets) & set(found[name])) for name in found)
    whole = [name for name in found if len(set(sets) & set(found[name])) == most]
    return in_order(found, whole), sorted(set(found) - set(whole))


def _sets(found: Cells) -> list[str]:
    there = {data for sets in found.values() for data in sets}
    return [*(data for data in SETS if data in there), *sorted(there - set(SETS))]


def _of_eleven(found: Cells, name: str, shared: Sequence[str]) -> Interval:
    return resampled_mean({data: found[name][data] for data in shared})


def _common(found: Cells, names: Sequence[str]) -> list[str]:
    """Return the data sets that all have; Fashion-MNIST is not one of the eleven."""
    shared = shared_sets(found, *names)
    return [data for data in SETS if data in shared] or sorted(shared)


def _means(found: Mapping[str, Cells], whole: list[str], part: list[str]) -> Section:
    figure = Figure(figsize=(7.2, 1.0 + 0.26 * len(whole)))
    judges = [judge for judge in _JUDGES if found[judge]]
    for axes, judge in zip(
        np.atleast_1d(figure.subplots(1, len(judges), sharey=True)), judges, strict=True
    ):
        there = [name for name in whole if name in found[judge]]
        shared = _common(found[judge], there)
        rows = {
            name: _of_eleven(found[judge], name, shared)
            if name in there
            else Interval(np.nan, np.nan, np.nan, 2)
            for name in whole
        }
        draw_rows(axes, rows, x="accuracy, %")
        axes.set_title(_JUDGES[judge], fontsize=10)
        _mark_ours(axes, list(rows))
    shared = _common(found["svc"], whole)
    title = "Mean accuracy on the test parts"
    left = f" Not shown, because they lack some of these sets: {', '.join(part)}." if part else ""
    missing = [name for name in (*BASELINES, OURS, *FAMILY) if name not in found["svc"]]
    if missing:
        left += f" Not run, or their package is not installed: {', '.join(missing)}."
    return Section(
        title,
        f"Means over {', '.join(shared)} ({len(shared)} data sets), each weighing the same, by "
        f"the classifier that learned from the chosen features.{left}",
        svg(figure, title),
        caption=_HOW,
    )


def _mark_ours(axes: object, names: list[str]) -> None:
    if OURS in names:
        axes.axhspan(  # type: ignore[attr-defined]
            names.index(OURS) - 0.5, names.index(OURS) + 0.5, color="#f1f1f1", zorder=0
        )


def _ranks(found: Cells, whole: list[str]) -> Iterator[Section]:
    names = [name for name in whole if name != ALL]
    if len(names) < 2:
        return
    ranks = mean_ranks(found, names)
    shared = _common(found, names)
    rows = {name: resampled_mean({d: ranks[name][d] for d in shared}) for name in names}
    rows = dict(sorted(rows.items(), key=lambda item: item[1].mean))
    figure = Figure(figsize=(7.2, 0.8 + 0.26 * len(rows)))
    axes = figure.subplots()
    draw_rows(axes, rows, x=f"mean rank among {len(rows)} selectors (1 is the best)")
    _mark_ours(axes, list(rows))
    title = "Mean rank"
    yield Section(
        title,
        "Selectors are ranked by the SVM's accuracy in each split of each set.",
        svg(figure, title),
        caption=_HOW,
    )


def _differences(found: Mapping[str, Cells]) -> Iterator[Section]:
    if OURS not in found["svc"]:
        return
    rows: dict[str, Interval] = {}
    lines = []
    for name in (*BASELINES, RANDOM, ALL, *FAMILY):
        both = if_there(partial(difference, found["svc"], OURS, name))
        if both is None:
            continue
        gains = _without_fashion(both)
        rows[name] = resampled_mean(gains)
        lines.append(_difference_row(found, name, gains))
    if not rows:
        return
    figure = Figure(figsize=(7.2, 0.8 + 0.26 * len(rows)))
    draw_rows(figure.subplots(), rows, x="points of accuracy, ours less the other", zero=0.0)
    title = "Ours against each"
    columns = ("", "SVM", "over other sets", "sets won / lost", "logistic", "boosting")
    yield Section(
        title,
        "SVM, paired by split inside each data set, seeds of a split averaged; means over the sets "
        "that both have.",
        svg(figure, title),
        caption=_HOW,
        folded=[
            Folded(
                "Each difference, and what other data sets would change",
                table=Table(columns, lines),
            )
        ],
    )


def _without_fashion(
    gains: Mapping[str, Mapping[int, float]],
) -> Mapping[str, Mapping[int, float]]:
    eleven = {data: units for data, units in gains.items() if data != "fashion-mnist"}
    return eleven or gains


def _difference_row(
    found: Mapping[str, Cells], name: str, gains: Mapping[str, Mapping[int, float]]
) -> tuple[str, ...]:
    means = [float(np.mean(list(units.values()))) for units in gains.values()]
    cells_of = [name, _signed(resampled_mean(gains)), _signed(over_sets(gains))]
    cells_of.append(f"{sum(m > 0 for m in means)} / {sum(m < 0 for m in means)}")
    for judge in ("logistic", "boosting"):
        try:
            other = _without_fashion(difference(found[judge], OURS, name))
            cells_of.append(_signed(resampled_mean(other)))
        except ValueError:
            cells_of.append("–")
    return tuple(cells_of)


def _signed(interval: Interval) -> str:
    half = "" if interval.n == 1 else f" ± {interval.half_width:.2f}"
    return f"{interval.mean:+.2f}{half}".replace("-", "−")


def _by_set(found: Mapping[str, Cells]) -> Section:
    tables = {judge: _set_table(found[judge]) for judge in _JUDGES if found[judge]}
    return Section(
        "Accuracy by data set",
        "SVM, mean over splits and seeds, per cent. K = 50; 20 of Madelon, 10 of digits.",
        table=tables.pop("svc"),
        folded=[
            *(Folded(_JUDGES[judge], table=table) for judge, table in tables.items()),
            Folded(
                "SVM, with standard deviations over splits", table=_set_table(found["svc"], True)
            ),
        ],
    )


def _set_table(found: Cells, spread: bool = False) -> Table:
    """Make a row a selector; the mean is over the sets that all whole rows share."""
    sets = _sets(found)
    whole, part = _whole(found)
    shared = _common(found, whole)
    rows = []
    for name in (*whole, *part):
        mean = f"{_of_eleven(found, name, shared).mean:.1f}" if name in whole else "–"
        rows.append((name, mean, *(_cell(found[name].get(data), spread) for data in sets)))
    note = f"The mean is over {len(shared)} sets" + ", Fashion-MNIST left out." * (
        "fashion-mnist" in sets
    )
    return Table(("", "mean", *sets), rows, note)


def _cell(units: Mapping[int, float] | None, spread: bool) -> str:
    if not units:
        return "–"
    values = list(units.values())
    sd = f" ± {np.std(values, ddof=1):.1f}" if spread and len(values) > 1 else ""
    return f"{np.mean(values):.1f}{sd}"


def _paper(records: Records) -> Iterator[Section]:
    """Show accuracy by K at the paper's protocol, and its own numbers beside it."""
    by_count = {k: cells(records, accuracy("svc"), protocol="paper", k=k) for k in COUNTS}
    found = by_count[100]
    if not found:
        return
    names = in_order(found, [n for n in (OURS, *BASELINES, RANDOM, *FAMILY) if n in found])
    if sum(map(bool, by_count.values())) > 1:
        yield _by_count(by_count, names)
    sets = [data for data in PUBLISHED if any(data in found[name] for name in names)]
    rows = [_paper_row(name, found[name], sets) for name in names]
    rows += [
        _paper_row(f"{name}, published", {data: {0: PUBLISHED[data][name]} for data in sets}, sets)
        for name in ("SET-Attr", "SET-QS", "Dense-Attr", "RigL-Attr", "LassoNet", "STG")
    ]
    yield Section(
        "The paper's protocol, K = 100",
        "Accuracy of the SVM, per cent.",
        table=Table(("", "mean", *sets), rows),
    )


def _paper_row(
    name: str, found: Mapping[str, Mapping[int, float]], sets: Sequence[str]
) -> tuple[str, ...]:
    means = [float(np.mean(list(found[data].values()))) for data in sets if data in found]
    mean = f"{np.mean(means):.1f}" if len(means) == len(sets) else "–"
    return (name, mean, *(_cell(found.get(data), False) for data in sets))


def _by_count(by_count: Mapping[int, Cells], names: Sequence[str]) -> Section:
    shown = [
        n
        for n in (OURS, "ExtraTrees", "LightGBM", "f_classif", "SET-Attr", "SET-QS", RANDOM)
        if n in names
    ]
    curves: dict[str, dict[float, Interval]] = {}
    for k, here in by_count.items():
        for name in shown:
            if name in here:
                curves.setdefault(name, {})[float(k)] = resampled_mean(here[name], ratio=0.0)
    figure = Figure(figsize=(7.2, 4.2))
    axes = figure.subplots()
    draw_curves(axes, curves, x="features chosen", y="accuracy, %", even=True)
    axes.legend(loc="lower right")
    title = "The paper's protocol: accuracy by number of features"
    return Section(
        title,
        "One split, SVM; means over the data sets.",
        svg(figure, title),
        caption="Intervals are over seeds.",
    )
