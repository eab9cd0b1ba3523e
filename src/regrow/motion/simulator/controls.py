"""Controls: scenes whose points are taken away, thinned, or those of others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.engine.checks import check_integer
from regrow.motion.scene import Points, Scene

__all__ = ["thinned", "with_points_of", "without_points"]

Array = npt.NDArray[Any]


def without_points(scene: Scene) -> Scene:
    """Return a scene whose LiDAR has seen nothing of those to predict.

    Args:
        scene: with points.

    Raises:
        ValueError: it has no LiDAR.

    Example:
        >>> from regrow.motion.simulator import simulate
        >>> len(without_points(simulate(0)[0]).points.values)
        0
    """
    points = _points(scene)
    return replace(scene, points=_kept(points, np.zeros(len(points.values), dtype=bool)))


def thinned(
    scene: Scene, *, most: int | None = None, frames: int | None = None, seed: int = 0
) -> Scene:
    """Return a scene with fewer points.

    Args:
        scene: with points.
        most: points of a target in a frame; of more a random part is kept; None: all.
        frames: the latest frames, whose points are kept; None: all.
        seed: of the random part.

    Raises:
        ValueError: the scene has no LiDAR; most or frames is below 0.

    Example:
        >>> from regrow.motion.simulator import simulate
        >>> points = thinned(simulate(0)[0], most=20, frames=3).points
        >>> int(points.counts.max()), int(points.counts[:, :8].sum())
        (20, 0)
    """
    points = _points(scene)
    for name, value in (("most", most), ("frames", frames)):
        if value is not None and check_integer(value, name) < 0:
            raise ValueError(f"{name}={value}: must be 0 or more")
    frame = np.tile(np.arange(points.counts.shape[1]), len(points.counts))
    cells = np.repeat(np.arange(points.counts.size), points.counts.ravel())
    kept = np.ones(len(points.values), dtype=bool)
    if most is not None:
        kept &= _place_in_cell(cells, np.random.default_rng(seed)) < most
    if frames is not None:
        kept &= frame[cells] >= points.counts.shape[1] - frames
    return replace(scene, points=_kept(points, kept))


def with_points_of(scene: Scene, other: Scene) -> Scene:
    """Return a scene in which each target has the points of one of its kind in another scene.

    Where the other scene has no more targets of a kind, its first one serves again; where it has
    none, the target is left without points.

    Args:
        scene: with points.
        other: with points, of as many frames.

    Raises:
        ValueError: one of them has no LiDAR, or they differ in frames.

    Example:
        >>> from regrow.motion.simulator import simulate
        >>> scene, other = simulate(0)[0], simulate(1)[0]
        >>> with_points_of(scene, other).points.counts.sum() == other.points.counts.sum()
        np.True_
    """
    own, given = _points(scene), _points(other)
    if own.counts.shape[1] != given.counts.shape[1]:
        raise ValueError(
            f"{other.name}: has {given.counts.shape[1]} frames of points; must be as many as "
            f"{scene.name} has, {own.counts.shape[1]}"
        )
    frames = own.counts.shape[1]
    values: list[Array] = [given.values[:0]]
    counts = np.zeros_like(own.counts)
    for row, donor in enumerate(_donors(_kinds(scene), _kinds(other))):
        if donor is not None:
            values += [given.of(donor, frame) for frame in range(frames)]
            counts[row] = given.counts[donor]
    return replace(scene, points=Points(np.concatenate(values), counts, own.sensor))


def _points(scene: Scene) -> Points:
    if scene.points is None:
        raise ValueError(f"scene {scene.name}: has no LiDAR; give one with points")
    return scene.points


def _kinds(scene: Scene) -> list[int]:
    return [int(kind) for kind in scene.kinds[scene.targets]]


def _donors(wanted: Iterable[int], there: list[int]) -> Iterable[int | None]:
    """Give, for each wanted kind, the next place at which it is there, round and round."""
    places = {kind: [i for i, k in enumerate(there) if k == kind] for kind in set(there)}
    served = dict.fromkeys(places, 0)
    for kind in wanted:
        if kind in places:
            yield places[kind][served[kind] % len(places[kind])]
            served[kind] += 1
        else:
            yield None


def _place_in_cell(cells: Array, draw: np.random.Generator) -> Array:
    """Return a random place of each point among those of its cell, from 0 on."""
    order = np.lexsort([draw.random(len(cells)), cells])
    starts = np.searchsorted(cells, cells)  # they are sorted
    places = np.empty(len(cells), dtype=np.int64)
    places[order] = np.arange(len(cells)) - starts[order]
    return places


def _kept(points: Points, kept: Array) -> Points:
    cells = np.repeat(np.arange(points.counts.size), points.counts.ravel())
    counts = np.bincount(cells[kept], minlength=points.counts.size)
    return Points(points.values[kept], counts.reshape(points.counts.shape), points.sensor)
