"""Sorts true futures by shape: mAP is a mean over shapes, so that rare ones count as much."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.motion.metrics.rules import Rules

__all__ = ["SHAPES", "shapes_of"]

SHAPES = (
    "stationary",
    "straight",
    "straight left",
    "straight right",
    "left turn",
    "right turn",
    "left U-turn",
)
"""Shapes of a future; right U-turns count as right turns."""

Array = npt.NDArray[Any]


def shapes_of(states: Array, valid: Array, now: int, rules: Rules) -> npt.NDArray[np.int64]:
    """Return the shape of each future, as its place in ``SHAPES``; -1: not enough is valid.

    It is that of the way from the present state to the last valid one, seen along the present
    heading.

    Args:
        states: float, (agents, steps, 9): see ``regrow.motion.scene.STATE``.
        valid: bool, (agents, steps).
        now: the present step.
        rules: the thresholds.
    """
    steps = valid.shape[1]
    last = steps - 1 - np.argmax(valid[:, ::-1], axis=1)
    known = valid[:, now] & (last > now) & valid.any(1)
    start, end = states[:, now], states[np.arange(len(states)), last]
    way = end[:, :2] - start[:, :2]
    cosine, sine = np.cos(start[:, 6]), np.sin(start[:, 6])
    ahead = way[:, 0] * cosine + way[:, 1] * sine
    left = way[:, 1] * cosine - way[:, 0] * sine
    turn = np.abs((end[:, 6] - start[:, 6] + np.pi) % (2 * np.pi) - np.pi)
    speed = np.maximum(np.hypot(*start[:, 7:9].T), np.hypot(*end[:, 7:9].T))
    straight = turn < rules.straight_angle
    cases = {
        "stationary": (speed < rules.standing_speed) & (np.hypot(*way.T) < rules.standing_distance),
        "straight": straight & (np.abs(left) < rules.straight_offset),
        "straight right": straight & (left < 0),
        "straight left": straight,
        "right turn": left < 0,
        "left U-turn": ahead < rules.u_turn_advance,
    }
    places = [SHAPES.index(name) for name in cases]
    found = np.select(list(cases.values()), places, SHAPES.index("left turn"))
    return np.where(known, found, -1)
