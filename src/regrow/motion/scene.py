"""A scene: road users over time, the map around them, LiDAR points on those to predict."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["FARTHEST", "KINDS", "LINES", "STATE", "Points", "Scene", "plausible"]

KINDS = ("other", "vehicle", "pedestrian", "cyclist")
"""Kinds of road users; a kind is stored as its place here."""

STATE = ("x", "y", "z", "length", "width", "height", "heading", "vx", "vy")
"""What a state holds, in metres, radians and metres a second, in one frame for the whole scene."""

LINES = {
    "unknown": -1,
    "freeway": 1,
    "street": 2,
    "bike lane": 3,
    "broken white": 6,
    "solid white": 7,
    "double white": 8,
    "broken yellow": 9,
    "broken double yellow": 10,
    "solid yellow": 11,
    "double yellow": 12,
    "passing double yellow": 13,
    "road edge": 15,
    "median": 16,
    "stop sign": 17,
    "crosswalk": 18,
    "speed bump": 19,
    "driveway": 20,
}
"""Kinds of map lines and the numbers they are stored by, which are MTR's; driveways are ours."""

FARTHEST = 1e7
"""No number of a published scene is beyond this, which is 10,000 km in metres."""

Array = npt.NDArray[Any]


def plausible(numbers: Array) -> npt.NDArray[np.bool_]:
    """Return which rows of numbers are finite and not beyond ``FARTHEST``, as damage makes them.

    Args:
        numbers: float, (..., columns).

    Example:
        >>> plausible(np.array([[1.0, 2.0], [np.nan, 2.0], [1e30, 2.0]])).tolist()
        [True, False, False]
    """
    good: npt.NDArray[np.bool_] = np.asarray((np.abs(numbers) <= FARTHEST).all(-1))
    return good


@dataclass(frozen=True)
class Points:
    """LiDAR points on each target in each frame up to now.

    Args:
        values: float, (points, 6): x, y, z from the centre of the target's box in that frame,
            along the axes of the scene, in metres; range in metres, intensity, elongation.
            Points of one target and frame lie together, targets outermost.
        counts: int, (targets, frames): how many there are; the last frame is now.
        sensor: float, (frames, 3): where the sensor was in each frame, in the scene.
    """

    values: Array
    counts: Array
    sensor: Array

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.shape[1] != 6:
            raise ValueError(f"values: has shape {self.values.shape}; must be (points, 6)")
        if self.counts.ndim != 2 or int(self.counts.sum()) != len(self.values):
            raise ValueError(
                f"counts: shape {self.counts.shape}, sum {int(self.counts.sum())}; must be "
                f"(targets, frames) with sum {len(self.values)}, the number of points"
            )
        if self.sensor.shape != (self.counts.shape[1], 3):
            raise ValueError(
                f"sensor: has shape {self.sensor.shape}; must be ({self.counts.shape[1]}, 3)"
            )

    def of(self, target: int, frame: int) -> Array:
        """Return the points of one target in one frame, (points, 6)."""
        start = int(self.starts()[target, frame])
        return self.values[start : start + int(self.counts[target, frame])]

    def starts(self) -> Array:
        """Return where the points of each target and frame begin, shape (targets, frames)."""
        return self.counts.cumsum().reshape(self.counts.shape) - self.counts


@dataclass(frozen=True)
class Scene:
    """Road users over some seconds, with the map around them.

    All positions are in one frame, right-handed, z up, headings counter-clockwise from x.

    Args:
        name: of the scene, unique in its data set.
        times: float, (steps,): seconds, evenly spaced.
        now: the present step; steps up to it are seen, those after it are to be predicted.
        ids: int, (agents,).
        kinds: int, (agents,): places in ``KINDS``.
        states: float, (agents, steps, 9): see ``STATE``; zero where not valid.
        valid: bool, (agents, steps).
        targets: int, (targets,): agents to predict.
        ego: the agent that carries the sensors, None where it is not among the agents.
        line_points: float, (points, 3): of all map lines, one after the other.
        line_lengths: int, (lines,): points of each line.
        line_kinds: int, (lines,): values of ``LINES``.
        points: LiDAR points on the targets; None where there is no LiDAR.

    Raises:
        ValueError: shapes do not fit, a target or ``now`` is outside, or valid states are not
            finite.
    """

    name: str
    times: Array
    now: int
    ids: Array
    kinds: Array
    states: Array
    valid: Array
    targets: Array
    ego: int | None = None
    line_points: Array = field(default_factory=lambda: np.zeros((0, 3)))
    line_lengths: Array = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    line_kinds: Array = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    points: Points | None = None

    def __post_init__(self) -> None:
        agents, steps, lines = len(self.ids), len(self.times), len(self.line_lengths)
        wanted = {
            "times": (steps,),
            "ids": (agents,),
            "kinds": (agents,),
            "states": (agents, steps, len(STATE)),
            "valid": (agents, steps),
            "line_points": (int(self.line_lengths.sum()), 3),
            "line_kinds": (lines,),
        }
        for name, shape in wanted.items():
            if (found := getattr(self, name).shape) != shape:
                raise ValueError(f"scene {self.name}: {name} has shape {found}; must be {shape}")
        if not 0 <= self.now < steps:
            raise ValueError(f"scene {self.name}: now={self.now}; must be 0 to {steps - 1}")
        if len(self.targets) and not (self.targets.min() >= 0 and self.targets.max() < agents):
            raise ValueError(
                f"scene {self.name}: targets={self.targets.tolist()}; must be 0 to {agents - 1}"
            )
        bad = self.valid & ~np.isfinite(self.states).all(-1)
        if bad.any():
            agent, step = np.argwhere(bad)[0]
            raise ValueError(
                f"scene {self.name}: states[{agent}, {step}] is not finite though it is valid; "
                "mark it as not valid"
            )
        if self.points is not None and self.points.counts.shape != (
            shape := (len(self.targets), self.now + 1)
        ):
            raise ValueError(
                f"scene {self.name}: points of shape {self.points.counts.shape}; must be {shape}, "
                "targets by frames up to now"
            )

    def lines(self) -> Iterator[tuple[int, Array]]:
        """Give each map line's kind and points, (points, 3)."""
        ends = np.cumsum(self.line_lengths)
        for kind, end, length in zip(self.line_kinds, ends, self.line_lengths, strict=True):
            yield int(kind), self.line_points[end - length : end]

    def arrays(self) -> dict[str, Array]:
        """Return all arrays by name, those of the points included."""
        own = {f.name: getattr(self, f.name) for f in fields(self)}
        found = {k: v for k, v in own.items() if isinstance(v, np.ndarray)}
        if self.points is not None:
            found |= {f"points_{f.name}": getattr(self.points, f.name) for f in fields(self.points)}
        return found
