"""Draws tables as plain text."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["draw"]


def draw(rows: Sequence[Sequence[str]]) -> str:
    """Draw rows under each other, the first column to the left, others to the right.

    Args:
        rows: equally many cells in each; the first row is the header.

    Example:
        >>> print(draw([("weight", "units"), ("0.weight", "64"), ("2.weight", "1,024")]))
        weight    units
        0.weight     64
        2.weight  1,024
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for name, *rest in rows:
        cells = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *cells]).rstrip())
    return "\n".join(lines)
