"""The demo's page and its figures."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from regrow.lab.figures import COLOURS, figure_style, svg
from regrow.lab.report import page
from regrow.lab.section import Section
from regrow.lab.statistics import mean_interval
from regrow.studies.demo.trial import DENSE, Cell, TrialResult
from regrow.studies.demo.words import (
    Results,
    accuracies,
    demo_table,
    findings,
    mean_training_flops,
)

__all__ = ["demo_page"]

_METHODS = ("Small dense", "Static", "SET", "RigL")
_COLOUR = dict(zip(("Dense", *_METHODS), COLOURS, strict=False))


def demo_page(
    results: Results, ratios: Mapping[str, Sequence[float]], source: str, footer: str
) -> str:
    """Make the demo's page.

    Args:
        results: by cell, one result a seed.
        ratios: by cell, seconds a step over the dense network's, one value a round.
        source: what the data are.
        footer: where the numbers come from.

    Returns:
        HTML.
    """
    with figure_style():
        sections = [
            Section(
                "Accuracy against density",
                "Points are means over seeds with 95 % intervals; the band is the dense network's.",
                _accuracy_figure(results),
            ),
            Section(
                "All numbers",
                "What each network reached, and what it would cost if only active weights were "
                "computed and stored.",
                table=demo_table(results),
            ),
            Section(
                "How the topology moved",
                "Share of the first topology's connections that are still active; updates stop at "
                "75 % of the run for RigL and go on to the end for SET. One seed.",
                _movement_figure(results),
            ),
            *_input_sections(results),
            Section(
                "Density of each layer, before and after",
                "These methods move connections inside a layer and never between layers, so each "
                "layer ends as dense as it began; the small layers are given more (ERK).",
                _density_figure(results),
            ),
            Section(
                "Operations and bytes, counted",
                "As a fraction of the dense network's, averaged over seeds. This is what "
                "arithmetic on active weights alone takes; masked execution does not collect it.",
                _saving_figure(results),
            ),
            Section(
                "Time of a step, measured",
                "Masked execution multiplies dense matrices that contain zeros: it saves no time "
                "and no memory, and costs a little for the masks. Only the small dense network is "
                "faster. Steps of all networks were timed in turn, on one thread; bars are medians "
                "over rounds, lines the middle half.",
                _time_figure(ratios),
            ),
        ]
    about = (
        f"Data: {source}. Differences are in points of test accuracy, paired over seeds, with 95 % "
        "intervals; an interval that holds 0 is no clear difference."
    )
    return page("Sparse training beside dense training", about, findings(results), sections, footer)


# ---------------------------------------------------------------------- figures


def _accuracy_figure(results: Results) -> str:
    figure = Figure()
    axes = figure.subplots()
    dense = mean_interval(accuracies(results[DENSE]))
    axes.axhline(100 * dense.mean, color=_COLOUR["Dense"], linewidth=1.2, label="Dense")
    if dense.n > 1:
        axes.axhspan(100 * dense.low, 100 * dense.high, color=_COLOUR["Dense"], alpha=0.12, lw=0)
    densities = sorted({cell.density for cell in results} - {1.0})
    for i, method in enumerate(_METHODS):
        found = [mean_interval(accuracies(results[Cell(method, d)])) for d in densities]
        axes.errorbar(
            [j + (i - 1.5) * 0.12 for j in range(len(densities))],
            [100 * interval.mean for interval in found],
            yerr=[0 if f.n == 1 else 100 * f.half_width for f in found],
            fmt="o",
            capsize=3,
            color=_COLOUR[method],
            label=method,
        )
    axes.set_xticks(range(len(densities)), [f"{d:g}" for d in densities])
    axes.set_xlim(-0.5, len(densities) - 0.5)
    axes.set_xlabel("density (fraction of weights kept)")
    axes.set_ylabel("test accuracy, %")
    _legend_above(axes)
    return svg(figure, f"Accuracy against density, n = {dense.n} seeds")


def _movement_figure(results: Results) -> str:
    figure = Figure()
    axes = figure.subplots()
    for cell, found in results.items():
        if cell.method in ("Static", "SET", "RigL"):
            steps, share = zip(*found[0].overlap, strict=True)
            style = "-" if cell.density == max(c.density for c in results if c != DENSE) else "--"
            axes.step(
                steps, share, style, where="post", color=_COLOUR[cell.method], label=str(cell)
            )
    axes.set_ylim(0, 1.05)
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("first topology still active")
    _legend_above(axes)
    return svg(figure, "Share of the first topology still active over training")


def _input_sections(results: Results) -> list[Section]:
    cell = Cell("RigL", min(cell.density for cell in results))
    inputs = results[cell][0].inputs
    if inputs is None:
        return []
    side = int(len(inputs[0]) ** 0.5)
    if side * side != len(inputs[0]):
        return []
    totals = [np.sum([r.inputs[i] for r in results[cell] if r.inputs], axis=0) for i in (0, 1)]
    means = [total.reshape(side, side) / len(results[cell]) for total in totals]
    figure = Figure(figsize=(7.2, 3.2))
    axes = figure.subplots(1, 2)
    top = max(float(mean.max()) for mean in means)
    for axis, mean, when in zip(axes, means, ("before training", "after training"), strict=True):
        image = axis.imshow(mean, vmin=0, vmax=top, cmap="cividis")
        axis.set_title(when, fontsize=10)
        axis.set_xticks([])
        axis.set_yticks([])
        axis.grid(visible=False)
    figure.colorbar(image, ax=axes, label="connections, mean over seeds", shrink=0.9)
    text = (
        f"Connections of each pixel to the first layer under {cell}: drawn at random at the start, "
        "they gather where the images carry information."
    )
    return [Section("Where the network looks", text, svg(figure, text))]


def _density_figure(results: Results) -> str:
    shown = [cell for cell in results if cell.method in ("SET", "RigL")]
    figure = Figure()
    axes = figure.subplots()
    names = list(results[shown[0]][0].densities)
    width = 0.8 / len(shown)
    for i, cell in enumerate(shown):
        before, after = zip(*results[cell][0].densities.values(), strict=True)
        x = [j + (i - (len(shown) - 1) / 2) * width for j in range(len(names))]
        colour = _COLOUR[cell.method]
        alpha = 0.9 if cell.density == shown[0].density else 0.5
        axes.bar(x, after, width * 0.9, color=colour, alpha=alpha, label=f"{cell}, after")
        axes.scatter(x, before, s=26, marker="_", color="black", zorder=3)
    axes.scatter([], [], s=26, marker="_", color="black", label="before")
    axes.set_xticks(range(len(names)), names)
    axes.set_ylabel("density")
    _legend_above(axes)
    return svg(figure, "Density of each layer before and after training")


def _saving_figure(results: Results) -> str:
    kinds: tuple[tuple[str, Callable[[Sequence[TrialResult]], float]], ...] = (
        ("inference FLOPs", lambda found: found[0].inference_flops),
        ("training FLOPs", mean_training_flops),
        ("bytes of nonzeros", lambda found: found[0].bytes_needed),
    )
    figure = Figure(figsize=(7.2, 4.2))
    axes = figure.subplots()
    cells = [cell for cell in results if cell != DENSE]
    for i, (label, cost) in enumerate(kinds):
        y = [j + (i - 1) * 0.26 for j in range(len(cells))]
        values = [cost(results[cell]) / cost(results[DENSE]) for cell in cells]
        axes.barh(y, values, 0.24, color=COLOURS[6 - 2 * i], label=label)
    _name_rows(axes, cells)
    axes.set_xlabel("fraction of the dense network's (counted)")
    _legend_above(axes)
    return svg(figure, "Operations and bytes as a fraction of the dense network's")


def _time_figure(ratios: Mapping[str, Sequence[float]]) -> str:
    figure = Figure(figsize=(7.2, 2.8))
    axes = figure.subplots()
    names = list(ratios)
    for i, name in enumerate(names):
        low, middle, high = statistics.quantiles(ratios[name], n=4)
        axes.barh(i, middle, 0.6, color=_COLOUR[name.rpartition(" ")[0] or name])
        axes.plot([low, high], [i, i], color="black", linewidth=1.2)
        axes.annotate(f"{middle:.2f}×", (max(high, middle), i), (6, -4), textcoords="offset points")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel(
        f"seconds a step over the dense network's (measured, {len(ratios[names[0]])} rounds)"
    )
    return svg(figure, "Measured time of a training step")


def _legend_above(axes: Axes) -> None:
    """Above the axes a legend stays in view on a narrow screen."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, columnspacing=1.2)


def _name_rows(axes: Axes, cells: Sequence[Cell]) -> None:
    axes.set_yticks(range(len(cells)), [str(cell) for cell in cells])
    axes.invert_yaxis()
