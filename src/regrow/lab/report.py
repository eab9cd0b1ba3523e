"""One self-contained HTML page: text, figures, tables. No script, no request, nothing to install.

Everything put into a page is escaped, except figures, which are drawn here.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, TypeVar

import jinja2
from markupsafe import escape
from matplotlib import rc_context
from matplotlib.figure import Figure

from regrow.lab.claims import Claim, Verdict
from regrow.lab.records import Records
from regrow.lab.statistics import Interval

__all__ = [
    "COLOURS",
    "Folded",
    "Section",
    "Table",
    "cell",
    "claims_html",
    "figure_style",
    "gathered",
    "if_there",
    "page",
    "section_html",
    "svg",
]

T = TypeVar("T")

# Colour-blind safe (Okabe & Ito 2008), in the order of their use.
COLOURS = ("#444444", "#999999", "#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#0072b2", "#d55e00")


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


def cell(interval: Interval | None) -> str:
    """Write an estimate for a table: mean ± half the interval, and n; a dash for none.

    Example:
        >>> cell(Interval(71.25, 70.75, 71.75, 5)), cell(Interval(-1.0, -1.0, -1.0, 1)), cell(None)
        ('71.25 ± 0.50 (5)', '−1.00 (1)', '–')
    """
    if interval is None:
        return "–"
    mean = f"{interval.mean:.2f}".replace("-", "−")
    if interval.n == 1:
        return f"{mean} (1)"
    return f"{mean} ± {interval.half_width:.2f} ({interval.n})"


def if_there(look_up: Callable[[], T]) -> T | None:
    """Return what is looked up in records, or None where a ValueError says that there are none.

    Example:
        >>> if_there(lambda: max([3, 1])), if_there(lambda: max([]))
        (3, None)
    """
    try:
        return look_up()
    except ValueError:
        return None


@dataclass(frozen=True)
class Folded:
    """A part that is shown when its summary is clicked.

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
        figure: SVG made by :func:`svg`.
        table: a table.
        caption: below the figure: what its marks are, and of how many runs.
        code: a command.
        folded: what few readers want to see.
    """

    title: str
    text: str
    figure: str | None = None
    table: Table | None = None
    caption: str = ""
    code: str = ""
    folded: Sequence[Folded] = ()


def gathered(
    records: Records, parts: Sequence[Callable[[Records], Iterable[Section]]]
) -> list[Section]:
    """Return the sections of all parts of a page, in their order."""
    return [section for part in parts for section in part(records)]


def page(
    title: str,
    source: str,
    findings: Sequence[str],
    sections: Sequence[Section],
    footer: str,
    claims: Sequence[tuple[Claim, Verdict]] = (),
    appendix: Sequence[Section] = (),
) -> str:
    """Make the page.

    Args:
        title: its heading.
        source: what the results are of.
        findings: what was found, in sentences, above everything else.
        sections: the parts, figures first.
        footer: where the results came from and how to make them again.
        claims: what was claimed, and the verdict on it.
        appendix: the parts below the claims.

    Returns:
        HTML.

    Example:
        >>> "&lt;b&gt;" in page("<b>", "", [], [], "")
        True
    """
    return _template("report.html.jinja").render(
        title=title,
        source=source,
        findings=findings,
        sections=sections,
        footer=footer,
        claims=claims,
        appendix=appendix,
    )


def section_html(section: Section) -> str:
    """Write a section without its heading, for a page of another make.

    Example:
        >>> section_html(Section("Title", "1 < 2")).strip()
        '<p>1 &lt; 2</p>'
    """
    return str(_parts().body(section))


def claims_html(judged: Sequence[tuple[Claim, Verdict]]) -> str:
    """Write claims with their rules and verdicts, for a page of another make."""
    return str(_parts().claims(judged))


@functools.cache  # a page of the documentation has many sections
def _template(name: str) -> jinja2.Template:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("regrow.lab", ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template(name)


def _parts() -> Any:
    return _template("parts.html.jinja").module


def figure_style() -> AbstractContextManager[None]:
    """Draw figures in one style, whatever the user's own settings are."""
    return rc_context(fname=str(files("regrow.lab").joinpath("regrow.mplstyle")))


def svg(figure: Figure, title: str) -> str:
    """Turn a figure into an SVG element that scales with the page.

    Args:
        figure: a matplotlib figure.
        title: what it shows, for those who cannot see it.
    """
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    drawing = out.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    head, rest = drawing.split(">", 1)
    return f'{head} role="img" aria-label="{escape(title)}">{rest}'
