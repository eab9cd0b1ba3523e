"""A crossing of two roads: its lanes, crosswalks and edges as map lines, and ways through it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.motion.scene import LINES

__all__ = [
    "ARM",
    "BIKE",
    "CORNER",
    "CROSSING",
    "LANE",
    "TURNS",
    "Road",
    "along",
    "corner",
    "map_lines",
    "pavement",
    "towards",
    "way",
]

Array = npt.NDArray[Any]

TURNS = ("left", "straight", "right")
"""Ways on from an arm of the crossing; a turn is stored as its place here."""

LANE, BIKE = 1.75, 4.25
"""Metres from the middle of a road to the middles of its lanes, for cars and for bicycles."""

CROSSING, ARM = 9.0, 80.0
"""Metres from the middle of the crossing to where lanes begin to turn, and to their ends."""

CORNER = 7.0
"""Metres from the middle of a road to the middle of its pavements."""

_HALF, _RADIUS = 5.0, 3.0  # of a road's width; of the kerb at a corner
_WALK = (5.5, 8.5)  # a crosswalk, from and to
_SPACING = 0.95  # MTR cuts a line where two points are over a metre apart
_ROUND = 0.5523  # handle of a cubic Bézier curve, over the radius of the quarter circle it is


@dataclass(frozen=True)
class Road:
    """A road that meets the crossing.

    Args:
        turn: the only way on from it, as a place in ``TURNS``; None: all ways are open.
        crosswalk: people can cross it on foot.
    """

    turn: int | None = None
    crosswalk: bool = True

    @property
    def turns(self) -> tuple[int, ...]:
        """The ways on from it."""
        return tuple(range(len(TURNS))) if self.turn is None else (self.turn,)


def way(arm: int, turn: int, side: float) -> Array:
    """Return the line along which one drives in on an arm, through the crossing and out.

    Args:
        arm: 0 to 3, counter-clockwise; the first lies along x.
        turn: a place in ``TURNS``.
        side: of the lane from the middle of the road, metres.

    Returns:
        float, (points, 2): metres, the middle of the crossing is the origin.
    """
    pieces = _in(arm, side), _through(arm, turn, side), _out(_exit(arm, turn), side)
    return _joined(*pieces)


def towards(arm: int) -> Array:
    """Return where an arm lies from the middle of the crossing, (2,), of length one."""
    return np.array([(1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0)][arm % 4])


def corner(arm: int) -> Array:
    """Return the middle of the pavement between an arm and the next, (2,), metres."""
    return CORNER * (towards(arm) + towards(arm + 1))


def pavement(arm: int, side: int, turn: int) -> Array:
    """Return the line along which one walks in beside an arm and turns at its corner.

    Args:
        arm: 0 to 3.
        side: 1: on the side of the next arm; -1: on the other.
        turn: left or right, as a place in ``TURNS``; one way leads over the arm's crosswalk, the
            other around the corner.
    """
    there, on = side * CORNER, towards(arm + 1) * (-1 if TURNS[turn] == "left" else 1)
    start, end = _at(arm, CORNER + 1, there), _at(arm, CORNER, there) + on
    handle = _ROUND * towards(arm)
    turned = _bezier(start, start - handle, end - _ROUND * on, end)
    return _joined(np.array([_at(arm, ARM, there), start]), turned, np.array([end, end + ARM * on]))


def along(line: Array, distances: Array) -> tuple[Array, Array]:
    """Return places on a line at distances from its start, and where the line heads there.

    Args:
        line: float, (points, 2): metres.
        distances: float, (steps,): metres; beyond the end the line goes on straight.

    Returns:
        float, (steps, 2): metres; float, (steps,): radians.

    Example:
        >>> places, headings = along(np.array([[0.0, 0], [0, 2]]), np.array([1.0, 3]))
        >>> places.tolist(), headings.round(2).tolist()
        ([[0.0, 1.0], [0.0, 3.0]], [1.57, 1.57])
    """
    steps = np.diff(line, axis=0)
    lengths = np.linalg.norm(steps, axis=1)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    piece = np.clip(np.searchsorted(starts, distances, side="right") - 1, 0, len(steps) - 1)
    share = (distances - starts[piece]) / lengths[piece]
    return line[piece] + share[:, None] * steps[piece], np.arctan2(*steps[piece].T[::-1])


def map_lines(arms: tuple[Road, ...]) -> Iterator[tuple[int, Array]]:
    """Give the kind and the points of each line of the map.

    Args:
        arms: the four roads, counter-clockwise.

    Yields:
        A value of ``LINES``; float, (points, 2): metres, at most one apart.
    """
    for k, arm in enumerate(arms):
        for kind, side in ((LINES["street"], LANE), (LINES["bike lane"], BIKE)):
            yield kind, _spaced(_in(k, side))
            yield kind, _spaced(_out(k, side))
            for turn in arm.turns:
                yield kind, _spaced(_through(k, turn, side))
        middle = np.array([_at(k, CROSSING, 0), _at(k, ARM, 0)])
        yield LINES["double yellow"], _spaced(middle)
        if arm.crosswalk:
            corners = [(u, n) for u, n in zip((0, 1, 1, 0, 0), (1, 1, -1, -1, 1), strict=True)]
            walk = np.array([_at(k, _WALK[u], n * _HALF) for u, n in corners])
            yield LINES["crosswalk"], _spaced(walk)
        yield LINES["road edge"], _spaced(_kerb(k))


# ---------------------------------------------------------------------- pieces


def _at(arm: int, out: float, side: float) -> Array:
    """Return the place this far out on an arm, and this far to the left of who looks out."""
    return out * towards(arm) + side * towards(arm + 1)


def _exit(arm: int, turn: int) -> int:
    return (arm + (3, 2, 1)[turn]) % 4


def _in(arm: int, side: float) -> Array:
    return np.array([_at(arm, ARM, side), _at(arm, CROSSING, side)])


def _out(arm: int, side: float) -> Array:
    return np.array([_at(arm, CROSSING, -side), _at(arm, ARM, -side)])


def _through(arm: int, turn: int, side: float) -> Array:
    to = _exit(arm, turn)
    start, end = _at(arm, CROSSING, side), _at(to, CROSSING, -side)
    # Of a turn both legs are as long as the circle's radius; straight on any handle does.
    handle = _ROUND * abs((end - start) @ towards(arm))
    inner = start - handle * towards(arm), end - handle * towards(to)
    return _bezier(start, *inner, end)


def _bezier(a: Array, b: Array, c: Array, d: Array, points: int = 20) -> Array:
    t = np.linspace(0, 1, points)[:, None]
    return (1 - t) ** 3 * a + 3 * (1 - t) ** 2 * t * b + 3 * (1 - t) * t**2 * c + t**3 * d


def _kerb(arm: int) -> Array:
    """Return the edge of the road around the corner between an arm and the next."""
    turn, centre = np.linspace(0, np.pi / 2, 9), _HALF + _RADIUS
    arc = [_at(arm, centre - _RADIUS * np.sin(t), centre - _RADIUS * np.cos(t)) for t in turn]
    return np.array([_at(arm, ARM, _HALF), *arc, _at(arm, _HALF, ARM)])


def _joined(*pieces: Array) -> Array:
    return np.concatenate([pieces[0], *(piece[1:] for piece in pieces[1:])])


def _spaced(line: Array) -> Array:
    """Put points between those that are too far apart; all of the line's own stay."""
    pieces = [line[:1]]
    for start, end in pairwise(line):
        parts = int(np.ceil(np.linalg.norm(end - start) / _SPACING))
        pieces.append(start + (end - start) * np.arange(1, parts + 1)[:, None] / parts)
    return np.concatenate(pieces)
