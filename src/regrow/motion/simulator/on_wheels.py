"""Stories on wheels: a cyclist and a car that come to the crossing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from regrow.motion.simulator import bodies
from regrow.motion.simulator.crossing import BIKE, CROSSING, LANE, TURNS, Road, along, way
from regrow.motion.simulator.rays import Body
from regrow.motion.simulator.stories import Track, gone, grounded, straight_part, walked_until

__all__ = ["Drive", "Passed", "Ride"]

Array = npt.NDArray[Any]

_A_TURN = 5.0  # metres that a turn of the pedals brings


@dataclass(frozen=True)
class _OnWheels:
    """Someone who comes straight to the crossing, on a lane.

    Args:
        arm: of the crossing, on which it comes.
        speed: metres a second.
        ahead: metres from here to the crossing, now; below 0: it is past it.
        pace: of the speed to come, see ``gone``.
    """

    arm: int
    speed: float
    ahead: float
    pace: float = 1.0

    lane: ClassVar[float]
    noise: ClassVar[float]

    def open(self, arms: Sequence[Road]) -> tuple[int, ...]:
        """Return the ways on from the arm."""
        return arms[self.arm].turns

    def track(self, intent: int, times: Array) -> Track:
        """Return a way along the lanes."""
        line = way(self.arm, intent, self.lane)
        return along(
            line, straight_part(line, CROSSING) - self.ahead + gone(self.speed, self.pace, times)
        )

    def box_heading(self, course: Array, draw: np.random.Generator) -> Array:
        """Return the course, and noise."""
        return course + draw.normal(0, self.noise, len(course))


@dataclass(frozen=True)
class Ride(_OnWheels):
    """A cyclist, who holds out an arm to the side of the coming turn.

    Args:
        arm: as of every story on wheels.
        speed: as of every story on wheels.
        ahead: as of every story on wheels.
        pace: as of every story on wheels.
        pedals: their phase, radians.
    """

    pedals: float = 0.0

    kind: ClassVar[str] = "cyclist"
    cues: ClassVar[int] = 3
    lane: ClassVar[float] = BIKE
    noise: ClassVar[float] = 0.03

    @classmethod
    def drawn(cls, draw: np.random.Generator, arms: Sequence[Road]) -> Ride:
        """Draw one on any arm."""
        numbers = draw.uniform((3.0, 0.4, 0.6, 0), (6.0, 2.5, 1.4, 2 * np.pi))
        speed, start, pace, pedals = map(float, numbers)
        return cls(int(draw.integers(4)), speed, speed * start, pace, pedals)

    def size(self, scale: float) -> Array:
        """Return length, width and height; an arm that is held out reaches beyond."""
        return np.array([1.8, 0.85, 1.75 * scale])

    def body(self, cue: int, track: Track, scale: float, draw: np.random.Generator) -> Body:
        """Return a pedalling body with an arm out to the left, none, or one to the right."""
        places, course = track
        pedalled = self.pedals + walked_until(places) * 2 * np.pi / _A_TURN
        return bodies.cyclist(grounded(places), course, pedalled, cue, scale)


@dataclass(frozen=True)
class Drive(_OnWheels):
    """A car; nothing on it tells where it will go."""

    kind: ClassVar[str] = "vehicle"
    cues: ClassVar[int] = 0
    lane: ClassVar[float] = LANE
    noise: ClassVar[float] = 0.02

    @classmethod
    def drawn(cls, draw: np.random.Generator, arms: Sequence[Road]) -> Drive:
        """Draw one on any arm."""
        speed, start, pace = map(float, draw.uniform((4.0, 0.4, 0.6), (8.0, 2.5, 1.4)))
        return cls(int(draw.integers(4)), speed, speed * start, pace)

    def size(self, scale: float) -> Array:
        """Return length, width and height."""
        return np.array([4.6, 1.9, 1.6]) * scale

    def body(self, cue: int, track: Track, scale: float, draw: np.random.Generator) -> Body:
        """Return two boxes."""
        return bodies.car(grounded(track[0]), track[1], self.size(scale))


@dataclass(frozen=True)
class Passed(Drive):
    """A car that has gone straight over the crossing and drives on."""

    @classmethod
    def drawn(cls, draw: np.random.Generator, arms: Sequence[Road]) -> Passed:
        """Draw one anywhere behind the crossing."""
        speed, past = map(float, draw.uniform((3, 25), (9, 60)))
        return cls(int(draw.integers(4)), speed, -past)

    def open(self, arms: Sequence[Road]) -> tuple[int, ...]:
        """Return straight on."""
        return (TURNS.index("straight"),)
