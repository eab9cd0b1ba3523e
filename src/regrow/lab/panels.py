"""Panels: small drawings side by side, as many a row as there is room for, under one legend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from regrow.lab.figures import Look, on_page, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["PANEL", "SMALL", "legend", "panels", "plots"]

PANEL = (3.4, 2.5)
"""Inches of a panel; a page shows it a few times as large, so that its text is read on a phone."""
SMALL = (2.4, 2.3)
"""Inches of a small panel."""

_MARKS = {
    "o": "M12 2.5a3 3 0 1 0 .01 0z",
    "s": "M9.2 2.7h5.6v5.6h-5.6z",
    "^": "M12 2l3.4 6.2h-6.8z",
    "D": "M12 1.6l3.6 3.9l-3.6 3.9l-3.6-3.9z",
    "v": "M12 9l-3.4-6.2h6.8z",
    "<": "M8.6 5.5l6.2-3.4v6.8z",
    ">": "M15.4 5.5l-6.2-3.4v6.8z",
    "P": "M10.8 2h2.4v2.3h2.3v2.4h-2.3v2.3h-2.4v-2.3h-2.3v-2.4h2.3z",
    "X": "M9.2 2.7l5.6 5.6m0-5.6l-5.6 5.6",
    "": "",
}
_DASHES = {"-": "", ":": "1 3", "--": "5 3", "-.": "6 3 1 3"}


def plots(*names: str) -> tuple[dict[str, Figure], list[Axes]]:
    """Make a figure of one panel for each name, for :func:`panels`; and the axes to draw in.

    Example:
        >>> figures, (left, right) = plots("loss", "accuracy")
        >>> list(figures), left.figure is figures["loss"]
        (['loss', 'accuracy'], True)
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 (an extra, and slow to import)

    figures = {name: Figure(figsize=PANEL) for name in names}
    return figures, [figure.subplots() for figure in figures.values()]


def panels(
    drawn: Mapping[str, Figure],
    title: str,
    looks: Mapping[str, Look] | None = None,
    kind: str = "",
    dark: Mapping[str, str] | None = None,
) -> str:
    """Set figures side by side, each below its name, as the figure of a section.

    Args:
        drawn: figures of matplotlib, of `PANEL` inches or close to it, by name; a name may be
            empty.
        title: what all of them show, for those who cannot see it.
        looks: of the lines that are drawn, for the legend.
        kind: "small" for figures of `SMALL` inches, "scale" for a scale of colours.
        dark: colours on a dark page, as :func:`regrow.lab.figures.svg` takes them.

    Returns:
        HTML.
    """
    from markupsafe import escape  # noqa: PLC0415 (an extra)

    cells = []
    for name, figure in drawn.items():
        heading = f'<p class="name">{escape(name)}</p>' if name else ""
        words = f"{title}: {name}" if name else title
        cells.append(f"<div>{heading}{svg(figure, words, dark)}</div>")
    classes = f"panels {kind}".rstrip()
    return f'{legend(looks or {})}<div class="{classes}">{"".join(cells)}</div>'


def legend(looks: Mapping[str, Look]) -> str:
    """Write a legend that wraps like text; nothing for no lines.

    Example:
        >>> "SET" in legend({"SET": Look("#56b4e9", "o")}), legend({})
        (True, '')
    """
    from markupsafe import escape  # noqa: PLC0415 (an extra)

    items = []
    for name, look in looks.items():
        line = f'<path d="M0 5.5H24" stroke-dasharray="{_DASHES[look.dash]}"/>' if look.dash else ""
        mark = f'<path d="{_MARKS[look.mark]}" fill="currentColor"/>' if look.mark else ""
        drawing = (
            '<svg viewBox="0 0 24 11" height="11" aria-hidden="true" fill="none" '
            'stroke="currentColor" stroke-width="1.3" '
            f'style="color:{on_page(look.colour)}">{line}{mark}</svg>'
        )
        items.append(f"<li>{drawing}{escape(name)}</li>")
    return f'<ul class="legend">{"".join(items)}</ul>' if items else ""
