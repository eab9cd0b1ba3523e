"""Drawing: curves with intervals, and values one below the other, in one style for all pages."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from importlib.resources import files
from typing import TYPE_CHECKING, TypeAlias

from regrow.lab.statistics import Interval

if TYPE_CHECKING:  # drawing needs the extra "report", listing studies does not
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "COLOURS",
    "Curves",
    "about_runs",
    "draw_curves",
    "draw_rows",
    "figure_style",
    "svg",
]

# Colour-blind safe (Okabe & Ito 2008), in the order of their use.
COLOURS = ("#444444", "#999999", "#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#0072b2", "#d55e00")

Curves: TypeAlias = Mapping[str, Mapping[float, Interval]]
"""By label, then by place on the x axis."""

_MARKS = "os^Dv<>P*X"


def figure_style() -> AbstractContextManager[None]:
    """Draw figures in one style, whatever the user's own settings are."""
    from matplotlib import rc_context  # noqa: PLC0415 (an extra, and slow to import)

    return rc_context(fname=str(files("regrow.lab").joinpath("regrow.mplstyle")))


def svg(figure: Figure, title: str) -> str:
    """Turn a figure into an SVG element that scales with the page.

    Args:
        figure: a matplotlib figure.
        title: what it shows, for those who cannot see it.
    """
    from markupsafe import escape  # noqa: PLC0415 (an extra)

    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    drawing = out.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    head, rest = drawing.split(">", 1)
    return f'{head} role="img" aria-label="{escape(title)}">{rest}'


def draw_curves(
    axes: Axes,
    curves: Curves,
    *,
    x: str,
    y: str,
    colours: Mapping[str, str] | None = None,
    even: bool = False,
) -> None:
    """Draw means with their intervals as error bars, a line a label.

    Args:
        axes: of matplotlib.
        curves: by label and place.
        x: what the x axis shows, with its unit.
        y: what the y axis shows, with its unit.
        colours: by label; else in the order of `COLOURS`.
        even: set the places at equal distances, as for densities 0.05, 0.1, 0.5.
    """
    chosen = colours or {}
    places = sorted({place for points in curves.values() for place in points})
    for i, (label, points) in enumerate(curves.items()):
        at = [float(places.index(place)) if even else place for place in sorted(points)]
        if even:  # error bars side by side can be told apart
            apart = min(0.08, 0.5 / len(curves))
            at = [place + apart * (i - (len(curves) - 1) / 2) for place in at]
        intervals = [points[place] for place in sorted(points)]
        axes.errorbar(
            at,
            [interval.mean for interval in intervals],
            yerr=list(zip(*map(_errors, intervals), strict=True)),
            fmt=f"{_MARKS[i % len(_MARKS)]}-",
            markersize=4.5,
            linewidth=1.1,
            capsize=2.5,
            color=chosen.get(label, COLOURS[i % len(COLOURS)]),
            label=label,
        )
    if even:
        axes.set_xticks(range(len(places)), [f"{place:g}" for place in places])
    axes.set(xlabel=x, ylabel=y)


def draw_rows(
    axes: Axes, rows: Mapping[str, Interval | None], *, x: str, zero: float | None = None
) -> None:
    """Draw estimates with their intervals one below the other, a row a label.

    Args:
        axes: of matplotlib; half a centimetre a row is enough.
        rows: by label, from top to bottom; None leaves the row empty.
        x: what is shown, with its unit.
        zero: where to draw the line of "no difference".
    """
    places = [i for i, interval in enumerate(rows.values()) if interval is not None]
    shown = [interval for interval in rows.values() if interval is not None]
    axes.errorbar(
        [interval.mean for interval in shown],
        places,
        xerr=list(zip(*map(_errors, shown), strict=True)) or None,
        fmt="o",
        capsize=3,
        color=COLOURS[6],
        ms=5,
    )
    if zero is not None:
        axes.axvline(zero, color="black", linewidth=0.8)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(x)


def about_runs(intervals: Iterable[Interval]) -> str:
    """Say of how many runs intervals are, for a caption.

    Example:
        >>> about_runs([Interval(0, -1, 1, 5), Interval(0, -1, 1, 3)])
        "Means over n = 3 to 5 seeds with 95 % intervals (Student's t)."
    """
    counts: Sequence[int] = sorted({interval.n for interval in intervals})
    if not counts:
        return "No runs."
    if counts[-1] == 1:
        return "One run (n = 1), so no intervals."
    n = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"Means over n = {n} seeds with 95 % intervals (Student's t)."


def _errors(interval: Interval) -> tuple[float, float]:
    """Return how far the interval reaches down and up; a single value has none."""
    if interval.n == 1:
        return 0.0, 0.0
    return max(0.0, interval.mean - interval.low), max(0.0, interval.high - interval.mean)
