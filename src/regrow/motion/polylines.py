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


def filled(points: Array, gap: float = _GAP) -> Array:
    """Put points, evenly spaced, where two are farther apart than a gap.

    Args:
        points: shape (n, 3), in metres.
        gap: the longest one left, in metres.

    Example:
        >>> filled(np.array([[0.0, 0, 0], [2.5, 0, 0]]))[:, 0].round(2).tolist()
        [0.0, 0.83, 1.67, 2.5]
    """
    if len(points) < 2:
        return points
    far = np.linalg.norm(np.diff(points[:, :2], axis=0), axis=1)
    parts = np.maximum(np.ceil(far / gap - 1e-9), 1).astype(np.int64)
    starts = np.concatenate([[0], np.cumsum(parts)])
    places = np.interp(np.arange(starts[-1] + 1), starts, np.arange(len(points)))
    low = np.minimum(places.astype(np.int64), len(points) - 2)
    share = (places - low)[:, None]
    return np.asarray(points[low] * (1 - share) + points[low + 1] * share)


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
    parts: list[Array] = []
    for kind, points in scene.lines():
        if len(points) and not (mtr_compat and kind == LINES["driveway"]):
            parts += _parts(points if mtr_compat else filled(points), kind)
    if not parts:
        return np.zeros((1, POINTS, 9)), np.zeros((1, POINTS), dtype=bool)
    lines = np.concatenate([_pieces(part) for part in parts])
    lengths = np.concatenate([_lengths(len(part)) for part in parts])
    valid = np.arange(POINTS) < lengths[:, None]
    lines[:, 1:, 7:] = lines[:, :-1, :2]
    lines[:, 0, 7:] = lines[:, 0, :2]
    return lines * valid[..., None], valid


def _parts(points: Array, kind: int) -> list[Array]:
    """Return rows of 9 for the points of a line, apart where it breaks."""
    step = np.diff(points, axis=0, prepend=points[:1])
    far = np.linalg.norm(step, axis=1, keepdims=True)
    rows = np.zeros((len(points), 9))
    rows[:, :3], rows[:, 3:6], rows[:, 6] = points, step / np.maximum(far, 1e-6), kind
    breaks = np.flatnonzero(np.linalg.norm(step[:, :2], axis=1) > _GAP + 1e-6)
    return np.split(rows, breaks)


def _lengths(points: int) -> Array:
    """Return how many points each polyline of so many has.

    Example:
        >>> _lengths(45).tolist()
        [20, 20, 5]
    """
    return np.minimum(points - np.arange(0, points, POINTS), POINTS)


def _pieces(part: Array) -> Array:
    """Return a line's rows as polylines, filled up with 0: shape (polylines, 20, 9)."""
    missing = -len(part) % POINTS
    return np.pad(part, ((0, missing), (0, 0))).reshape(-1, POINTS, part.shape[1])
