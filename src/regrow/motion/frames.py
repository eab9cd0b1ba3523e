"""Frames of targets: their place now, their heading along x."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["rotated", "to_scene"]

Array = npt.NDArray[Any]


def rotated(xy: Array, angle: Array | float) -> Array:
    """Return vectors turned counter-clockwise.

    Args:
        xy: shape (..., 2).
        angle: in radians, of a shape that fits (...).

    Example:
        >>> rotated(np.array([1.0, 0.0]), np.pi / 2).round(6).tolist()
        [0.0, 1.0]
    """
    cos, sin = np.cos(angle), np.sin(angle)
    x, y = xy[..., 0], xy[..., 1]
    return np.stack([x * cos - y * sin, x * sin + y * cos], -1)


def to_scene(xy: Array, origin: Array) -> Array:
    """Bring positions in the frame of a target back into the scene.

    Args:
        xy: shape (targets, ..., 2), in metres.
        origin: shape (targets, 4): x, y, z and heading of each frame.

    Example:
        >>> to_scene(np.array([[1.0, 0.0]]), np.array([[5.0, 5.0, 0.0, np.pi / 2]])).round(6)
        array([[5., 6.]])
    """
    shape = (len(origin),) + (1,) * (xy.ndim - 2)
    turned = rotated(np.asarray(xy, dtype=np.float64), origin[:, 3].reshape(shape))
    return np.asarray(turned + origin[:, :2].reshape(*shape, 2))
