"""Parts of a report page, as plain data: sections, tables, and numbers written for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from regrow.lab.statistics import Interval

__all__ = ["Details", "Section", "Table", "bracketed", "counted", "duration", "estimate"]

_PHONE = 38  # characters of a table's line on a phone
_HEADING = 14  # characters that a row's heading gets at least


@dataclass(frozen=True)
class Table:
    """A table; cells are text and are escaped.

    Args:
        columns: headings.
        rows: one tuple a row; the first cell is the row's heading.
        note: what a reader must know to read it.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    @property
    def wide(self) -> bool:
        """Whether it is too wide for a phone, so that its rows are set below one another there.

        Example:
            >>> Table(("", "a", "b"), [("row", "1.00", "2.00")]).wide
            False
        """
        columns = zip(self.columns, *self.rows, strict=True)
        widths = [max(max(map(len, words.split()), default=0) for words in own) for own in columns]
        cells = [max((len(row[i]) for row in self.rows), default=0) for i in range(1, len(widths))]
        needed = sum(map(max, widths[1:], cells)) + min(max(widths[:1], default=0), _HEADING)
        return needed + 2 * len(widths) > _PHONE


@dataclass(frozen=True)
class Details:
    """A part of a section that is hidden until its summary is clicked.

    Args:
        summary: what is inside.
        text: shown as it is, such as a traceback.
        table: a table.
    """

    summary: str
    text: str = ""
    table: Table | None = None


@dataclass(frozen=True)
class Section:
    """A part of a page: a heading, a paragraph, and what it speaks of.

    Args:
        title: the heading.
        text: a paragraph.
        figure: SVG made by :func:`regrow.lab.figures.svg`.
        table: a table.
        caption: below the figure: what its marks are, and of how many runs.
        code: a command.
        details: what few readers want to see.
    """

    title: str
    text: str
    figure: str | None = None
    table: Table | None = None
    caption: str = ""
    code: str = ""
    details: Sequence[Details] = ()


def estimate(interval: Interval | None) -> str:
    """Write an estimate for a table: mean ± half the interval, and n; a dash for none.

    Example:
        >>> estimate(Interval(71.25, 70.75, 71.75, 5)), estimate(None)
        ('71.25 ± 0.50 (5)', '–')
    """
    if interval is None:
        return "–"
    mean = f"{interval.mean:.2f}".replace("-", "−")
    if interval.n == 1:
        return f"{mean} (1)"
    return f"{mean} ± {interval.half_width:.2f} ({interval.n})"


def bracketed(interval: Interval, digits: int) -> str:
    """Write an estimate with its interval, which need not lie evenly around it.

    Example:
        >>> bracketed(Interval(812.3, 790.0, 820.4, 10), 0), bracketed(Interval(0.5, 0, 1, 1), 2)
        ('812 [790, 820]', '0.50')
    """
    mean, low, high = (
        f"{value:.{digits}f}".replace("-", "−")
        for value in (interval.mean, interval.low, interval.high)
    )
    return mean if interval.n == 1 else f"{mean} [{low}, {high}]"


def counted(count: int, word: str) -> str:
    """Write how many there are of something.

    Example:
        >>> counted(1, "scene"), counted(2000, "scene")
        ('1 scene', '2,000 scenes')
    """
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    """Write how long something took, for a sentence.

    Example:
        >>> duration(8.3), duration(150)
        ('8 seconds', '2.5 minutes')
    """
    return f"{seconds:.0f} seconds" if seconds < 100 else f"{seconds / 60:.1f} minutes"
