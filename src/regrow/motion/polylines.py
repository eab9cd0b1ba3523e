"""Map lines, cut into polylines of 20 points."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.motion.scene import LINES, Scene

__all__ = ["POINTS", "cut", "filled"]

POINTS = 20
"""Points of a polyline, at most."""

_GAP = 1.0  # metres

Array = npt.NDArray[Any]


def filled(points: Array, lengths: Array, gap: float = _GAP) -> tuple[Array, Array]:
    """Put points, evenly spaced, where two of a line are farther apart than a gap.

    Args:
        points: of all lines, shape (n, 3), in metres.
        lengths: int, shape (lines,): points of each line.
        gap: the longest one left, in metres, along the ground.

    Returns:
        Points and lengths of the same lines.

    Example:
        >>> points, lengths = filled(np.array([[0.0, 0, 0], [2.5, 0, 0]]), np.array([2]))
        >>> points[:, 0].round(2).tolist(), lengths.tolist()
        ([0.0, 0.83, 1.67, 2.5], [4])
    """
    step = np.diff(points, axis=0, append=points[-1:])
    ends = np.cumsum(lengths)[lengths > 0] - 1
    step[ends] = 0  # nothing leads from one line to the next
    far = np.linalg.norm(step[:, :2], axis=1)
    parts = np.maximum(np.ceil(far / gap - 1e-9), 1).astype(np.int64)
    share = _counted(parts) / np.repeat(parts, parts)
    found = np.repeat(points, parts, axis=0) + np.repeat(step, parts, axis=0) * share[:, None]
    return found, np.bincount(_numbers(lengths), parts, len(lengths)).astype(np.int64)


def cut(scene: Scene, *, mtr_compat: bool = False) -> tuple[Array, Array]:
    """Cut the lines of a scene's map into polylines of at most 20 points.

    Args:
        scene: whose lines are connected: gaps over 1 m are filled with points.
        mtr_compat: break lines at such gaps, and leave driveways out, which MTR refuses.

    Returns:
        Points, shape (polylines, 20, 9): position, direction from the point before, kind of the
        line, position of the point before; and which are valid, bool, shape (polylines, 20). One
        polyline without valid points where there is no map.

    Differs from MTR: lines that end where others begin are not joined.
    """
    points, lengths, kinds = scene.line_points, scene.line_lengths, scene.line_kinds
    if mtr_compat:
        kept = kinds != LINES["driveway"]
        points, lengths, kinds = points[np.repeat(kept, lengths)], lengths[kept], kinds[kept]
    if not len(points):
        return np.zeros((1, POINTS, 9)), np.zeros((1, POINTS), dtype=bool)
    if not mtr_compat:
        points, lengths = filled(points, lengths)
    step = np.diff(points, axis=0, prepend=points[:1])
    begins = _counted(lengths) == 0
    step[begins] = 0
    begins |= np.linalg.norm(step[:, :2], axis=1) > _GAP + 1e-6
    rows = np.zeros((len(points), 9))
    rows[:, :3], rows[:, 6] = points, kinds[_numbers(lengths)]
    rows[:, 3:6] = step / np.maximum(np.linalg.norm(step, axis=1, keepdims=True), 1e-6)
    place = _counted(np.diff(np.flatnonzero(begins), append=len(points))) % POINTS
    rows[:, 7:] = points[np.arange(len(points)) - (place > 0), :2]
    piece = np.cumsum(place == 0) - 1
    lines = np.zeros((piece[-1] + 1, POINTS, 9))
    valid = np.zeros(lines.shape[:2], dtype=bool)
    lines[piece, place], valid[piece, place] = rows, True
    return lines, valid


def _numbers(lengths: Array) -> Array:
    """Return the line of each point.

    Example:
        >>> _numbers(np.array([2, 0, 1])).tolist()
        [0, 0, 2]
    """
    return np.repeat(np.arange(len(lengths)), lengths)


def _counted(lengths: Array) -> Array:
    """Return the place of each point in its line.

    Example:
        >>> _counted(np.array([3, 2])).tolist()
        [0, 1, 2, 0, 1]
    """
    starts = np.cumsum(lengths) - lengths
    return np.asarray(np.arange(int(lengths.sum())) - np.repeat(starts, lengths))
