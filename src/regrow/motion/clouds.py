"""LiDAR points on targets, as the network is given them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from regrow.motion.frames import rotated
from regrow.motion.scene import KINDS, STATE, Scene

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
    turns, columns = (
        _turns(scene, how, origin, steps),
        [3 + _MEASURED.index(m) for m in how.measured],
    )
    valid[:, late:] = np.arange(shape[2]) < counts[..., None]
    for target, frame in np.argwhere(counts):
        count, turn = int(counts[target, frame]), turns[target, frame]
        cloud = _thinned(scene.points.of(target, int(steps[frame])), count, rng)
        row = found[target, late + frame, :count]
        row[:, :2], row[:, 2] = rotated(cloud[:, :2], -turn), cloud[:, 2]
        row[:, 3 : 3 + len(columns)] = cloud[:, columns]
        row[:, 3 + len(columns) :] = _told(
            scene.kinds[scene.targets[target]], how, turn - origin[target, 3]
        )
    return {"lidar": found, "lidar_valid": valid}


def _told(kind: int, how: LidarFeatures, against: float) -> Array:
    """Return what all points of a cloud have in common."""
    parts = [np.eye(len(KINDS))[kind][1:]] if how.kind else []
    if how.keep_angle:
        parts.append(np.array([np.sin(against), np.cos(against)]))
    return np.concatenate([np.zeros(0), *parts])


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


def _thinned(cloud: Array, count: int, rng: np.random.Generator | None) -> Array:
    if len(cloud) <= count:
        return cloud
    if rng is not None:
        return np.asarray(cloud[rng.choice(len(cloud), count, replace=False)])
    return np.asarray(cloud[np.linspace(0, len(cloud) - 1, count).astype(np.int64)])
