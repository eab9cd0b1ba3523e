"""LiDAR points on targets, as the network is given them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from regrow.motion.frames import rotated
from regrow.motion.scene import KINDS, STATE, Points, Scene

__all__ = ["LidarFeatures", "clouds"]

Array = npt.NDArray[Any]

_HEADING = STATE.index("heading")
_MEASURED = ("range", "intensity", "elongation")


@dataclass(frozen=True, kw_only=True)
class LidarFeatures:
    """How LiDAR points on a target are given to the network.

    Args:
        frames: how many, evenly spread over those up to now; the last one is now.
        points: of a frame, at most; more are thinned out.
        turn: the frame of a cloud: "box" turns it by the heading of its box, as LiMTR does;
            "sight" looks along the line of sight from the sensor.
        keep_angle: give sine and cosine of that turn against the target's frame to every point.
            Without them the network cannot tell how a body stands to the target's course.
        measured: which of "range", "intensity" and "elongation" points have.
        kind: whether points have the kind of their target, one-hot.

    Raises:
        ValueError: a choice is unknown or a number below 1.
    """

    frames: int = 11
    points: int = 256
    turn: Literal["box", "sight"] = "box"
    keep_angle: bool = True
    measured: tuple[str, ...] = ("intensity",)
    kind: bool = True

    def __post_init__(self) -> None:
        if self.frames < 1 or self.points < 1:
            raise ValueError(f"frames={self.frames}, points={self.points}: must be at least 1")
        if self.turn not in ("box", "sight"):
            raise ValueError(f"turn={self.turn!r}: must be 'box' or 'sight'")
        if unknown := set(self.measured) - set(_MEASURED):
            raise ValueError(f"measured: {sorted(unknown)}; must be of {', '.join(_MEASURED)}")

    @property
    def channels(self) -> int:
        """Channels of a point.

        Example:
            >>> LidarFeatures().channels, LidarFeatures(keep_angle=False).channels
            (9, 7)
        """
        return 3 + len(self.measured) + 3 * self.kind + 2 * self.keep_angle

    def steps(self, now: int) -> Array:
        """Return the steps whose points are taken, shape (frames,) or fewer.

        Example:
            >>> LidarFeatures(frames=3).steps(10), LidarFeatures(frames=1).steps(10)
            (array([ 0,  5, 10]), array([10]))
        """
        if self.frames == 1:
            return np.array([now])
        return np.unique(np.linspace(0, now, self.frames).round().astype(np.int64))


def clouds(
    scene: Scene, how: LidarFeatures, origin: Array, rng: np.random.Generator | None = None
) -> dict[str, Array]:
    """Return the LiDAR points on the targets of a scene.

    Args:
        scene: without points nothing is valid.
        how: they are given.
        origin: shape (targets, 4): x, y, z and heading of each target's frame.
        rng: draws which points are left where there are too many; None: every n-th.

    Returns:
        ``lidar``, float32, shape (targets, frames, points, channels): x, y, z from the centre of
        the box, turned; what was measured; the kind; sine and cosine. And ``lidar_valid``, bool,
        shape (targets, frames, points). Frames that the past is too short for come first, empty.
    """
    steps = how.steps(scene.now)
    counts = np.zeros((len(scene.targets), len(steps)), dtype=np.int64)
    if scene.points is not None:
        counts = np.minimum(scene.points.counts[:, steps], how.points)
    late = how.frames - len(steps)
    shape = len(counts), how.frames, max(1, int(counts.max(initial=0)))
    found, valid = np.zeros((*shape, how.channels), np.float32), np.zeros(shape, bool)
    if scene.points is None:
        return {"lidar": found, "lidar_valid": valid}
    valid[:, late:] = np.arange(shape[2]) < counts[..., None]
    # All points at once: a call for each of the many clouds takes longer than what it computes.
    each = counts.ravel()
    points = scene.points.values[_kept(scene.points, steps, each, rng)]
    turn = np.repeat(_turns(scene, how, origin, steps).ravel(), each)
    target = np.repeat(np.arange(len(counts)), counts.sum(1))
    columns = [3 + _MEASURED.index(m) for m in how.measured]
    parts = [rotated(points[:, :2], -turn), points[:, 2:3], points[:, columns]]
    if how.kind:
        parts.append(np.eye(len(KINDS))[scene.kinds[scene.targets]][target, 1:])
    if how.keep_angle:
        against = turn - origin[target, 3]
        parts.append(np.stack([np.sin(against), np.cos(against)], -1))
    found[valid] = np.concatenate(parts, 1)
    return {"lidar": found, "lidar_valid": valid}


def _kept(points: Points, steps: Array, most: Array, rng: np.random.Generator | None) -> Array:
    """Return the places of the points that are left, cloud after cloud: at most so many of each."""
    starts, there = points.starts()[:, steps].ravel(), points.counts[:, steps].ravel()
    return np.concatenate(
        [np.zeros(0, np.int64), *map(partial(_thinned, rng), starts, there, most)]
    )


def _thinned(rng: np.random.Generator | None, start: int, there: int, most: int) -> Array:
    if there <= most:
        return np.arange(start, start + there)
    if rng is not None:
        return np.asarray(start + rng.choice(there, most, replace=False))
    return np.asarray(start + np.linspace(0, there - 1, most).astype(np.int64))


def _turns(scene: Scene, how: LidarFeatures, origin: Array, steps: Array) -> Array:
    """Return the angle, in the scene, of each cloud's x axis: shape (targets, frames)."""
    assert scene.points is not None
    states, valid = (x[scene.targets][:, steps] for x in (scene.states, scene.valid))
    now = np.broadcast_to(origin[:, None, 3], valid.shape)
    if how.turn == "box":
        return np.where(valid, states[..., _HEADING], now)
    xy = np.where(valid[..., None], states[..., :2], origin[:, None, :2])
    away = xy - scene.points.sensor[steps, :2]
    return np.asarray(np.arctan2(away[..., 1], away[..., 0]))
