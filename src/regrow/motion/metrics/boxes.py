"""Says which rectangles on the ground overlap, and which way predicted points head."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["headings", "overlaps"]

Array = npt.NDArray[Any]


def overlaps(one: Array, other: Array) -> npt.NDArray[np.bool_]:
    """Return whether rectangles share an area; touching is none, nor has a rectangle of no area.

    Two rectangles are apart iff a line along a side of one separates them.

    Args:
        one: float, (..., 5): x, y, length, width, heading.
        other: float, (..., 5), to be broadcast with ``one``.

    Example:
        >>> still = np.array([0.0, 0.0, 4.0, 2.0, 0.0])
        >>> overlaps(still, np.array([[3.9, 0.0, 4, 2, 0], [4.0, 0.0, 4, 2, 0]])).tolist()
        [True, False]
    """
    offset = other[..., :2] - one[..., :2]
    turn = other[..., 4] - one[..., 4]
    cosine, sine = np.abs(np.cos(turn)), np.abs(np.sin(turn))
    met = np.asarray((one[..., 2:4] > 0).all(-1) & (other[..., 2:4] > 0).all(-1))
    for mine, theirs in ((one, other), (other, one)):
        along = offset[..., 0] * np.cos(mine[..., 4]) + offset[..., 1] * np.sin(mine[..., 4])
        across = offset[..., 1] * np.cos(mine[..., 4]) - offset[..., 0] * np.sin(mine[..., 4])
        length, width = theirs[..., 2], theirs[..., 3]
        met = met & (2 * np.abs(along) < mine[..., 2] + length * cosine + width * sine)
        met = met & (2 * np.abs(across) < mine[..., 3] + length * sine + width * cosine)
    return met


def headings(points: Array) -> Array:
    """Return the heading at each point of a path: the mean angle of the ways to and from it.

    Args:
        points: float, (..., steps, 2), at least two steps; ends have one way only.

    Example:
        >>> path = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
        >>> np.degrees(headings(path)).round().tolist()
        [0.0, 45.0, 90.0]
    """
    way = np.diff(points, axis=-2)
    angle = np.arctan2(way[..., 1], way[..., 0])
    come = np.concatenate([angle[..., :1], angle], axis=-1)
    go = np.concatenate([angle, angle[..., -1:]], axis=-1)
    mean: Array = np.arctan2(np.sin(come) + np.sin(go), np.cos(come) + np.cos(go))
    return mean
