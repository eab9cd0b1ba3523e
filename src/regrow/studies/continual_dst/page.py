"""Figures and tables of the study's page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from matplotlib.figure import Figure

from regrow.lab.by_task import verdicts_by_task
from regrow.lab.figures import about_runs, draw_curves, draw_rows
from regrow.lab.records import Records
from regrow.lab.report import COLOURS, Section, Table, cell, gathered, if_there, svg
from regrow.lab.statistics import Interval, mean_interval
from regrow.studies.continual_dst.claims import (
    CLAIMS,
    MARGIN,
    Effect,
    allocation_gain,
    growth_gain,
    moving_gain,
)
from regrow.studies.continual_dst.learners import ALLOCATIONS, GROWTH
from regrow.studies.continual_dst.matrices import (
    capacity_sections,
    matrix_sections,
    overlap_sections,
)
from regrow.studies.continual_dst.view import CELLS, CONTROLS, Course, courses, interval

__all__ = ["sections"]

_NAMES = (*CELLS, *CONTROLS)
_RULES = (*GROWTH, "static")
_COLOUR = dict(
    zip(_RULES, (COLOURS[2], COLOURS[4], COLOURS[7], COLOURS[5], COLOURS[0]), strict=True)
)
_LINES = {"joint": ":", "independent, same size": "--", "naive": "-."}
_FIELDS = {
    "ACC": "ACC, %",
    "BWT": "BWT, points",
    "FWT": "FWT, points",
}


def sections(records: Records) -> Sequence[Section]:
    """Make the sections, figures first."""
    parts = (
        _by_task,
        _by_density,
        _learners,
        _choices,
        matrix_sections,
        capacity_sections,
        overlap_sections,
        _tables,
    )
    return gathered(records, parts)


def _by_task(records: Records) -> Iterator[Section]:
    return verdicts_by_task(CLAIMS, {course.name: course.records for course in courses(records)})


def _by_density(records: Records) -> Iterator[Section]:
    for course in courses(records):
        if not course.densities:
            continue
        figure = Figure(figsize=(7.2, 4.4))
        shown: list[Interval] = []
        for axis, allocation in zip(figure.subplots(1, 2, sharey=True), ALLOCATIONS, strict=True):
            curves = {rule: _points(course, f"{allocation}, {rule}") for rule in _RULES}
            curves = {rule: points for rule, points in curves.items() if points}
            shown += [one for points in curves.values() for one in points.values()]
            draw_curves(axis, curves, x="density of a task", y="ACC, %", colours=_COLOUR, even=True)
            axis.set_title(allocation, fontsize=10)
            for name, style in _LINES.items():
                if (line := interval(course, name)) is not None:
                    axis.axhline(line.mean, color="black", lw=1, linestyle=style, label=name)
        figure.axes[1].set_ylabel("")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=4, fontsize=9)
        title = f"Accuracy after the last task: {course.name}"
        yield Section(
            title,
            "Coloured lines are growth rules; static keeps the topology that was drawn first. "
            "Joint training sees all tasks at once; independent networks of the same size are "
            "dense, one a task, and together as large as the one store.",
            svg(figure, title),
            caption=about_runs(shown),
        )


def _points(course: Course, learner: str) -> dict[float, Interval]:
    found = {density: interval(course, learner, density) for density in course.densities}
    return {density: one for density, one in found.items() if one is not None}


def _learners(records: Records) -> Iterator[Section]:
    for course in courses(records):
        if not course.densities:
            continue
        found = {
            field: {name: interval(course, name, course.middle, field) for name in _NAMES}
            for field in _FIELDS
        }
        # Without dense networks to compare with there is no FWT.
        fields = [field for field in _FIELDS if any(found[field].values())]
        names = [name for name in _NAMES if all(found[field][name] for field in fields)]
        figure = Figure(figsize=(7.2, 1.0 + 0.25 * len(names)))
        axes = figure.subplots(1, len(fields), squeeze=False)[0]
        shown: list[Interval] = []
        for axis, field in zip(axes, fields, strict=True):
            rows = {name: one for name in names if (one := found[field][name]) is not None}
            shown += rows.values()
            draw_rows(axis, rows, x=_FIELDS[field], zero=None if field == "ACC" else 0.0)
            if axis is not axes[0]:
                axis.set_yticklabels([])
            axis.tick_params(axis="x", labelsize=8)
        title = f"All learners: {course.name}, density {course.middle:g}"
        yield Section(
            title,
            "ACC: mean accuracy on all tasks after the last. BWT: what later tasks changed of what "
            "was learnt; below 0 is forgetting. FWT: accuracy right after learning a task, less "
            "that of a dense network of full size that learnt it alone; it tells what is lost by "
            "sparsity, and gained or lost by what was there before.",
            svg(figure, title),
            caption=about_runs(shown),
        )


def _choices(records: Records) -> Iterator[Section]:
    for course in courses(records):
        found = {name: _interval(course, value) for name, value in _asked(course).items()}
        rows = {name: interval for name, interval in found.items() if interval}
        if not rows:
            continue
        figure = Figure(figsize=(7.2, 0.8 + 0.24 * len(rows)))
        axes = figure.subplots()
        draw_rows(axes, rows, x="points of ACC", zero=0.0)
        axes.axvspan(-MARGIN, MARGIN, color="#e8e8e8", zorder=0)
        title = f"What each choice is worth: {course.name}"
        yield Section(
            title,
            "Differences paired by seed, averaged over what is not named (allocations; for ERK "
            f"over uniform, growth rules). The band is ± {MARGIN:g} point.",
            svg(figure, title),
            caption=about_runs(rows.values()),
        )


def _interval(course: Course, value: Effect) -> Interval | None:
    return if_there(lambda: mean_interval(value(course)))


def _asked(course: Course) -> dict[str, Effect]:
    asked: dict[str, Effect] = {}
    for density in course.densities:
        asked[f"ERK over uniform, {density:g}"] = allocation_gain(density)
        for rule in ("unfired", "gradient", "momentum"):
            asked[f"{rule} over random growth, {density:g}"] = moving_gain(
                density, (rule,), "random"
            )
        for allocation in ALLOCATIONS:
            asked[f"gradient over random, {allocation}, {density:g}"] = growth_gain(
                density, allocation
            )
        for rule in GROWTH:
            asked[f"{rule} over static, {density:g}"] = moving_gain(density, (rule,))
    return asked


def _tables(records: Records) -> Iterator[Section]:
    for course in courses(records):
        rows = []
        for name in _NAMES:
            for density in (*course.densities, None):
                if (cells := _row(course, name, density)) is not None:
                    rows.append(cells)
        yield Section(
            f"All numbers: {course.name}",
            "Mean ± half the 95 % interval (Student's t), and n. Weights: what answers all tasks, "
            "as a share of the body's weights; heads are not counted.",
            table=Table(("learner", "density", "ACC, %", "BWT", "FWT", "weights"), rows),
        )


def _row(course: Course, name: str, density: float | None) -> tuple[str, ...] | None:
    found = if_there(lambda: course.found(name, density))
    if not found:
        return None
    shares = [r.result["weights_used"][-1] / r.result["weights"] for r in found.values()]
    cells = [cell(interval(course, name, density, field)) for field in _FIELDS]
    at = "–" if density is None else f"{density:g}"
    return name, at, *cells, f"{sum(shares) / len(shares):.2f}"
