"""Scenes made up: road users at a crossing whose bodies tell what they will do, seen by a LiDAR."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.engine.checks import check_integer
from regrow.motion.scene import KINDS, Points, Scene
from regrow.motion.simulator.cast import OTHERS, draw_arms, draw_cast
from regrow.motion.simulator.crossing import Road, map_lines
from regrow.motion.simulator.draws import Purpose, draws
from regrow.motion.simulator.rays import Body
from regrow.motion.simulator.scan import scan
from regrow.motion.simulator.stories import Story, Track
from regrow.motion.simulator.world import Truth, World

__all__ = ["STEP", "simulate"]

Array = npt.NDArray[Any]

STEP = 0.1
"""Seconds from one step to the next."""

_PAST, _FUTURE = 10, 80
_SEEN = _PAST + 1  # steps up to now
_TIMES = np.arange(-_PAST, _FUTURE + 1) * STEP  # seconds from now
_PLACE_NOISE, _SPEED_NOISE = 0.02, 0.05  # of a tracker: metres, metres a second


def simulate(seed: int, world: World = World()) -> tuple[Scene, tuple[Truth, ...]]:  # noqa: B008
    """Make up a scene; one seed is one scene, whatever else is made before or beside it.

    First the intent is drawn, then the cue that the body gives of it, then the future. Box, track
    up to now and map are drawn apart from the intent: they say nothing of it where the map leaves
    more than one way open. Two worlds that differ in reliability only give, with one seed, the
    same scene up to the cues.

    Args:
        seed: 0 or more.
        world: what scenes are made of.

    Returns:
        The scene, 11 steps up to now and 80 after at 10 Hz; and what was drawn for each target.

    Raises:
        ValueError: seed is below 0.

    Example:
        >>> scene, told = simulate(1)
        >>> scene.states.shape[1:], len(scene.targets) == len(told)
        ((91, 9), True)
    """
    if check_integer(seed, "seed") < 0:
        raise ValueError(f"seed={seed}: must be 0 or more")
    draw = draws(seed, 0, Purpose.LAYOUT)
    arms = draw_arms(draw, world.limited)
    cast = draw_cast(seed, world, arms, draw)
    truths, actors = zip(*(_act(seed, n, story, arms, world) for n, story in cast), strict=True)
    targets = np.array([i for i, (number, _) in enumerate(cast) if 0 < number < OTHERS])
    states = np.stack([actor.states for actor in actors])
    places, headings = cast[0][1].track(1, _TIMES[:_SEEN])
    points = scan(
        world.sensor,
        [None, *(actor.body for actor in actors[1:])],
        states[:, :_SEEN],
        np.ones((len(cast), _SEEN), dtype=bool),
        targets,
        places,
        headings,
        lambda target: draws(seed, cast[target][0], Purpose.RAYS),
    )
    scene = _scene(seed, arms, states, [story.kind for _, story in cast], targets, points)
    return _moved(scene, draw), tuple(truths[i] for i in targets)


# ---------------------------------------------------------------------- what happens


@dataclass(frozen=True)
class _Actor:
    """A road user as a tracker has it, (steps, 9), and its body up to now."""

    states: Array
    body: Body


def _act(
    seed: int, number: int, story: Story, arms: Sequence[Road], world: World
) -> tuple[Truth, _Actor]:
    own = partial(draws, seed, number)
    ways = story.open(arms)
    intent = int(own(Purpose.INTENT).choice(ways))
    reliability = world.reliability if len(ways) > 1 else 0.0
    cue = _cue(own(Purpose.CUE), intent, story.cues, reliability)
    drawn = own(Purpose.BODY)
    scale = float(np.clip(drawn.normal(1, 0.05), 0.85, 1.15))
    track = story.track(intent, _TIMES)
    body = story.body(cue, (track[0][:_SEEN], track[1][:_SEEN]), scale, drawn)
    truth = Truth(type(story).__name__.lower(), intent, cue, len(ways))
    return truth, _Actor(_states(story, track, scale, own(Purpose.BOX)), body)


def _cue(draw: np.random.Generator, intent: int, cues: int, reliability: float) -> int:
    """Return the intent, or with the rest of the probability another."""
    if not cues:
        return -1
    right, other = draw.random() < max(reliability, 1 / cues), int(draw.integers(1, cues))
    return intent if right else (intent + other) % cues


def _states(story: Story, track: Track, scale: float, draw: np.random.Generator) -> Array:
    """Return what a tracker has up to now, with its noise, and what happens after."""
    places, course = track
    steps = np.diff(places, axis=0) / STEP
    speeds = np.concatenate([steps[:1], steps])  # up to a step: none knows of the next
    moving = np.linalg.norm(speeds, axis=1) > 0.1
    headings = story.box_heading(course, draw)
    headings[_SEEN:] = np.where(moving, course, headings)[_SEEN:]
    noise = draw.normal(0, _PLACE_NOISE, (_SEEN, 3)), draw.normal(0, _SPEED_NOISE, (_SEEN, 2))
    size = story.size(scale) + draw.normal(0, 0.02, 3)
    states = np.zeros((len(_TIMES), 9))
    states[:, :2], states[:, 2], states[:, 3:6] = places, size[2] / 2, size
    states[:, 6], states[:, 7:] = (headings + np.pi) % (2 * np.pi) - np.pi, speeds
    states[:_SEEN, :3] += noise[0] * (1, 1, 0.5)
    states[:_SEEN, 7:] += noise[1]
    return states


def _scene(
    seed: int,
    arms: tuple[Road, ...],
    states: Array,
    kinds: Sequence[str],
    targets: Array,
    points: Points,
) -> Scene:
    lines = list(map_lines(arms))
    flat = np.concatenate([line for _, line in lines])
    return Scene(
        name=f"simulated-{seed}",
        times=(_TIMES - _TIMES[0]).round(9),
        now=_PAST,
        ids=np.arange(len(states)),
        kinds=np.array([KINDS.index(kind) for kind in kinds]),
        states=states,
        valid=np.ones(states.shape[:2], dtype=bool),
        targets=targets,
        ego=0,
        line_points=np.concatenate([flat, np.zeros((len(flat), 1))], 1),
        line_lengths=np.array([len(line) for _, line in lines]),
        line_kinds=np.array([kind for kind, _ in lines]),
        points=points,
    )


def _moved(scene: Scene, draw: np.random.Generator) -> Scene:
    """Turn and shift a scene: no direction and no place is special."""
    angle, shift = float(draw.uniform(-np.pi, np.pi)), draw.uniform(-100, 100, 2)
    turn = np.array([(np.cos(angle), np.sin(angle)), (-np.sin(angle), np.cos(angle))])
    assert scene.points is not None

    def moved(values: Array, by: Array, columns: slice = slice(2)) -> Array:
        values = values.copy()
        values[..., columns] = values[..., columns] @ turn + by
        return values.astype(np.float32)

    states = moved(moved(scene.states, shift), np.zeros(2), slice(7, 9))
    states[..., 6] = (states[..., 6] + angle + np.pi) % (2 * np.pi) - np.pi
    points = replace(
        scene.points,
        values=moved(scene.points.values, np.zeros(2)),
        sensor=moved(scene.points.sensor, shift),
    )
    return replace(scene, states=states, line_points=moved(scene.line_points, shift), points=points)
