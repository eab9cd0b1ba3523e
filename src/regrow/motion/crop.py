"""Cuts the LiDAR points on each agent to predict out of whole sweeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.motion.scene import Points, Scene, plausible

__all__ = ["MARGIN", "Sweep", "crop"]

Array = npt.NDArray[Any]

MARGIN = 0.15
"""Metres by which a box grows on every side before points are cut out, as in LiMTR."""


@dataclass(frozen=True)
class Sweep:
    """All LiDAR points of one frame, in that frame's own vehicle frame.

    Args:
        points: float, (points, 6): x, y, z in the vehicle, range in metres, intensity, elongation.
        pose: float, (4, 4): from the vehicle to the scene.
        sensor: float, (3,): where the sensor is in the vehicle, in metres.
    """

    points: Array
    pose: Array
    sensor: Array

    def __post_init__(self) -> None:
        if self.points.ndim != 2 or self.points.shape[1] != 6:
            raise ValueError(f"points: has shape {self.points.shape}; must be (points, 6)")
        if self.pose.shape != (4, 4) or not plausible(self.pose).all():
            raise ValueError(f"pose: has shape {self.pose.shape}; must be (4, 4), all on Earth")
        if self.sensor.shape != (3,):
            raise ValueError(f"sensor: has shape {self.sensor.shape}; must be (3,)")


def crop(
    sweeps: Sequence[Sweep | None],
    scene: Scene,
    *,
    margin: float = MARGIN,
    most: int | None = None,
    seed: int = 0,
) -> Points | None:
    """Return the points in the box of each target in each frame up to now.

    A box is upright in the frame's vehicle frame, as in LiMTR. A target without a valid state in a
    frame has no points there; in a frame without a sweep nobody has, and the sensor counts as where
    it was in the nearest frame that has one.

    Args:
        sweeps: one for each step up to now; None: there is none.
        scene: its targets' boxes.
        margin: metres by which boxes grow on every side.
        most: points of a target in a frame to keep, chosen at random; None: all.
        seed: of the choice.

    Returns:
        The points, float32; None where there is no sweep at all.

    Raises:
        ValueError: there are more or fewer sweeps than steps up to now.
    """
    if len(sweeps) != scene.now + 1:
        raise ValueError(
            f"scene {scene.name}: has {len(sweeps)} LiDAR frames; must be {scene.now + 1}, one for "
            "each step up to now, None where one is missing"
        )
    there = [step for step, sweep in enumerate(sweeps) if sweep is not None]
    if not there:
        return None
    rng = np.random.default_rng(seed)
    found = [
        [_kept(part, most, rng) for part in _frame(sweep, scene, step, margin)]
        for step, sweep in enumerate(sweeps)
    ]
    parts = [frame[target] for target in range(len(scene.targets)) for frame in found]
    counts = [len(part) for part in parts]
    nearest = [min(there, key=lambda other: abs(other - step)) for step in range(scene.now + 1)]
    return Points(
        values=np.concatenate([np.zeros((0, 6), np.float32), *parts]),
        counts=np.array(counts, np.int64).reshape(len(scene.targets), scene.now + 1),
        sensor=np.stack([_sensor(sweeps[step]) for step in nearest]),
    )


def _frame(sweep: Sweep | None, scene: Scene, step: int, margin: float) -> list[Array]:
    """Return the points on each target in one frame."""
    nothing = np.zeros((0, 6), np.float32)
    if sweep is None:
        return [nothing] * len(scene.targets)
    ahead = np.ascontiguousarray(sweep.points[:, 0])  # most points are out by this alone
    return [
        _inside(sweep, ahead, scene.states[agent, step], margin)
        if scene.valid[agent, step]
        else nothing
        for agent in scene.targets
    ]


def _inside(sweep: Sweep, ahead: Array, state: Array, margin: float) -> Array:
    turn, shift = sweep.pose[:3, :3], sweep.pose[:3, 3]
    centre = (state[:3] - shift) @ turn
    heading = state[6] - np.arctan2(turn[1, 0], turn[0, 0])
    half = state[3:6] / 2 + margin
    reach = np.hypot(half[0], half[1])
    near = np.flatnonzero((ahead >= centre[0] - reach) & (ahead <= centre[0] + reach))
    points = sweep.points[near[np.abs(sweep.points[near, 1] - centre[1]) <= reach]]
    offset = points[:, :3] - centre
    along = offset[:, 0] * np.cos(heading) + offset[:, 1] * np.sin(heading)
    across = offset[:, 1] * np.cos(heading) - offset[:, 0] * np.sin(heading)
    inside = (np.abs(np.stack([along, across, offset[:, 2]], axis=1)) <= half).all(1)
    return np.concatenate([offset[inside] @ turn.T, points[inside, 3:]], axis=1).astype(np.float32)


def _kept(points: Array, most: int | None, rng: np.random.Generator) -> Array:
    if most is None or len(points) <= most:
        return points
    chosen: Array = points[np.sort(rng.permutation(len(points))[:most])]
    return chosen


def _sensor(sweep: Sweep | None) -> Array:
    assert sweep is not None
    place: Array = sweep.pose[:3, :3] @ sweep.sensor + sweep.pose[:3, 3]
    return place
