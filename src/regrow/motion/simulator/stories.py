"""What a story is: what a road user may do next, and how a body tells of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from regrow.motion.simulator.crossing import Road
from regrow.motion.simulator.rays import Body

__all__ = ["Story", "Track", "gone", "grounded", "straight_part"]

Array = npt.NDArray[Any]

Track = tuple[Array, Array]
"""Places, (steps, 2), in metres, and headings, (steps,), in radians."""


class Story(Protocol):
    """What happens to one road user; all of it but the future is the same for all intents.

    Times are seconds from now. The future begins a while after now, so that the next step of a
    track says nothing of it.
    """

    kind: ClassVar[str]
    cues: ClassVar[int]
    """How many cues there are, one an intent; 0: bodies of this kind tell nothing."""

    def open(self, arms: Sequence[Road]) -> tuple[int, ...]:
        """Return the intents that the map leaves open."""
        ...

    def track(self, intent: int, times: Array) -> Track:
        """Return where it is and heads at some times."""
        ...

    def box_heading(self, course: Array, draw: np.random.Generator) -> Array:
        """Return the headings of its box, given those of its course."""
        ...

    def size(self, scale: float) -> Array:
        """Return length, width and height of its box, whatever its limbs do."""
        ...

    def body(self, cue: int, track: Track, scale: float, draw: np.random.Generator) -> Body:
        """Return its body in each step of a track."""
        ...


def grounded(places: Array) -> Array:
    """Return places on the ground, (steps, 3)."""
    return np.concatenate([places, np.zeros((len(places), 1))], 1)


def straight_part(line: Array, end: float) -> float:
    """Return how long a way that comes in straight on an arm is until this near the middle."""
    return float(np.abs(line[0]).max()) - end


def gone(speed: float, pace: float, times: Array) -> Array:
    """Return how far one gets who changes speed from 0.3 to 3.3 seconds from now.

    Args:
        speed: up to now, metres a second.
        pace: what the speed is multiplied with in the end.
        times: float, (steps,): seconds from now.

    Returns:
        float, (steps,): metres from the place of now; below 0 before it.

    Example:
        >>> gone(2.0, 0.5, np.array([-1.0, 0.3, 4.3, 5.3])).tolist()
        [-2.0, 0.6, 6.1, 7.1]
    """
    since = np.maximum(times - 0.3, 0)
    changed = np.where(since < 3, since**2 / 6, since - 1.5)
    return np.asarray(speed * (times + (pace - 1) * changed)).round(12)


def walked_until(places: Array) -> Array:
    """Return how long a way is until each of its places, metres."""
    return np.cumsum(np.linalg.norm(np.diff(places, axis=0, prepend=places[:1]), axis=1))
