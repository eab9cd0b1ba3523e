"""The figures and tables that pages of studies are made of, each a section of the page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, cycle, pairwise
from typing import Any

from regrow.lab.claims import Claim, Verdict
from regrow.lab.effects import Effect
from regrow.lab.figures import (
    BAND,
    COLOURS,
    ROW,
    Curves,
    Look,
    about_runs,
    draw_curves,
    draw_rows,
    reach,
)
from regrow.lab.panels import PANEL
from regrow.lab.panels import panels as side_by_side
from regrow.lab.records import Record
from regrow.lab.section import Details, Section, Table, estimate
from regrow.lab.statistics import Interval
from regrow.lab.view import View

__all__ = [
    "COSTS",
    "LINES",
    "costs",
    "curves",
    "curves_of",
    "palette",
    "rows",
    "rows_of",
    "values_table",
    "verdicts_by_task",
]

Levels = Mapping[str, Interval | Mapping[float, float]]
"""Black lines by label: horizontal ones, or values by place, such as what theory expects."""

COSTS: Mapping[str, Callable[[Record], float | None]] = {
    "training FLOPs": lambda record: record.get("training_flops"),
    "inference FLOPs": lambda record: record.get("inference_flops"),
    "bytes": lambda record: record.get("bytes_needed"),
}
"""What a trained network costs, by the heading of a table's column."""

LINES = 6
"""At most so many lines are in a plot, black ones aside."""

_MARKS = "os^Dv<"
_MORE = (*COLOURS[2:], *COLOURS[:2], "#b0a000", "#c9b3a0", "#8b6fb3", "#000000")
_BLACK = tuple(Look("#000000", "", dash) for dash in (":", "--", "-."))
_CUT = "Bars that leave a plot go on beyond it."


# ---------------------------------------------------------------------- asked of records


def curves_of(
    view: View,
    effect: Callable[[Any, Any], Effect],
    lines: Iterable[Any],
    places: Iterable[float],
) -> Curves:
    """Ask for an effect along an axis, a curve a line; what has no records is left out.

    Args:
        view: records of one task, or of several, over which is averaged.
        effect: makes the effect of a line at a place.
        lines: such as arms.
        places: on the x axis.
    """
    made: dict[str, dict[float, Interval]] = {}
    places = list(places)
    for line in lines:
        for place in places:
            if (interval := effect(line, place).maybe(view)) is not None:
                made.setdefault(str(line), {})[float(place)] = interval
    return made


def rows_of(view: View, effects: Mapping[str, Effect]) -> dict[str, Interval]:
    """Ask for effects by name; what has no records is left out."""
    asked = {name: effect.maybe(view) for name, effect in effects.items()}
    return {name: interval for name, interval in asked.items() if interval is not None}


def palette(names: Iterable[str], **chosen: str) -> dict[str, str]:
    """Give each name a colour, the same on all figures; twelve in a row can be told apart."""
    return dict(zip(names, cycle(_MORE), strict=False)) | chosen


# ---------------------------------------------------------------------- figures


def curves(
    title: str,
    text: str,
    panels: Mapping[str, Curves],
    *,
    x: str,
    y: str,
    colours: Mapping[str, str] | None = None,
    levels: Mapping[str, Levels] | None = None,
    band: str | None = None,
    zero: bool = False,
    even: bool = True,
    same_y: bool = True,
    limits: tuple[float, float | None] | None = None,
    log_x: bool = False,
    note: str = "",
) -> Iterator[Section]:
    """Draw curves with intervals, panels side by side under one legend.

    More than `LINES` lines are parted, in their order, into plots of as many each.

    Args:
        title: of the section.
        text: a paragraph.
        panels: curves by the panel's heading; those without curves are left out, and with none
            there is no section.
        x: what the x axis shows, with its unit.
        y: what the y axis shows, with its unit.
        colours: by label.
        levels: black lines by panel, with their labels.
        band: the label of the level whose interval is shaded.
        zero: draw the line of "no difference".
        even: set places at equal distances.
        same_y: panels share the y axis.
        limits: of the y axis.
        log_x: a logarithmic x axis.
        note: behind the caption.
    """
    panels = {name: lines for name, lines in panels.items() if any(lines.values())}
    if not panels:
        return
    names = list(dict.fromkeys(n for ls in panels.values() for n, points in ls.items() if points))
    chosen = dict(zip(names, _MORE, strict=False)) | dict(colours or {})
    looks = {n: Look(chosen.get(n, COLOURS[0]), _MARKS[i % LINES]) for i, n in enumerate(names)}
    levels = {name: own for name, own in (levels or {}).items() if name in panels}
    black = dict.fromkeys(n for own in levels.values() for n in own)
    looks |= dict(zip(black, cycle(_BLACK), strict=False))
    ends = {
        name: _ends(panels if same_y else {name: lines}, levels, zero)
        for name, lines in panels.items()
    }
    parts = []
    for group in _groups(names):
        drawn = {}
        for name, lines in panels.items():
            own = {n: lines[n] for n in group if lines.get(n)}
            if own:
                axes = _curves_axes(own, looks, x, y, even and not log_x)
                _draw_levels(axes, levels.get(name, {}), looks, own, even and not log_x, band)
                _finish(axes, own, zero, log_x, even)
                axes.set_ylim(*(limits or ends[name]))
                drawn[name] = axes.figure
        used = {*group, *(n for name in drawn for n in levels.get(name, {}))}
        own_looks = {n: look for n, look in looks.items() if n in used}
        parts.append(side_by_side(drawn, title, own_looks))
    shown = [one for ls in panels.values() for points in ls.values() for one in points.values()]
    shaded = [own.get(band) for own in levels.values()] if band else []
    shown += [one for one in shaded if isinstance(one, Interval)]
    cut = not limits and any(_cut(lines, ends[name]) for name, lines in panels.items())
    caption = " ".join(filter(None, (about_runs(shown), _CUT if cut else "", note)))
    yield Section(title, text, "".join(parts), caption=caption)


def rows(
    title: str,
    text: str,
    panels: Mapping[str, Mapping[str, Interval]],
    *,
    x: str,
    zero: float | Mapping[str, float] | None = 0.0,
    band: float | None = None,
    caption: str | None = None,
    mark: str | None = None,
    details: Sequence[Details] = (),
) -> Iterator[Section]:
    """Draw estimates with intervals one below the other, panels side by side.

    Args:
        title: of the section.
        text: a paragraph.
        panels: rows by the panel's heading; without any row there is no section.
        x: what is shown, with its unit.
        zero: where to draw the line of "no difference", in all panels or by panel; None: nowhere.
        band: half the width of a band of differences that do not matter.
        caption: below the figure; else of how many runs the means are.
        mark: the row that is shaded.
        details: of the section.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 (an extra, and slow to import)

    panels = {name: estimates for name, estimates in panels.items() if estimates}
    if not panels:
        return
    drawn, cut = {}, False
    for name, estimates in panels.items():
        height = 0.55 + 0.19 * sum(1 + (len(row) > ROW) for row in estimates)
        drawn[name] = Figure(figsize=(PANEL[0], height))
        axes = drawn[name].subplots()
        here = zero.get(name) if isinstance(zero, Mapping) else zero
        draw_rows(axes, estimates, x=x, zero=here)
        cut |= _cut({"": dict(enumerate(estimates.values()))}, axes.get_xlim())
        if band:
            axes.axvspan(-band, band, color=BAND, zorder=0)
        if mark is not None and mark in estimates:
            place = list(estimates).index(mark)
            axes.axhspan(place - 0.5, place + 0.5, color=BAND, zorder=0)
    if caption is None:
        caption = about_runs(one for own in panels.values() for one in own.values())
    caption = f"{caption} {_CUT}" if cut else caption
    figure = side_by_side(drawn, title)
    yield Section(title, text, figure, caption=caption, details=details)


def _groups(names: Sequence[str]) -> list[Sequence[str]]:
    """Part names, in their order, into as few groups of at most `LINES` as can be, alike in size.

    Example:
        >>> [len(group) for group in _groups("abcdefgh")]
        [4, 4]
    """
    count = -(-len(names) // LINES)
    bounds = [round(i * len(names) / count) for i in range(count + 1)]
    return [names[low:high] for low, high in pairwise(bounds)]


def _curves_axes(lines: Curves, looks: Mapping[str, Look], x: str, y: str, even: bool) -> Any:
    from matplotlib.figure import Figure  # noqa: PLC0415 (an extra, and slow to import)

    axes = Figure(figsize=PANEL).subplots()
    places = sorted({place for points in lines.values() for place in points}) if even else ()
    draw_curves(axes, lines, x=x, y=y, looks=looks, places=places)
    return axes


def _draw_levels(
    axes: Any,
    levels: Levels,
    looks: Mapping[str, Look],
    lines: Curves,
    even: bool,
    band: str | None,
) -> None:
    """Draw black lines: horizontal ones, or through places where these are on the axis."""
    places = sorted({float(place) for points in lines.values() for place in points})
    at = {place: float(i) if even else place for i, place in enumerate(places)}
    for label, level in levels.items():
        line: dict[str, Any] = {"color": "black", "lw": 1, "ls": looks[label].dash, "label": label}
        if not isinstance(level, Interval):
            there = {at[place]: value for place, value in level.items() if place in at}
            axes.plot(list(there), list(there.values()), **line)
            continue
        axes.axhline(level.mean, **line)
        if label == band and level.n > 1:
            axes.axhspan(level.low, level.high, color=BAND, zorder=0)


def _finish(axes: Any, lines: Curves, zero: bool, log_x: bool, even: bool) -> None:
    places = sorted({float(place) for points in lines.values() for place in points})
    if zero:
        axes.axhline(0.0, color="black", linewidth=0.8)
    if log_x:
        axes.set_xscale("log")
        axes.set_xticks(places, [f"{place:g}" for place in places])
        axes.minorticks_off()
    elif not even and all(place.is_integer() for place in places):
        axes.xaxis.get_major_locator().set_params(integer=True)


def _ends(
    panels: Mapping[str, Curves], levels: Mapping[str, Levels], zero: bool
) -> tuple[float, float]:
    """Return where the y axis that panels share ends."""
    shown = [one for ls in panels.values() for points in ls.values() for one in points.values()]
    black = [level for name in panels for level in levels.get(name, {}).values()]
    values = [[one.mean] if isinstance(one, Interval) else one.values() for one in black]
    return reach(shown, [*chain(*values), *([0.0] if zero else [])])


def _cut(lines: Curves, ends: tuple[float, float]) -> bool:
    """Whether an interval goes on beyond the ends of its axis."""
    intervals = [one for points in lines.values() for one in points.values() if one.n > 1]
    return any(one.low < ends[0] or one.high > ends[1] for one in intervals)


# ---------------------------------------------------------------------- tables


def values_table(
    lines: Mapping[str, Sequence[Interval | None]], columns: Sequence[str], note: str = ""
) -> Table:
    """Write estimates as mean ± half the interval and n; a line without any is left out."""
    cells = [(name, *map(estimate, line)) for name, line in lines.items() if any(line)]
    return Table(("", *columns), cells, note)


def costs(
    compared: Mapping[str, tuple[Record | None, Record | None]],
    fields: Mapping[str, Callable[[Record], float | None]] = COSTS,
) -> Table | None:
    """Write what records cost, as fractions of what others cost.

    Args:
        compared: a record and the one that it is held against, by the row's heading; rows that
            lack one are left out.
        fields: read a cost, by the column's heading.

    Returns:
        The table; None if it would have no rows.
    """
    lines = []
    for name, (record, base) in compared.items():
        if record is None or base is None:
            continue
        pairs = [(read(record), read(base)) for read in fields.values()]
        shares = [None if not (one and other) else one / other for one, other in pairs]
        if any(shares):
            lines.append((name, *("–" if s is None else f"{s:.3f}" for s in shares)))
    return Table(("", *fields), lines) if lines else None


def verdicts_by_task(claims: Sequence[Claim], view: View) -> Iterator[Section]:
    """Write what each task says of the claims by itself; nothing of one task, or if none is judged.

    A mean over tasks is as uncertain as the most uncertain of them; this shows what the others say.
    """
    tasks = view.by("task")
    if len(tasks) < 2 or view.gaps.held:
        return
    lines = [
        (claim.sentence, *(_outcome(claim.judge(task, view)) for task in tasks.values()))
        for claim in claims
    ]
    note = (
        "The same rules, each task's records alone. Mean ± half the 95 % interval (seeds); a dash "
        "where a task has no records to judge by."
    )
    yield Section("What each task says", "", table=Table(("", *map(str, tasks)), lines, note))


def _outcome(verdict: Verdict) -> str:
    said = estimate(verdict.effect)
    return f"{verdict.outcome}: {said}" if verdict.effect else said
