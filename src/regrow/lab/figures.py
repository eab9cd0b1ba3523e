"""Figures that most studies need: curves with intervals, and values one below the other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from matplotlib.axes import Axes

from regrow.lab.records import Records
from regrow.lab.report import COLOURS
from regrow.lab.statistics import Interval, mean_interval

__all__ = ["Series", "about_runs", "draw_curves", "draw_rows", "legend_above", "series"]

Series = Mapping[str, Mapping[float, Interval]]
"""By label, then by place on the x axis."""

_MARKS = "os^Dv<>P*X"


def series(records: Records, value: str, *, over: str, by: str, factor: float = 1.0) -> Series:
    """Average a value over seeds, for each label and each place on the x axis.

    Args:
        records: of these labels and places only, one a seed.
        value: the field that is averaged.
        over: the field on the x axis; records without a number there are left out.
        by: the field that labels; its values are taken in the order of their names.
        factor: turns the value into its unit, such as 100 for per cent.

    Raises:
        ValueError: a seed occurs twice at one place: the records are of more than one setting.
    """
    found: dict[str, dict[float, Interval]] = {}
    for label in records.distinct(by):
        here = records.where(**{by.replace(".", "__"): label})
        for place in here.distinct(over):
            values = here.where(**{over.replace(".", "__"): place}).values(value)
            if values and isinstance(place, int | float):
                mean = mean_interval(values).times(factor)
                found.setdefault(str(label), {})[float(place)] = mean
    return found


def draw_curves(
    axes: Axes,
    curves: Series,
    *,
    x: str,
    y: str,
    colours: Mapping[str, str] | None = None,
    even: bool = False,
) -> None:
    """Draw means with their intervals as error bars, a line a label.

    Args:
        axes: of matplotlib.
        curves: by label and place, as from :func:`series`.
        x: what the x axis shows, with its unit.
        y: what the y axis shows, with its unit.
        colours: by label; else in the order of `regrow.lab.report.COLOURS`.
        even: set the places at equal distances, as for densities 0.05, 0.1, 0.5.
    """
    chosen = colours or {}
    places = sorted({place for points in curves.values() for place in points})
    for i, (label, points) in enumerate(curves.items()):
        at = [float(places.index(place)) if even else place for place in sorted(points)]
        if even:  # error bars side by side can be told apart
            at = [place + 0.08 * (i - (len(curves) - 1) / 2) for place in at]
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
    axes: Axes, rows: Mapping[str, Interval], *, x: str, zero: float | None = None
) -> None:
    """Draw estimates with their intervals one below the other, a row a label.

    Args:
        axes: of matplotlib; half a centimetre a row is enough.
        rows: by label, from top to bottom.
        x: what is shown, with its unit.
        zero: where to draw the line of "no difference".
    """
    for i, interval in enumerate(rows.values()):
        axes.errorbar(
            interval.mean,
            i,
            xerr=[[e] for e in _errors(interval)],
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


def legend_above(axes: Axes, columns: int = 3) -> None:
    """Put the legend above the axes, where it stays in view on a narrow screen."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, columnspacing=1.2)


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
