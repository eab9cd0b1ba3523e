"""Figures and tables of the study's page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from matplotlib.figure import Figure

from regrow.lab.figures import about_runs, draw_curves, draw_rows, legend_above
from regrow.lab.records import Records
from regrow.lab.report import COLOURS, Section, Table, cell, gathered, if_there, svg
from regrow.lab.statistics import Interval, mean_interval, paired_interval
from regrow.studies.pruning_criteria.claims import MARGIN, OTHERS, effect, versus
from regrow.studies.pruning_criteria.criteria import CRITERIA, GROWTH
from regrow.studies.pruning_criteria.overlap_page import overlap_sections
from regrow.studies.pruning_criteria.view import Task, few, gap, tasks

__all__ = ["sections"]

_COLOUR = {
    **dict(zip(CRITERIA, (COLOURS[7], *COLOURS[2:7], "#b0a000"), strict=True)),
    "static": COLOURS[1],
    "small dense": COLOURS[0],
}
_CUT = 10.0
_ACCURACY = "test accuracy, %"


def sections(records: Records) -> Sequence[Section]:
    """Make the sections, figures first."""
    parts = (
        _grids,
        _against_magnitude,
        _periods,
        overlap_sections,
        _few_samples,
        _tables,
        _costs,
    )
    return gathered(records, parts)


def _grids(records: Records) -> Iterator[Section]:
    for task in tasks(records):
        figure = Figure(figsize=(7.2, 4.4))
        axes = figure.subplots(1, 2, sharey=True)
        shown: list[Interval] = []
        for axis, growth in zip(axes, GROWTH, strict=True):
            curves = _curves(task, growth)
            shown += [interval for points in curves.values() for interval in points.values()]
            draw_curves(axis, curves, x="density", y=_ACCURACY, colours=_COLOUR, even=True)
            axis.set_title(f"{growth} growth", fontsize=10)
            dense = _mean(task, "dense", 1.0)
            if dense is not None:
                axis.axhline(dense.mean, color="black", linewidth=1, linestyle=":", label="dense")
        axes[1].set_ylabel("")
        axes[0].set_ylim(*_limits(task))
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=4, fontsize=9)
        title = f"Accuracy by criterion: {task.name}"
        yield Section(
            title,
            "Each line is a rule for what to drop. Small dense: a narrower dense network with no "
            "more parameters. As shipped: the sign rule that public code has under SET's name, "
            "with random growth only.",
            svg(figure, title),
            caption=about_runs(shown)
            + " What lies far below is cut off; the tables hold all numbers.",
        )


def _limits(task: Task) -> tuple[float, float]:
    """Frame the better criteria and the controls, so that they can be told apart."""
    found = [_mean(task, name, 1.0) for name in ("dense",)]
    for density in task.densities:
        found += [_mean(task, name, density) for name in ("static", "small dense")]
        found += [_mean(task, name, density, g) for name in ("magnitude", "SET") for g in GROWTH]
    means = [one.mean for one in found if one is not None]
    room = max(0.35 * (max(means) - min(means)), 0.5)
    return min(means) - room, max(means) + room / 2


def _curves(task: Task, growth: str) -> dict[str, dict[float, Interval]]:
    curves: dict[str, dict[float, Interval]] = {}
    for name in (*CRITERIA, "static", "small dense"):
        of = growth if name in CRITERIA else ""
        for density in task.densities:
            found = _mean(task, name, density, of)
            if found is not None:
                curves.setdefault(name, {})[density] = found
    return curves


def _mean(task: Task, name: str, density: float, growth: str = "") -> Interval | None:
    return if_there(lambda: mean_interval(task.accuracy(name, density, growth)))


def _against_magnitude(records: Records) -> Iterator[Section]:
    found = tasks(records)
    if not found:
        return
    densities = sorted(set.intersection(*(set(task.densities) for task in found)))
    rows = {}
    for density in densities:
        for name in (*OTHERS, "random", "static", "small dense"):
            gain = versus(name, "magnitude", density)
            if one := if_there(partial(effect, records, gain)):
                rows[f"{name}, {density:g}"] = one
    if not rows:
        return
    figure = Figure(figsize=(7.2, 0.8 + 0.24 * len(rows)))
    axes = figure.subplots()
    draw_rows(axes, rows, x="points of accuracy over magnitude", zero=0.0)
    axes.axvspan(-MARGIN, MARGIN, color="#e8e8e8", zorder=0)
    axes.set_xlim(max(axes.get_xlim()[0], -_CUT), min(axes.get_xlim()[1], _CUT))
    title = "What each choice is worth, over all models"
    yield Section(
        title,
        f"Difference to dropping by magnitude, paired by seed, averaged over {len(found)} models "
        "and data sets and over both growth rules; each model weighs the same. The band is "
        f"± {MARGIN:g} point.",
        svg(figure, title),
        caption=f"{about_runs(rows.values())} What lies beyond ± {_CUT:g} points is cut off.",
    )


def _periods(records: Records) -> Iterator[Section]:
    for task in tasks(records):
        curves = _period_curves(task)
        if not curves:
            continue
        figure = Figure(figsize=(7.2, 4.2))
        axes = figure.subplots()
        draw_curves(axes, curves, x="optimizer steps between updates", y=_ACCURACY)
        axes.set_xscale("log")
        places = sorted({place for points in curves.values() for place in points})
        axes.set_xticks(places, [f"{place:g}" for place in places])
        axes.minorticks_off()
        static = _mean(task, "static", 0.1)
        if static is not None:
            axes.axhline(static.mean, color="black", linewidth=1, linestyle=":", label="static")
        legend_above(axes, 2)
        title = f"How often to update: {task.name}, density 0.1"
        yield Section(
            title,
            f"The criteria grid has {task.period} steps between updates. Few updates leave the "
            "topology nearly where it was drawn; with many, new weights have no time to grow.",
            svg(figure, title),
            caption=about_runs(i for points in curves.values() for i in points.values()),
        )


def _period_curves(task: Task) -> dict[str, dict[float, Interval]]:
    curves: dict[str, dict[float, Interval]] = {}
    for growth in GROWTH:
        for name in CRITERIA:
            points = {}
            for period in task.periods:
                if found := if_there(partial(task.accuracy, name, 0.1, growth, period)):
                    points[float(period)] = mean_interval(found)
            if len(points) > 1:
                curves[f"{name}, {growth} growth"] = points
    return curves


def _few_samples(records: Records) -> Iterator[Section]:
    for task in few(records):
        rows: dict[str, Interval] = {}
        dense = task.accuracy("dense", 1.0)
        for dropout in task.records.distinct("dropout"):
            if dropout:
                values = task.records.where(dropout=dropout).values("accuracy")
                scaled = {seed: 100 * value for seed, value in values.items()}
                rows[f"dense, dropout {dropout:g}"] = paired_interval(scaled, dense, common=True)
        for density in task.densities:
            rows[f"static, {density:g}"] = mean_interval(gap(task, "static", "dense", density))
            rows[f"magnitude, {density:g}"] = mean_interval(
                gap(task, "magnitude", "dense", density)
            )
        figure = Figure(figsize=(7.2, 0.9 + 0.3 * len(rows)))
        axes = figure.subplots()
        draw_rows(axes, rows, x="points of accuracy over dense training", zero=0.0)
        title = f"As a regulariser: {task.name}"
        yield Section(
            title,
            f"Dense training reaches {cell(mean_interval(dense))} %. Differences to it, paired "
            "by seed; magnitude is the mean over both growth rules.",
            svg(figure, title),
            caption=about_runs(rows.values()),
        )


def _tables(records: Records) -> Iterator[Section]:
    for task in tasks(records):
        densities = task.densities
        rows = []
        for name in ("dense", "small dense", "static", *CRITERIA):
            for growth in GROWTH if name in CRITERIA else ("",):
                places = [1.0] * len(densities) if name == "dense" else densities
                found = [_mean(task, name, density, growth) for density in places]
                if any(found):
                    label = f"{name}, {growth} growth" if growth else name
                    rows.append((label, *(cell(one) for one in found)))
        yield Section(
            f"All accuracies: {task.name}",
            "Test accuracy in per cent, mean ± half the 95 % interval (Student's t), and n.",
            table=Table(("", *(f"density {d:g}" for d in densities)), rows),
        )


def _costs(records: Records) -> Iterator[Section]:
    rows = []
    for task in tasks(records):
        try:
            base = {field: _one(task, "dense", 1.0, "", field) for field in _COSTS}
        except ValueError:
            continue
        for density in task.densities:
            for growth in GROWTH:
                try:
                    found = [_one(task, "magnitude", density, growth, f) for f in _COSTS]
                except ValueError:
                    continue
                shares = (f / b for f, b in zip(found, base.values(), strict=True))
                label = f"{task.name}, {density:g}, {growth} growth"
                rows.append((label, *(f"{share:.3f}" for share in shares)))
    if rows:
        yield Section(
            "What it costs, counted",
            "As a fraction of the dense network's. Networks were trained under masks, which saves "
            "neither: this is what active weights alone would take. Weights, gradients and "
            "optimizer state, with indices of four bytes a weight.",
            table=Table(("magnitude", "training FLOPs", "inference FLOPs", "bytes"), rows),
        )


_COSTS = ("training_flops", "inference_flops", "bytes_needed")


def _one(task: Task, name: str, density: float, growth: str, field: str) -> float:
    return next(iter(task.accuracy(name, density, growth, field=field).values()))
