"""Stories of people on foot: one stands at a corner, another walks up to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from regrow.motion.simulator import bodies
from regrow.motion.simulator.crossing import CORNER, TURNS, Road, along, corner, pavement, towards
from regrow.motion.simulator.rays import Body
from regrow.motion.simulator.stories import Track, gone, grounded, straight_part, walked_until

__all__ = ["Stand", "Walk"]

Array = npt.NDArray[Any]

_LEFT, _RIGHT = TURNS.index("left"), TURNS.index("right")
_BODY_NOISE, _HEAD_NOISE = np.radians(10), np.radians(8)
_HEAD_TURN = np.radians(60)


class _OnFoot:
    kind: ClassVar[str] = "pedestrian"

    def size(self, scale: float) -> Array:
        """Return length, width and height."""
        return np.array([0.9, 0.85, 1.75 * scale])


@dataclass(frozen=True)
class Stand(_OnFoot):
    """A person stands at a corner, the body turned to where he or she will walk.

    The box of who stands has a heading of its own, which says nothing.

    Args:
        corner: between this arm and the next.
        place: float, (2,).
        start: seconds from now until he or she walks.
        speed: metres a second.
        drift: of the walk from the cue's direction, radians.
    """

    corner: int
    place: Array
    start: float
    speed: float
    drift: float

    cues: ClassVar[int] = 4

    @classmethod
    def drawn(cls, draw: np.random.Generator, arms: Sequence[Road]) -> Stand:
        """Draw one at a corner from which all four ways are open."""
        free = [k for k in range(4) if arms[k].crosswalk and arms[(k + 1) % 4].crosswalk]
        at = int(draw.choice(free))
        spread = draw.uniform(-0.8, 1.2, 2)
        place = corner(at) + spread[0] * towards(at) + spread[1] * towards(at + 1)
        start, speed = draw.uniform(0.3, 2.0), draw.uniform(0.8, 2.0)
        return cls(at, place, float(start), float(speed), float(draw.normal(0, 0.08)))

    def open(self, arms: Sequence[Road]) -> tuple[int, ...]:
        """Return all four: away on two pavements, over two crosswalks."""
        return tuple(range(self.cues))

    def _yaw(self, intent: int) -> float:
        return (self.corner + intent) * np.pi / 2

    def track(self, intent: int, times: Array) -> Track:
        """Return a place that stays until the start, then a straight walk."""
        since = np.maximum(times - self.start, 0)
        walked = self.speed * np.where(since < 1, since**2 / 2, since - 0.5)
        yaw = self._yaw(intent) + self.drift
        return self.place + walked[:, None] * (np.cos(yaw), np.sin(yaw)), np.full(len(times), yaw)

    def box_heading(self, course: Array, draw: np.random.Generator) -> Array:
        """Return one heading for all steps, drawn from all there are."""
        return np.full(len(course), draw.uniform(-np.pi, np.pi))

    def body(self, cue: int, track: Track, scale: float, draw: np.random.Generator) -> Body:
        """Return a body that is turned to one of four sides."""
        yaw = np.full(len(track[1]), self._yaw(cue) + draw.normal(0, _BODY_NOISE))
        head = yaw + draw.normal(0, _HEAD_NOISE)
        return bodies.pedestrian(grounded(track[0]), yaw, head, np.zeros_like(yaw), scale)


@dataclass(frozen=True)
class Walk(_OnFoot):
    """A person walks straight to a corner, the head turned to the side of the coming turn.

    Args:
        arm: beside which he or she walks in.
        side: of the arm, 1 or -1.
        speed: metres a second.
        ahead: metres from here to the turn, now.
        pace: of the speed to come, see ``gone``.
        stride: phase of the legs, metres.
    """

    arm: int
    side: int
    speed: float
    ahead: float
    pace: float
    stride: float

    cues: ClassVar[int] = 2

    @classmethod
    def drawn(cls, draw: np.random.Generator, arms: Sequence[Road]) -> Walk:
        """Draw one on any pavement."""
        arm, side = int(draw.integers(4)), int(draw.choice([-1, 1]))
        numbers = draw.uniform((1.0, 0.4, 0.6, 0), (1.7, 2.5, 1.4, 2))
        speed, start, pace, stride = map(float, numbers)
        return cls(arm, side, speed, speed * start, pace, stride)

    def open(self, arms: Sequence[Road]) -> tuple[int, ...]:
        """Return left and right; only the way around the corner where there is no crosswalk."""
        around = 0 if self.side < 0 else 1
        return (0, 1) if arms[self.arm].crosswalk else (around,)

    def track(self, intent: int, times: Array) -> Track:
        """Return a walk around the corner."""
        line = pavement(self.arm, self.side, (_LEFT, _RIGHT)[intent])
        return along(
            line, straight_part(line, CORNER + 1) - self.ahead + gone(self.speed, self.pace, times)
        )

    def box_heading(self, course: Array, draw: np.random.Generator) -> Array:
        """Return the course, and noise."""
        return course + draw.normal(0, 0.05, len(course))

    def body(self, cue: int, track: Track, scale: float, draw: np.random.Generator) -> Body:
        """Return a walking body with its head turned to a side."""
        places, course = track
        head = course + (1, -1)[cue] * _HEAD_TURN + draw.normal(0, _HEAD_NOISE)
        walked = self.stride + walked_until(places)
        return bodies.pedestrian(grounded(places), course, head, walked, scale)
