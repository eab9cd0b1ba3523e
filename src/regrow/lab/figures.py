"""Drawing: curves with intervals, and values one below the other, in one style for all pages."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.resources import files
from statistics import median
from textwrap import fill
from typing import TYPE_CHECKING, TypeAlias

from regrow.lab.statistics import Interval

if TYPE_CHECKING:  # drawing needs the extra "report", listing studies does not
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "BAND",
    "COLOURS",
    "ON_DARK",
    "ON_LIGHT",
    "ROW",
    "Curves",
    "Look",
    "about_runs",
    "draw_curves",
    "draw_rows",
    "figure_style",
    "on_page",
    "reach",
    "svg",
]

# Colour-blind safe (Okabe & Ito 2008), in the order of their use.
COLOURS = ("#444444", "#999999", "#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#0072b2", "#d55e00")
BAND = "#e8e8e8"
ON_DARK, ON_LIGHT = "#fefefe", "#010101"
"""Text on a ground of its own, whatever the page's is."""

Curves: TypeAlias = Mapping[str, Mapping[float, Interval]]
"""By label, then by place on the x axis."""

# What a page draws in colours of its own, light or dark: names of parts.css.
_OF_THE_PAGE = {
    "#000000": "currentColor",
    "#ffffff": "var(--paper,#fff)",
    "#e6e6e6": "var(--grid,#e6e6e6)",
    BAND: f"var(--band,{BAND})",
    "#444444": "var(--grey,#444)",
    "#0072b2": "var(--blue,#0072b2)",
}
_NEEDLESS = re.compile(
    r"<!--.*?-->|<metadata>.*?</metadata>"
    r'| id="(?:figure|axes|patch|line2d|text|legend|matplotlib\.axis|xtick|ytick|LineCollection|'
    r'PathCollection|FillBetweenPolyCollection|PolyCollection|QuadMesh)_\d+"',
    re.DOTALL,
)
_LINE = 44  # characters of an axis's label in a line
ROW = 30  # characters of a row's name in a line


@dataclass(frozen=True)
class Look:
    """How a line is drawn, wherever it is.

    Args:
        colour: as matplotlib takes it, in hexadecimal digits.
        mark: of its points, a sign of matplotlib; empty for a line without.
        dash: a line style of matplotlib; empty for points alone.
    """

    colour: str
    mark: str = ""
    dash: str = "-"


def figure_style() -> AbstractContextManager[None]:
    """Draw figures in one style, whatever the user's own settings are."""
    from matplotlib import rc_context  # noqa: PLC0415 (an extra, and slow to import)

    return rc_context(fname=str(files("regrow.lab").joinpath("regrow.mplstyle")))


def on_page(colour: str) -> str:
    """Name a colour as a page knows it, where that has one for light and one for dark.

    Example:
        >>> on_page("#000000"), on_page("#e69f00")
        ('currentColor', '#e69f00')
    """
    return _OF_THE_PAGE.get(colour, colour)


def svg(figure: Figure, title: str, dark: Mapping[str, str] | None = None) -> str:
    """Turn a figure into an SVG element that scales with the page and takes its colours.

    Args:
        figure: a matplotlib figure.
        title: what it shows, for those who cannot see it.
        dark: colours on a dark page by those that are drawn, in hexadecimal digits, beside those
            that every page knows.
    """
    from markupsafe import escape  # noqa: PLC0415 (an extra)

    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    drawing = out.getvalue()
    drawing = re.sub(r"\s*\n\s*", " ", _NEEDLESS.sub("", drawing[drawing.index("<svg") :]))
    for light, other in (dark or {}).items():  # said twice: an old browser passes over the second
        pair = rf"\1: {light}; \1: light-dark({light}, {other})"
        drawing = re.sub(rf"\b(fill|stroke): {light}\b", pair, drawing)
    for colour, name in _OF_THE_PAGE.items():
        if colour not in (dark or {}):
            drawing = drawing.replace(f": {colour}", f": {name}")
    head, rest = drawing.replace("> <", "><").split(">", 1)
    return f'{head} role="img" aria-label="{escape(title)}">{rest.rstrip()}'


def draw_curves(
    axes: Axes,
    curves: Curves,
    *,
    x: str,
    y: str,
    looks: Mapping[str, Look],
    places: Sequence[float] = (),
) -> None:
    """Draw means with their intervals as error bars, a line a label.

    Args:
        axes: of matplotlib.
        curves: by label and place.
        x: what the x axis shows, with its unit.
        y: what the y axis shows, with its unit.
        looks: by label.
        places: set at equal distances, as densities 0.05, 0.1, 0.5; none: where they are.
    """
    for i, (label, points) in enumerate(curves.items()):
        at = [float(places.index(place)) if places else place for place in sorted(points)]
        if places:  # error bars side by side can be told apart
            apart = min(0.08, 0.5 / len(curves))
            at = [place + apart * (i - (len(curves) - 1) / 2) for place in at]
        intervals = [points[place] for place in sorted(points)]
        look = looks[label]
        axes.errorbar(
            at,
            [interval.mean for interval in intervals],
            yerr=list(zip(*map(_errors, intervals), strict=True)),
            marker=look.mark,
            linestyle=look.dash,
            markersize=3.6,
            linewidth=1.0,
            elinewidth=0.8,
            capsize=1.8,
            capthick=0.8,
            color=look.colour,
            label=label,
        )
    if places:
        axes.set_xticks(range(len(places)), [f"{place:g}" for place in places])
    axes.set(xlabel=fill(x, _LINE), ylabel=fill(y, _LINE))


def draw_rows(
    axes: Axes, rows: Mapping[str, Interval], *, x: str, zero: float | None = None
) -> None:
    """Draw estimates with their intervals one below the other, a row a label.

    A mean that lies far from all others is written at the edge, with an arrow.

    Args:
        axes: of matplotlib.
        rows: by label, from top to bottom.
        x: what is shown, with its unit.
        zero: where to draw the line of "no difference".
    """
    low, high = reach(rows.values(), () if zero is None else (zero,), outliers=True)
    for place, interval in enumerate(rows.values()):
        inside = low <= interval.mean <= high
        if not inside:
            left = interval.mean < low
            mark, side = ("<", "left") if left else (">", "right")
            edge = low if left else high
            axes.plot([edge], [place], marker=mark, ms=4, color=COLOURS[6], clip_on=False)
            words = f"  {interval.mean:.3g}  ".replace("-", "−")
            axes.text(edge, place, words, ha=side, va="center", size="small")
            continue
        axes.errorbar(
            [interval.mean],
            [place],
            xerr=[[error] for error in _errors(interval)],
            fmt="o",
            capsize=2,
            elinewidth=1.0,
            color=COLOURS[6],
            ms=3.8,
        )
    if zero is not None:
        axes.axvline(zero, color="black", linewidth=0.8)
    axes.set_xlim(low, high)
    axes.set_yticks(range(len(rows)), [fill(name, ROW) for name in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(fill(x, ROW))


def reach(
    intervals: Iterable[Interval], also: Iterable[float] = (), *, outliers: bool = False
) -> tuple[float, float]:
    """Return from where to where an axis goes: no single bar makes all others small.

    All means are on it, and intervals as far as they reach no further beyond than the means lie
    apart, or twice the median interval.

    Args:
        intervals: what is drawn.
        also: values that are on the axis, too.
        outliers: leave out the few means that lie ten times further from the middle half of all
            means than that is wide.

    Example:
        >>> one = Interval(1.0, 0.0, 2.0, 3)
        >>> low, high = reach([one, one, one, Interval(1.0, -99.0, 101.0, 2)])
        >>> -3 < low < high < 4
        True
    """
    shown = list(intervals)
    half = median([one.half_width for one in shown if one.n > 1] or [0.0])
    if outliers:
        shown = _near(shown, half)
    means = [*(one.mean for one in shown), *also]
    if not means:
        return 0.0, 1.0
    room = max(max(means) - min(means), 2 * half) or abs(means[0]) or 1.0
    down, up = zip(*map(_errors, shown), strict=True) if shown else ((0.0,), (0.0,))
    lows = [one.mean - error for one, error in zip(shown, down, strict=True)]
    highs = [one.mean + error for one, error in zip(shown, up, strict=True)]
    low = max(min([*lows, *means]), min(means) - room)
    high = min(max([*highs, *means]), max(means) + room)
    margin = 0.05 * (high - low) or 0.05 * room
    return low - margin, high + margin


def _near(shown: list[Interval], half: float) -> list[Interval]:
    """Leave out those whose mean is far from the middle half of all means, if these are few."""
    means = sorted(one.mean for one in shown)
    if len(means) < 4:
        return shown
    first, third = means[len(means) // 4], means[-1 - len(means) // 4]
    far = 10 * max(third - first, half)
    near = [one for one in shown if first - far <= one.mean <= third + far]
    return near if far and len(shown) - len(near) <= max(len(shown) // 10, 1) else shown


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
