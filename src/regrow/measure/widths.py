"""The largest network that still fits a budget, whatever is counted."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["largest_width"]


def largest_width(fits: Callable[[int], bool], least: int = 1) -> int:
    """Return the largest width that fits; costs grow with it, and each takes a network to know.

    Args:
        fits: whether a network of a width does.
        least: the smallest width that may be built.

    Raises:
        ValueError: not even the least fits.

    Example:
        >>> largest_width(lambda width: width**2 <= 150)
        12
    """
    if not fits(least):
        raise ValueError(f"least={least}: not even a network of this width fits")
    low, high = least, 2 * least
    while fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
