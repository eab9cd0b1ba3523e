"""What the network sees of a scene: agents, map and LiDAR points in the frame of each target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.motion.clouds import LidarFeatures, clouds
from regrow.motion.frames import rotated
from regrow.motion.polylines import cut
from regrow.motion.scene import KINDS, STATE, Scene

__all__ = ["Example", "Featurer"]

Array = npt.NDArray[Any]

_X, _HEADING, _VX = STATE.index("x"), STATE.index("heading"), STATE.index("vx")
_AHEAD = 30.0  # metres ahead of a target; map polylines near there are taken

Example = dict[str, Array]
"""Arrays of one scene, a row a target; see :func:`regrow.motion.batches.collate`."""


@dataclass(frozen=True, kw_only=True)
class Featurer:
    """Turns scenes into arrays in the frame of each target: its place now, its heading along x.

    Args:
        past: steps up to now; a shorter past has steps that are not valid before it.
        future: steps to predict; of a shorter future the rest is not valid.
        polylines: of the map, at most: those nearest to a point 30 m ahead.
        lidar: how LiDAR points are given; None: not at all.
        mtr_compat: give back what is mended of MTR: no pedestrian is told as such, accelerations go
            across steps that are not valid, lines break where points are over 1 m apart and have no
            driveways.

    Example:
        >>> from regrow.motion.scene import Scene
        >>> states = np.zeros((1, 13, 9))
        >>> states[0, :, 0], states[0, :, 7] = np.arange(13), 10
        >>> scene = Scene("one", np.arange(13) / 10, 10, np.array([7]), np.array([2]), states,
        ...     np.ones((1, 13), dtype=bool), np.array([0]))
        >>> found = Featurer(future=2)(scene)
        >>> found["agents"].shape, found["future"][0, :, 0].tolist()
        ((1, 1, 11, 29), [1.0, 2.0])
    """

    past: int = 11
    future: int = 80
    polylines: int = 768
    lidar: LidarFeatures | None = None
    mtr_compat: bool = False

    def __post_init__(self) -> None:
        for name in ("past", "future", "polylines"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"{name}={value}: must be at least 1")

    def __call__(self, scene: Scene, rng: np.random.Generator | None = None) -> Example:
        """Return arrays of a scene, a row a target.

        Args:
            scene: with a target at least, all of them valid now.
            rng: draws which points are left where there are too many; None: every n-th.

        Raises:
            ValueError: there is no target, or one is not valid now.
        """
        _check(scene)
        origin = scene.states[scene.targets, scene.now][:, [_X, _X + 1, _X + 2, _HEADING]]
        seen = scene.valid[:, max(0, scene.now + 1 - self.past) : scene.now + 1].any(1)
        kept = np.flatnonzero(seen)
        found = {
            **self._agents(scene, origin, kept),
            **self._futures(scene, origin, kept),
            **self._map(scene, origin),
            "centre": np.searchsorted(kept, scene.targets),
            "kind": scene.kinds[scene.targets].astype(np.int64),
            "origin": origin.astype(np.float64),
            "agent": scene.targets.astype(np.int64),
        }
        if self.lidar is not None:
            found |= clouds(scene, self.lidar, origin, rng)
        return found

    def _agents(self, scene: Scene, origin: Array, kept: Array) -> Example:
        states, valid = _window(scene, kept, scene.now + 1 - self.past, self.past)
        states = _framed(states, origin)
        step = float(scene.times[1] - scene.times[0]) if len(scene.times) > 1 else 0.1
        shape = states.shape[:3]
        heading = states[..., _HEADING]
        parts = [
            states[..., :6],
            np.broadcast_to(self._kinds(scene, kept)[:, :, None], (*shape, 5)),
            np.broadcast_to(_clock(self.past, step), (*shape, self.past + 1)),
            np.stack([np.sin(heading), np.cos(heading)], -1),
            states[..., _VX : _VX + 2],
            self._accelerations(states[..., _VX : _VX + 2], valid, step),
        ]
        agents = np.concatenate(parts, -1) * valid[None, ..., None]
        rows = np.broadcast_to(valid, shape)
        return {"agents": agents.astype(np.float32), "agents_valid": rows.copy()}

    def _kinds(self, scene: Scene, kept: Array) -> Array:
        """Return one-hot kinds, which agent is the target, and which the ego: (targets, agents, 5).

        An agent of the kind "other" has none of the three.
        """
        hot = np.eye(len(KINDS))[scene.kinds[kept]][:, 1:]
        if self.mtr_compat:
            hot[:, KINDS.index("pedestrian") - 1] = 0
        own = kept[None, :] == scene.targets[:, None]
        ego = np.broadcast_to(kept == (-1 if scene.ego is None else scene.ego), own.shape)
        hots = np.broadcast_to(hot, (*own.shape, hot.shape[-1]))
        return np.concatenate([hots, own[..., None], ego[..., None]], -1)

    def _accelerations(self, velocity: Array, valid: Array, step: float) -> Array:
        """Return differences of velocities; 0 where either step is not valid."""
        found = np.diff(velocity, axis=2, prepend=velocity[:, :, :1]) / step
        if self.past == 1:
            return found
        found[:, :, 0] = found[:, :, 1]
        if self.mtr_compat:
            return found
        both = valid & np.concatenate([valid[:, 1:2], valid[:, :-1]], 1)
        return np.asarray(found * both[None, ..., None])

    def _futures(self, scene: Scene, origin: Array, kept: Array) -> Example:
        states, valid = _window(scene, kept, scene.now + 1, self.future)
        states = _framed(states, origin) * valid[None, ..., None]
        others = states[..., [_X, _X + 1, _VX, _VX + 1]].astype(np.float32)
        place, rows = np.searchsorted(kept, scene.targets), np.arange(len(origin))
        return {
            "others": others,
            "others_valid": np.broadcast_to(valid, others.shape[:3]).copy(),
            "future": others[rows, place],
            "future_valid": valid[place],
        }

    def _map(self, scene: Scene, origin: Array) -> Example:
        lines, valid = cut(scene, mtr_compat=self.mtr_compat)
        count = min(self.polylines, len(lines))
        centres = lines[..., :2].sum(1) / np.maximum(valid.sum(1, keepdims=True), 1)
        ahead = origin[:, :2] + rotated(np.array([_AHEAD, 0.0]), origin[:, 3])
        far = np.linalg.norm(centres[None] - ahead[:, None], axis=-1)
        places = np.argsort(far, axis=1, kind="stable")[:, :count]
        lines, valid = lines[places], valid[places]
        shift, cos, sin = origin[:, :3], np.cos(origin[:, 3]), np.sin(origin[:, 3])
        # This is most of the work on a scene: columns are written where they belong.
        found = np.empty(lines.shape, np.float32)
        for x, moves in ((0, True), (3, False), (7, True)):
            one, other = lines[..., x], lines[..., x + 1]
            if moves:
                one, other = one - shift[:, None, None, 0], other - shift[:, None, None, 1]
            found[..., x] = one * cos[:, None, None] + other * sin[:, None, None]
            found[..., x + 1] = other * cos[:, None, None] - one * sin[:, None, None]
        found[..., 2] = lines[..., 2] - shift[:, None, None, 2]
        found[..., 5:7] = lines[..., 5:7]
        found[~valid] = 0
        return {"map": found, "map_valid": valid}


def _check(scene: Scene) -> None:
    if len(scene.targets) == 0:
        raise ValueError(
            f"scene {scene.name}: has no targets; at least one agent must be predicted"
        )
    for place in scene.targets:
        if not scene.valid[place, scene.now]:
            raise ValueError(
                f"scene {scene.name}: target {place} (id {scene.ids[place]}) is not valid at step "
                f"{scene.now}, which is now; leave it out of the targets"
            )


def _window(scene: Scene, kept: Array, first: int, steps: int) -> tuple[Array, Array]:
    """Return states (agents, steps, 9) and validity from a step on; not valid where there is none.

    Steps of an agent that are not valid are 0.
    """
    states, valid = np.zeros((len(kept), steps, len(STATE))), np.zeros((len(kept), steps), bool)
    begin, end = max(first, 0), min(first + steps, len(scene.times))
    if end > begin:
        inside = slice(begin - first, end - first)
        valid[:, inside] = scene.valid[kept, begin:end]
        # Values that are not valid may be NaN, which no product with 0 takes away.
        states[:, inside] = np.where(valid[:, inside, None], scene.states[kept, begin:end], 0)
    return states, valid


def _framed(states: Array, origin: Array) -> Array:
    """Return states (targets, agents, steps, 9) in the frame of each target."""
    turn = -origin[:, 3, None, None]
    position = states[None, ..., :3] - origin[:, None, None, :3]
    sizes = np.broadcast_to(states[..., 3:6], position.shape)
    heading = states[None, ..., _HEADING] + turn
    velocity = np.broadcast_to(states[..., _VX : _VX + 2], (*heading.shape, 2))
    return np.concatenate(
        [
            rotated(position[..., :2], turn),
            position[..., 2:],
            sizes,
            heading[..., None],
            rotated(velocity, turn),
        ],
        -1,
    )


def _clock(steps: int, step: float) -> Array:
    """Return one-hot steps and seconds since the first: (steps, steps + 1)."""
    return np.concatenate([np.eye(steps), np.arange(steps)[:, None] * step], 1)
