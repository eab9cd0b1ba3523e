"""Figures of what criteria would drop from the same state."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
from matplotlib.figure import Figure

from regrow.lab.figures import about_runs, draw_curves, legend_above
from regrow.lab.records import Records
from regrow.lab.report import Section, svg
from regrow.lab.statistics import Interval, mean_interval
from regrow.studies.pruning_criteria.overlaps import ASKED
from regrow.studies.pruning_criteria.view import first_overlap, overlaps

__all__ = ["overlap_sections"]

_SHARE = 0.25


def overlap_sections(records: Records) -> Iterator[Section]:
    """Make a matrix of the first update and curves of the rest, for each model."""
    for name, here in overlaps(records).items():
        yield _first(name, here)
        yield _during(name, here)


def _first(name: str, here: Records) -> Section:
    names = list(ASKED)
    found: dict[tuple[int, int], Interval] = {
        (i, j): mean_interval(first_overlap(here, _SHARE, names[i], names[j]))
        for i, j in combinations(range(len(names)), 2)
    }
    matrix = np.full((len(names), len(names)), np.nan)
    figure = Figure(figsize=(7.2, 5.2))
    axes = figure.subplots()
    for (i, j), interval in found.items():
        matrix[j, i] = interval.mean
        said = f"{interval.mean:.2f}"
        if interval.n > 1:
            said += f"\n± {interval.half_width:.2f}"
        colour = "white" if interval.mean < 0.5 else "black"
        axes.text(i, j, said, ha="center", va="center", color=colour, fontsize=9)
    image = axes.imshow(matrix, vmin=0, vmax=1, cmap="cividis")
    axes.set_xticks(range(len(names) - 1), names[:-1], rotation=30, ha="right")
    axes.set_yticks(range(1, len(names)), names[1:])
    axes.set_xlim(-0.5, len(names) - 1.5)
    axes.set_ylim(len(names) - 0.5, 0.5)
    axes.grid(visible=False)
    axes.set(xlabel="criterion", ylabel="criterion")
    figure.colorbar(image, ax=axes, label="Jaccard index of what they would drop", shrink=0.8)
    title = f"Do criteria choose the same weights? First update: {name}"
    return Section(
        title,
        "All criteria look at the same network and would drop a quarter of its active weights. "
        f"1: the same weights; two random choices have {_SHARE / (2 - _SHARE):.2f}.",
        svg(figure, title),
        caption=about_runs(found.values()),
    )


def _during(name: str, here: Records) -> Section:
    curves: dict[str, dict[float, Interval]] = {}
    moments = [at["step"] for at in here.all[0].result["during"]]
    others = [other for other in ASKED if other != "magnitude"]
    for other in others:
        pair = f"magnitude | {other}"
        for i, step in enumerate(moments):
            by_seed = {
                record.config["seed"]: record.result["during"][i]["pairs"][pair] for record in here
            }
            curves.setdefault(f"magnitude and {other}", {})[float(step)] = mean_interval(by_seed)
    figure = Figure(figsize=(7.2, 4.2))
    axes = figure.subplots()
    draw_curves(axes, curves, x="optimizer step", y="Jaccard index")
    axes.axhline(1 / 3, color="black", linewidth=0.8, linestyle=":", label="two random choices")
    axes.set_ylim(0, 1.02)
    legend_above(axes, 2)
    title = f"Do they go on to agree? During training: {name}"
    return Section(
        title,
        "What each criterion would drop, beside magnitude, half of the active weights dropped; the "
        "network itself is trained with magnitude and gradient growth.",
        svg(figure, title),
        caption=about_runs(i for points in curves.values() for i in points.values()),
    )
