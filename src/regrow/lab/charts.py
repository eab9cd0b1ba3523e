"""The figures and tables that pages of studies are made of, each a section of the page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from regrow.lab.claims import Claim, Verdict
from regrow.lab.effects import Effect
from regrow.lab.figures import COLOURS, Curves, about_runs, draw_curves, draw_rows, svg
from regrow.lab.records import Record
from regrow.lab.section import Details, Section, Table, estimate
from regrow.lab.statistics import Interval
from regrow.lab.view import View

__all__ = [
    "COSTS",
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

_STYLES = (":", "--", "-.")
_COLUMNS = 3
_SEEDS = 3


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
    """Give each name a colour that can be told from the others, the same on all figures."""
    more = (*COLOURS[2:], *COLOURS[:2], "#b0a000", "#c9b3a0", "#8b6fb3", "#000000")
    return dict(zip(names, more, strict=False)) | chosen


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
    from matplotlib.figure import Figure  # noqa: PLC0415 (an extra, and slow to import)

    panels = {name: lines for name, lines in panels.items() if lines}
    if not panels:
        return
    columns = min(len(panels), _COLUMNS)
    down = -(-len(panels) // columns)
    figure = Figure(figsize=(7.2, 4.3 if columns < _COLUMNS and down == 1 else 0.9 + 2.9 * down))
    grid = figure.subplots(down, columns, squeeze=False, sharey=same_y).ravel()
    shown: list[Interval] = []
    for axes, (name, lines) in zip(grid, panels.items(), strict=False):
        shown += [interval for points in lines.values() for interval in points.values()]
        draw_curves(axes, lines, x=x, y=y, colours=colours, even=even and not log_x)
        places = sorted({float(place) for points in lines.values() for place in points})
        at = {place: float(i) if even and not log_x else place for i, place in enumerate(places)}
        shown += _draw_levels(axes, (levels or {}).get(name, {}), at, band)
        if zero:
            axes.axhline(0.0, color="black", linewidth=0.8)
        if log_x:
            _log_places(axes, lines)
        elif not even and all(place.is_integer() for place in places):
            axes.xaxis.get_major_locator().set_params(integer=True)
        if limits:
            axes.set_ylim(*limits)
        if len(panels) > 1 or name:
            axes.set_title(name, fontsize=10)
        if same_y:
            axes.label_outer(remove_inner_ticks=False)
            axes.set_xlabel(x)
        elif axes not in grid[::columns]:
            axes.set_ylabel("")
    for axes in grid[len(panels) :]:
        axes.remove()
    _legend(figure, grid[: len(panels)])
    caption = " ".join(part for part in (about_runs(shown), note) if part)
    yield Section(title, text, svg(figure, title), caption=caption)


def rows(
    title: str,
    text: str,
    panels: Mapping[str, Mapping[str, Interval]],
    *,
    x: str,
    zero: float | Mapping[str, float] | None = 0.0,
    band: float | None = None,
    cut: float | None = None,
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
        cut: the x axis ends at ± this.
        caption: below the figure; else of how many runs the means are.
        mark: the row that is shaded.
        details: of the section.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 (an extra, and slow to import)

    panels = {name: estimates for name, estimates in panels.items() if estimates}
    if not panels:
        return
    names = list(dict.fromkeys(name for estimates in panels.values() for name in estimates))
    figure = Figure(figsize=(7.2, 0.9 + 0.26 * len(names)))
    grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axes, (name, estimates) in zip(grid, panels.items(), strict=True):
        here = zero.get(name) if isinstance(zero, Mapping) else zero
        draw_rows(axes, {row: estimates.get(row) for row in names}, x=x, zero=here)
        if band:
            axes.axvspan(-band, band, color="#e8e8e8", zorder=0)
        if cut:
            low, high = axes.get_xlim()
            axes.set_xlim(max(low, -cut), min(high, cut))
        if mark in names:
            place = names.index(mark)
            axes.axhspan(place - 0.5, place + 0.5, color="#f1f1f1", zorder=0)
        if name:
            axes.set_title(name, fontsize=10)
    if caption is None:
        shown = (one for estimates in panels.values() for one in estimates.values())
        caption = about_runs(shown)
        caption += f" What lies beyond ±{cut:g} is cut off." if cut else ""
    yield Section(title, text, svg(figure, title), caption=caption, details=details)


def _draw_levels(
    axes: Any, levels: Levels, at: Mapping[float, float], band: str | None
) -> Iterator[Interval]:
    """Draw black lines, places at their coordinates; yield the one whose interval is shaded."""
    for style, (label, level) in zip(_STYLES, levels.items(), strict=False):
        line: dict[str, Any] = {"color": "black", "lw": 1, "ls": style, "label": label}
        if not isinstance(level, Interval):
            axes.plot([at[place] for place in level], list(level.values()), **line)
            continue
        axes.axhline(level.mean, **line)
        if label == band:
            axes.axhspan(level.low, level.high, color="#e8e8e8", zorder=0)
            yield level


def _legend(figure: Any, grid: Iterable[Any]) -> None:
    """Put one legend for all panels above them."""
    handles: dict[str, Any] = {}
    for axes in grid:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    longest = max(map(len, handles), default=0)
    columns = 4 if longest <= 22 else 3 if longest <= 28 else 2
    figure.legend(
        list(handles.values()), list(handles), loc="outside upper left", ncols=columns, fontsize=9
    )


def _log_places(axes: Any, lines: Curves) -> None:
    places = sorted({place for points in lines.values() for place in points})
    axes.set_xscale("log")
    axes.set_xticks(places, [f"{place:g}" for place in places])
    axes.minorticks_off()


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
    """Write what each task says of the claims by itself; nothing where there is one task or none.

    A mean over tasks is as uncertain as the most uncertain of them; this shows what the others say.
    """
    tasks = view.by("task")
    if len(tasks) < 2:
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
