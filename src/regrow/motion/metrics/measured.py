"""Measures the predictions of one scene: a row an agent, from which any mean can be taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.motion.metrics.boxes import headings, overlaps
from regrow.motion.metrics.rules import Rules
from regrow.motion.metrics.shapes import shapes_of
from regrow.motion.scene import Scene

__all__ = ["Measured", "check_predictions", "joined", "measure"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Measured:
    """What was measured of each agent; NaN: the truth is not known there.

    Args:
        scenes: str, (agents,): names of their scenes.
        ids: int, (agents,): of the agents in their scenes.
        kinds: int, (agents,): places in ``KINDS``.
        shapes: int, (agents,): of their futures, places in ``SHAPES``; -1: not known.
        speeds: float, (agents,): now, in m/s; NaN where the agent is not seen now.
        ranges: float, (agents,): metres now from the vehicle with the sensors; NaN: not known.
        points: int, (agents,): LiDAR points in all frames; -1: the scene has no LiDAR.
        scores: float32, (agents, modes): of the predictions; NaN where there are fewer.
        min_ade: float, (agents, steps): in metres, of the best prediction.
        min_fde: float, (agents, steps): in metres, of the best prediction.
        miss: float, (agents, steps): 1: no prediction is within the thresholds, else 0.
        overlap: float, (agents, steps): 1: the surest prediction meets another agent, else 0.
        matched: int8, (agents, steps, modes): 1: within the thresholds, 0: not; -1: not known.
    """

    scenes: Array
    ids: Array
    kinds: Array
    shapes: Array
    speeds: Array
    ranges: Array
    points: Array
    scores: Array
    min_ade: Array
    min_fde: Array
    miss: Array
    overlap: Array
    matched: Array

    def __len__(self) -> int:
        return len(self.ids)

    def where(self, chosen: Array) -> Measured:
        """Return the rows of some agents.

        Args:
            chosen: bool or int, an index of rows.
        """
        return Measured(**{f.name: getattr(self, f.name)[chosen] for f in fields(self)})


def joined(parts: Sequence[Measured], rules: Rules) -> Measured:
    """Return the rows of all parts; without parts there are none."""
    if not parts:
        return _empty(rules)
    names = [f.name for f in fields(Measured)]
    return Measured(**{n: np.concatenate([getattr(part, n) for part in parts]) for n in names})


def measure(
    scene: Scene, trajectories: Array, scores: Array, rules: Rules | None = None
) -> Measured:
    """Measure the predictions of a scene as Waymo does.

    Args:
        scene: with its future.
        trajectories: float, (targets, modes, points, 2): x and y in metres in the frame of the
            scene, ``rules.every`` steps apart, the first as far from now. Only the first
            ``rules.modes`` count: sort them first.
        scores: float, (targets, modes): the higher, the surer; compared as float32 over all scenes.
        rules: None: Waymo's.

    Raises:
        ValueError: the scene is too short, shapes do not fit, or a prediction is not finite.

    Source: Waymo Open Dataset, motion_metrics.cc; as there, an overlap is looked for with agents
    seen now only, with the true length and width at each step, and the true heading is that of the
    step. Where we differ: what cannot be measured is NaN, not left out.
    """
    rules = rules or Rules()
    trajectories, scores = np.asarray(trajectories, float), np.asarray(scores, np.float32)
    check_predictions(scene, trajectories, scores, needed=rules.steps[-1] + 1)
    _check_future(scene, trajectories.shape[2], rules)
    trajectories, scores = trajectories[:, : rules.modes], scores[:, : rules.modes]
    at = scene.now + rules.every * np.arange(1, trajectories.shape[2] + 1)
    truth, known = scene.states[scene.targets][:, at], scene.valid[scene.targets][:, at]
    offset = trajectories - truth[:, None, :, :2]
    steps = list(rules.steps)
    matched = _matched(offset[:, :, steps], truth[:, steps], known[:, steps], scene, rules)
    misses = 1.0 - (matched == 1).any(-1)
    missing = np.full((len(scores), rules.modes - scores.shape[1]), np.nan, np.float32)
    return Measured(
        scenes=np.full(len(scores), scene.name),
        ids=np.asarray(scene.ids[scene.targets], np.int64),
        kinds=np.asarray(scene.kinds[scene.targets], np.int64),
        shapes=shapes_of(scene.states[scene.targets], scene.valid[scene.targets], scene.now, rules),
        **_present(scene),
        scores=np.concatenate([scores, missing], axis=1),
        min_ade=_min_ade(offset, known)[:, steps],
        min_fde=np.where(known, np.linalg.norm(offset, axis=-1).min(1), np.nan)[:, steps],
        miss=np.where(known[:, steps], misses, np.nan),
        overlap=_overlaps(scene, trajectories, scores, at)[:, steps],
        matched=np.pad(matched, ((0, 0), (0, 0), (0, missing.shape[1])), constant_values=-1),
    )


def _present(scene: Scene) -> dict[str, Array]:
    """Return what results are sorted by: speeds, ranges and LiDAR points of the targets."""
    now, seen = scene.states[scene.targets, scene.now], scene.valid[scene.targets, scene.now]
    ranges = np.full(len(now), np.nan)
    if scene.ego is not None and scene.valid[scene.ego, scene.now]:
        ranges = np.hypot(*(now[:, :2] - scene.states[scene.ego, scene.now, :2]).T)
    return {
        "speeds": np.where(seen, np.hypot(now[:, 7], now[:, 8]), np.nan),
        "ranges": np.where(seen, ranges, np.nan),
        "points": np.full(len(now), -1) if scene.points is None else scene.points.counts.sum(1),
    }


def check_predictions(scene: Scene, trajectories: Array, scores: Array, needed: int) -> None:
    """Check that predictions fit the targets of a scene.

    Args:
        scene: the scene.
        trajectories: (targets, modes, points, 2).
        scores: (targets, modes).
        needed: points at the least.

    Raises:
        ValueError: they do not.
    """
    targets, where = len(scene.targets), f"scene {scene.name}: "
    good = trajectories.ndim == 4 and trajectories.shape[::3] == (targets, 2)
    if not good or trajectories.shape[1] < 1 or trajectories.shape[2] < needed:
        raise ValueError(
            f"{where}trajectories has shape {trajectories.shape}; must be ({targets}, modes, "
            f"points, 2), with one mode and {needed} points or more, for {targets} targets"
        )
    if scores.shape != trajectories.shape[:2]:
        raise ValueError(
            f"{where}scores has shape {scores.shape}; must be {trajectories.shape[:2]}, one a "
            "trajectory"
        )
    for name, values in (("trajectories", trajectories), ("scores", scores)):
        if not np.isfinite(values).all():
            place = tuple(np.argwhere(~np.isfinite(values))[0].tolist())
            raise ValueError(f"{where}{name}{list(place)} is {values[place]}; must be finite")


def _check_future(scene: Scene, points: int, rules: Rules) -> None:
    future = len(scene.times) - 1 - scene.now
    if future < points * rules.every:
        raise ValueError(
            f"scene {scene.name}: has {future} steps after now; {points} predicted points "
            f"every={rules.every} steps need {points * rules.every}: measure a set with futures, "
            "and give the predicted points at that rate only"
        )


def _matched(offset: Array, truth: Array, known: Array, scene: Scene, rules: Rules) -> Array:
    """Return which predictions are within the thresholds, (targets, steps, modes)."""
    start = scene.states[scene.targets, scene.now]
    speed = np.hypot(start[:, 7], start[:, 8])
    share = np.clip((speed - rules.slow) / (rules.fast - rules.slow), 0.0, 1.0)
    scale = (rules.slow_scale + (1 - rules.slow_scale) * share)[:, None, None]
    cosine, sine = np.cos(truth[:, None, :, 6]), np.sin(truth[:, None, :, 6])
    along = np.abs(offset[..., 0] * cosine + offset[..., 1] * sine) / scale
    across = np.abs(offset[..., 1] * cosine - offset[..., 0] * sine) / scale
    near = (across <= np.array(rules.lateral)) & (along <= np.array(rules.longitudinal))
    return np.where(known[:, None], near, -1).swapaxes(1, 2).astype(np.int8)


def _min_ade(offset: Array, known: Array) -> Array:
    """Return the least mean distance up to each step, (targets, points)."""
    distance = np.where(known[:, None], np.linalg.norm(offset, axis=-1), 0.0)
    count = np.cumsum(known, axis=1)
    with np.errstate(invalid="ignore"):  # 0 / 0: nothing is known yet
        least: Array = (np.cumsum(distance, axis=2) / count[:, None]).min(1)
    return least


def _overlaps(scene: Scene, trajectories: Array, scores: Array, at: Array) -> Array:
    """Return whether the surest prediction met another agent up to each step."""
    surest = np.take_along_axis(
        trajectories, scores.argmax(1)[:, None, None, None], axis=1
    ).squeeze(1)
    truth = scene.states[:, at]
    sizes = truth[scene.targets][..., 3:5]
    mine = np.concatenate([surest, sizes, headings(surest)[..., None]], axis=-1)
    others = truth[..., [0, 1, 3, 4, 6]]
    met = overlaps(mine[:, None], others[None]) & (scene.valid[:, at] & scene.valid[:, [scene.now]])
    met[np.arange(len(scene.targets)), scene.targets] = False
    return np.maximum.accumulate(met.any(1), axis=1).astype(float)


def _empty(rules: Rules) -> Measured:
    steps, modes = len(rules.steps), rules.modes
    whole = {name: np.zeros(0, np.int64) for name in ("ids", "kinds", "shapes", "points")}
    one = {name: np.zeros(0) for name in ("speeds", "ranges")}
    by_step = {name: np.zeros((0, steps)) for name in ("min_ade", "min_fde", "miss", "overlap")}
    return Measured(
        scenes=np.zeros(0, "U1"),
        scores=np.zeros((0, modes), np.float32),
        matched=np.zeros((0, steps, modes), np.int8),
        **whole,
        **one,
        **by_step,
    )
