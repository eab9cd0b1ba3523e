"""Real tracks with made-up bodies, seen by a made-up LiDAR."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.engine.checks import check_integer
from regrow.motion.scene import KINDS, Scene
from regrow.motion.simulator.bodies import NO_ARM, car, cyclist, pedestrian
from regrow.motion.simulator.draws import Purpose, draws
from regrow.motion.simulator.rays import Body
from regrow.motion.simulator.scan import scan
from regrow.motion.simulator.sensor import Sensor
from regrow.motion.simulator.stories import grounded, walked_until

__all__ = ["embody"]

Array = npt.NDArray[Any]

_HEAD_NOISE = np.radians(20)
_PEOPLE = 1.73  # metres, of a body of scale 1


def embody(
    scene: Scene,
    *,
    seed: int = 0,
    near: float = 8.0,
    far: float = 30.0,
    sensor: Sensor | None = None,
) -> Scene:
    """Give the road users of a scene bodies, and its targets the points that a LiDAR sees on them.

    Bodies face where their boxes head, heads too but for noise of 20 degrees: nothing is claimed of
    real gaze, and nothing up to now is taken from what comes after. So the points tell no more than
    the track, which makes such scenes a control: whatever is gained from them is no intent.

    Args:
        scene: with headings that know nothing of the future, as those of ``read_pedestrians``.
        seed: of heads, limbs, the sensor's place and its noise.
        near: metres from the sensor, which is at rest, to the middle of the targets, at least.
        far: metres at most.
        sensor: the LiDAR; None: one like Waymo's.

    Raises:
        ValueError: there is no target, seed is below 0, or near and far are out of order.
    """
    if check_integer(seed, "seed") < 0:
        raise ValueError(f"seed={seed}: must be 0 or more")
    if not 0 < near <= far < np.inf:
        raise ValueError(f"near={near}, far={far}: must be above 0, and near at most far")
    if not len(scene.targets):
        raise ValueError(f"scene {scene.name}: has no target to see points on; leave it out")
    frames = scene.now + 1
    bodies = [
        _body(int(kind), states[:frames], valid[:frames], draws(seed, agent, Purpose.BODY))
        for agent, (kind, states, valid) in enumerate(
            zip(scene.kinds, scene.states.astype(float), scene.valid, strict=True)
        )
    ]
    draw = draws(seed, 0, Purpose.LAYOUT)
    angle, metres = draw.uniform(-np.pi, np.pi), draw.uniform(near, far)
    middle = scene.states[scene.targets, scene.now, :2].mean(0)
    place = middle + metres * np.array([np.cos(angle), np.sin(angle)])
    ground = float(
        (scene.states[..., 2] - scene.states[..., 5] / 2)[scene.targets, scene.now].min()
    )
    level = scene.states[:, :frames].astype(float) - ground * np.eye(scene.states.shape[-1])[2]
    points = scan(
        sensor or Sensor(),
        [None if agent == scene.ego else body for agent, body in enumerate(bodies)],
        level,
        scene.valid[:, :frames],
        scene.targets,
        np.tile(place, (frames, 1)),
        np.zeros(frames),
        lambda target: draws(seed, target, Purpose.RAYS),
    )
    return replace(scene, points=replace(points, sensor=points.sensor + np.array([0, 0, ground])))


def _body(kind: int, states: Array, valid: Array, draw: np.random.Generator) -> Body:
    """Return a body that fits a box; where the box is not known it is nowhere that counts."""
    places, headings = grounded(states[:, :2]), states[:, 6]
    size = states[valid][-1, 3:6] if valid.any() else np.ones(3)
    name = KINDS[kind]
    if name in ("vehicle", "other"):
        return car(places, headings, np.maximum(size, 0.1))
    scale, start = float(np.clip(size[2] / _PEOPLE, 0.4, 1.3)), draw.uniform(0, 2)
    gone = start + walked_until(places)
    if name == "cyclist":
        return cyclist(places, headings, gone, NO_ARM, scale)
    head = headings + draw.normal(0, _HEAD_NOISE)
    return pedestrian(places, headings, head, gone, scale)
