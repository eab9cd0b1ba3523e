"""Where rays from a sensor first meet bodies of ellipsoids, bodies of boxes, and the ground."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Body", "ground_hits", "hits"]

Array = npt.NDArray[Any]

_TERMS = (0, 0, 1), (1, 1, 1), (2, 2, 1), (0, 1, 2), (0, 2, 2), (1, 2, 2)
"""Rows, columns and weights of the terms of dᵀ M d, M symmetric."""


@dataclass(frozen=True)
class Body:
    """A body in each frame, in parts that are all ellipsoids or all boxes.

    A part is what a matrix A brings to the unit ball, or to the cube from -1 to 1:
    A (x - centre). For an ellipsoid or a box of half axes h turned by R, A = diag(1/h) Rᵀ.

    Args:
        centres: float, (frames, parts, 3): in the scene, metres.
        scalings: float, (frames, parts, 3, 3): A, one over metres.
        round: ellipsoids; else boxes.
    """

    centres: Array
    scalings: Array
    round: bool = True


def hits(directions: Array, origin: Array, body: Body, frame: int) -> Array:
    """Return the distance at which each ray first meets a body.

    Of an ellipsoid: the smaller root t of |t A d - A c|² = 1; of a box: the largest of the
    distances at which the ray enters the space between two opposite sides.

    Args:
        directions: float, (rays, 3): of length one.
        origin: float, (3,): where all rays start, outside the body.
        body: the body.
        frame: which of its frames.

    Returns:
        float, (rays,): metres; infinite where there is nothing.

    Example:
        >>> ball = Body(np.array([[[5.0, 0, 0]]]), np.eye(3)[None, None])
        >>> rays = np.array([[1.0, 0, 0], [0, 1.0, 0]])
        >>> hits(rays, np.zeros(3), ball, 0).tolist()
        [4.0, inf]
    """
    scalings = body.scalings[frame]
    to = np.einsum("pij,pj->pi", scalings, body.centres[frame] - origin)
    meet = _balls if body.round else _cubes
    return meet(np.ascontiguousarray(directions.T), scalings, to)


def ground_hits(directions: Array, height: float) -> Array:
    """Return the distance at which each ray meets the ground, a plane.

    Args:
        directions: float, (rays, 3): of length one.
        height: of their origin above the ground, metres.
    """
    down = directions[:, 2] < 0
    found = np.full(len(directions), np.inf)
    found[down] = -height / directions[down, 2]
    return found


# Most of the time of a scene is spent below. Rays lie along the last axis, and no array has both
# rays and x, y, z where a product of matrices does: twice to ten times as fast.


def _balls(rays: Array, scalings: Array, to: Array) -> Array:
    form = scalings.swapaxes(1, 2) @ scalings
    weights = np.stack([weight * form[:, i, j] for i, j, weight in _TERMS], 1)
    squared = weights @ np.stack([rays[i] * rays[j] for i, j, _ in _TERMS])
    middle = np.einsum("pij,pi->pj", scalings, to) @ rays
    inside = middle * middle - squared * ((to * to).sum(1, keepdims=True) - 1)
    part, ray = np.nonzero((inside >= 0) & (middle > 0))
    near = (middle[part, ray] - np.sqrt(inside[part, ray])) / squared[part, ray]
    found = np.full(rays.shape[1], np.inf)
    np.minimum.at(found, ray, near)
    return found


def _cubes(rays: Array, scalings: Array, to: Array) -> Array:
    along = scalings @ rays
    # A ray along a side divides by zero: by a tiny number instead, which the bounds outlive.
    along = np.where(np.abs(along) < 1e-12, 1e-12, along)
    middle, half = to[..., None] / along, 1 / np.abs(along)
    enter, leave = (middle - half).max(1), (middle + half).min(1)
    return np.asarray(np.where((enter <= leave) & (enter > 0), enter, np.inf).min(0))
