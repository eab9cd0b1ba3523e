"""Figures that are drawn task by task: accuracy matrices, capacity, overlap of masks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from regrow.lab.figures import about_runs, draw_curves
from regrow.lab.records import Record, Records
from regrow.lab.report import COLOURS, Section, svg
from regrow.lab.statistics import Interval, mean_interval
from regrow.studies.continual_dst.view import CELLS, CONTROLS, Course, courses

__all__ = ["capacity_sections", "matrix_sections", "overlap_sections"]

Matrix = npt.NDArray[np.floating[Any]]

_COLUMNS = 4
_WRITTEN = 6  # in a matrix of at most so many tasks each cell says its value
_SHOWN = (
    "uniform, random",
    "uniform, gradient",
    "uniform, static",
    "ERK, random",
    "ERK, gradient",
    "ERK, static",
)
_FEWEST = 1.1


def matrix_sections(records: Records) -> Iterator[Section]:
    """Draw the accuracy matrix of each learner, at one density."""
    for course in courses(records):
        found = _matrices(course)
        if not found:
            continue
        limits = _limits(found)
        figure, grid = _panels(len(found))
        for axis, (name, matrix) in zip(grid, found.items(), strict=False):
            _draw_matrix(axis, matrix, *limits, name)
        figure.colorbar(grid[0].images[0], ax=list(grid), shrink=0.5, label="accuracy, %")
        title = f"Accuracy on each task after each: {course.name}"
        at = f" at density {course.middle:g}" if course.densities else ""
        yield Section(
            title,
            "A row is a moment, after task 1 at the top to after the last at the bottom; a column "
            "is a task. Where a column keeps its colour downwards nothing is forgotten. Learners "
            f"that have a density are shown{at}.",
            svg(figure, title),
            caption="Means over seeds.",
        )


def capacity_sections(records: Records) -> Iterator[Section]:
    """Draw how much of the store is used, and how much of it is earlier tasks', task by task."""
    for course in courses(records):
        used: dict[str, Mapping[float, Interval]] = {}
        reused: dict[str, Mapping[float, Interval]] = {}
        for name in (*_SHOWN, "PackNet", "SpaceNet-like", "NISPA-like"):
            found = _at_middle(course, name)
            if found:
                used[name] = _over_tasks(found, "capacity")
                reused[name] = _over_tasks(found, "reused")
        if not used:
            continue
        figure = Figure(figsize=(7.2, 4.6))
        left, right = figure.subplots(1, 2)
        colours = dict(zip(used, (*COLOURS[2:], *COLOURS[:2], "#b0a000"), strict=False))
        draw_curves(left, used, x="tasks learnt", y="weights used, % of all", colours=colours)
        draw_curves(
            right, reused, x="task", y="earlier tasks' weights, % of its own", colours=colours
        )
        density, tasks = course.middle, len(next(iter(used.values())))
        steps = range(1, tasks + 1)
        left.plot(
            steps,
            [100 * (1 - (1 - density) ** t) for t in steps],
            color="black",
            lw=1,
            ls=":",
            label="random masks",
        )
        for axis in (left, right):
            axis.set_xticks(list(steps))
            axis.set_ylim(0, min(axis.get_ylim()[1], 105))
        handles, labels = left.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=4, fontsize=8)
        title = f"Capacity and reuse: {course.name}, density {density:g}"
        yield Section(
            title,
            "Left: the share of the store that tasks have taken; dotted, 1 − (1 − d)^t of "
            "independent random masks. Right: how much of a task's network are weights that "
            "earlier tasks trained, which it reads and cannot change.",
            svg(figure, title),
            caption=about_runs(one for points in used.values() for one in points.values()),
        )


def overlap_sections(records: Records) -> Iterator[Section]:
    """Draw how alike the masks of every two tasks are."""
    for course in courses(records):
        found = {}
        for name in _SHOWN:
            if records_of := _at_middle(course, name):
                found[name] = 100 * np.mean([r.result["overlap"] for r in records_of], axis=0)
                np.fill_diagonal(found[name], np.nan)
        if not found:
            continue
        highest = _limits(found)[1]
        figure, grid = _panels(len(found), columns=3)
        for axis, (name, matrix) in zip(grid, found.items(), strict=False):
            _draw_matrix(axis, matrix, 0.0, highest, name)
        figure.colorbar(grid[0].images[0], ax=list(grid), shrink=0.6, label="Jaccard index, %")
        title = f"Overlap of the tasks' masks: {course.name}, density {course.middle:g}"
        expected = 100 * course.middle / (2 - course.middle)
        yield Section(
            title,
            f"The Jaccard index of the active weights of every two tasks. Two independent random "
            f"masks would have {expected:.1f} %.",
            svg(figure, title),
            caption="Means over seeds.",
        )


def _matrices(course: Course) -> dict[str, Matrix]:
    found = {}
    for name in (*CONTROLS, *CELLS):
        if records := _at_middle(course, name):
            found[name] = np.mean([_filled(r.result["accuracies"]) for r in records], axis=0)
    return found


def _limits(matrices: Mapping[str, Matrix]) -> tuple[float, float]:
    """Return the lowest and the highest value, apart from holes."""
    lows, highs = zip(*((np.nanmin(m), np.nanmax(m)) for m in matrices.values()), strict=True)
    return float(min(lows)), float(max(highs))


def _filled(rows: Sequence[Sequence[float]]) -> Matrix:
    """Return accuracies in per cent; NaN above the diagonal."""
    matrix = np.full((len(rows), len(rows)), np.nan)
    for i, row in enumerate(rows):
        matrix[i, : i + 1] = 100 * np.asarray(row[: i + 1])
    return matrix


def _at_middle(course: Course, name: str) -> list[Record]:
    for density in (course.middle, None) if course.densities else (None,):
        try:
            return list(course.found(name, density).values())
        except ValueError:
            continue
    return []


def _over_tasks(records: Sequence[Record], field: str) -> dict[float, Interval]:
    """Return a field that has a value a task, in per cent."""
    lists = {record.config["seed"]: record.result[field] for record in records}
    tasks = range(len(next(iter(lists.values()))))
    return {
        float(t + 1): mean_interval({s: 100 * values[t] for s, values in lists.items()})
        for t in tasks
    }


def _panels(n: int, columns: int = _COLUMNS) -> tuple[Figure, Sequence[Axes]]:
    rows = math.ceil(n / columns)
    figure = Figure(figsize=(7.2, 0.6 + 7.2 / (columns + 0.4) * rows * _FEWEST))
    grid = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    for axis in grid[n:]:
        axis.set_visible(False)
    return figure, list(grid)


def _draw_matrix(axis: Axes, matrix: Matrix, low: float, high: float, title: str) -> None:
    axis.imshow(matrix, vmin=low, vmax=high, cmap="cividis")
    tasks = len(matrix)
    axis.set_title(title, fontsize=8)
    ticks = range(0, tasks, 1 if tasks <= _WRITTEN else 3)
    axis.set_xticks(ticks, [str(t + 1) for t in ticks], fontsize=7)
    axis.set_yticks(ticks, [str(t + 1) for t in ticks], fontsize=7)
    axis.grid(visible=False)
    if tasks <= _WRITTEN:
        for (i, j), value in np.ndenumerate(matrix):
            if not np.isnan(value):
                dark = value < (low + high) / 2
                colour = "white" if dark else "black"
                axis.text(j, i, f"{value:.0f}", ha="center", va="center", color=colour, fontsize=6)
