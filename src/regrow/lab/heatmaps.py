"""Square matrices drawn as colours, panels side by side under one scale, as a section of a page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.lab.figures import ON_DARK, ON_LIGHT
from regrow.lab.panels import PANEL, SMALL
from regrow.lab.panels import panels as side_by_side
from regrow.lab.section import Section

__all__ = ["Matrix", "heatmaps"]

Matrix = npt.NDArray[np.floating[Any]]

_COLOURS = "cividis"
_WRITTEN = 6  # in a matrix of at most so many rows each cell says its value


def heatmaps(
    title: str,
    text: str,
    panels: Mapping[str, Matrix],
    *,
    scale: str,
    low: float | None = None,
    caption: str = "Means over seeds.",
) -> Iterator[Section]:
    """Draw square matrices whose rows and columns are numbered from 1.

    Args:
        title: of the section.
        text: a paragraph.
        panels: matrices by the panel's heading; NaN leaves a cell empty. Without any there is no
            section.
        scale: what colours show, with its unit.
        low: where colours begin; else at the lowest value of all.
        caption: below the figure.
    """
    from matplotlib.cm import ScalarMappable  # noqa: PLC0415 (an extra, and slow to import)
    from matplotlib.colors import Normalize  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    if not panels:
        return
    limits = (
        min(float(np.nanmin(one)) for one in panels.values()) if low is None else low,
        max(float(np.nanmax(one)) for one in panels.values()),
    )
    drawn = {}
    for name, matrix in panels.items():
        drawn[name] = Figure(figsize=SMALL)
        _draw(drawn[name].subplots(), matrix, *limits)
    bar = Figure(figsize=(PANEL[0], 0.6))
    colours = ScalarMappable(Normalize(*limits), _COLOURS)
    bar.colorbar(colours, cax=bar.subplots(), orientation="horizontal", label=scale)
    figures = side_by_side(drawn, title, kind="small")
    scale_of_all = side_by_side({"": bar}, scale, kind="scale")
    yield Section(title, text, scale_of_all + figures, caption=caption)


def _draw(axes: Any, matrix: Matrix, low: float, high: float) -> None:
    axes.imshow(matrix, vmin=low, vmax=high, cmap=_COLOURS)
    few = len(matrix) <= _WRITTEN
    ticks = range(0, len(matrix), 1 if few else 3)
    axes.set_xticks(ticks, [str(i + 1) for i in ticks], fontsize=7)
    axes.set_yticks(ticks, [str(i + 1) for i in ticks], fontsize=7)
    axes.grid(visible=False)
    for (i, j), value in np.ndenumerate(matrix):
        if few and not np.isnan(value):
            colour = ON_DARK if value < (low + high) / 2 else ON_LIGHT
            axes.text(j, i, f"{value:.0f}", ha="center", va="center", color=colour, fontsize=6)
