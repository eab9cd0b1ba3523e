"""Where rays from a sensor first meet bodies of ellipsoids, bodies of boxes, and the ground."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Body", "ground_hits", "hits"]

Array = npt.NDArray[Any]


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
    along = (directions @ scalings.reshape(-1, 3).T).reshape(len(directions), *to.shape)
    distances = _ball(along, to) if body.round else _cube(along, to)
    return np.asarray(distances.min(1))


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


def _ball(along: Array, to: Array) -> Array:
    squared = np.einsum("rpi,rpi->rp", along, along)
    middle = np.einsum("rpi,pi->rp", along, to)
    inside = middle * middle - squared * ((to * to).sum(-1) - 1)
    met = (inside >= 0) & (middle > 0)
    near = (middle - np.sqrt(np.where(met, inside, 0))) / squared
    return np.asarray(np.where(met, near, np.inf))


def _cube(along: Array, to: Array) -> Array:
    # A ray along a side divides by zero: by a tiny number instead, which the bounds outlive.
    along = np.where(np.abs(along) < 1e-12, 1e-12, along)
    one, other = (to - 1) / along, (to + 1) / along
    enter, leave = np.minimum(one, other).max(-1), np.maximum(one, other).min(-1)
    return np.where((enter <= leave) & (enter > 0), enter, np.inf)
