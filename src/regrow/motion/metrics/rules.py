"""What Waymo's motion metrics measure, and when, as numbers that can be changed."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["BEFORE_MARCH_2024", "Rules"]


@dataclass(frozen=True)
class Rules:
    """Configuration of the metrics; the defaults are Waymo's since March 2024.

    Args:
        every: steps of the scene between two predicted points; 5 of 10 Hz give 2 Hz.
        steps: predicted points to measure at, counted from 0: 3, 5 and 8 s.
        lateral: metres across the true heading within which a point is no miss, one a step.
        longitudinal: metres along it, one a step.
        slow: m/s up to which ``slow_scale`` scales these thresholds.
        fast: m/s from which they are not scaled; linear in between.
        slow_scale: factor at ``slow`` and below.
        modes: predictions of an agent that count, the first in the order given.
        standing_speed: m/s below which an agent may be stationary.
        standing_distance: metres below which it then is.
        straight_angle: radians of turn below which it goes straight.
        straight_offset: metres to the side below which going straight has no side.
        u_turn_advance: metres forward below which a left turn is a U-turn.

    Raises:
        ValueError: the numbers do not fit.

    Example:
        >>> Rules(steps=(5, 9)).steps
        Traceback (most recent call last):
        ValueError: lateral: has 3 thresholds; must be 2, one for each of steps=(5, 9)

    Source: Waymo Open Dataset, motion_metrics.cc and motion_metrics_utils.cc.
    """

    every: int = 5
    steps: tuple[int, ...] = (5, 9, 15)
    lateral: tuple[float, ...] = (1.0, 1.8, 3.0)
    longitudinal: tuple[float, ...] = (2.0, 3.6, 6.0)
    slow: float = 1.4
    fast: float = 11.0
    slow_scale: float = 0.5
    modes: int = 6
    standing_speed: float = 2.0
    standing_distance: float = 3.0
    straight_angle: float = math.pi / 6
    straight_offset: float = 2.5
    u_turn_advance: float = 0.0

    def __post_init__(self) -> None:
        for name in ("lateral", "longitudinal"):
            if len(found := getattr(self, name)) != len(self.steps):
                raise ValueError(
                    f"{name}: has {len(found)} thresholds; must be {len(self.steps)}, one for each "
                    f"of steps={self.steps}"
                )
        if not self.steps or min(self.steps) < 0 or list(self.steps) != sorted(set(self.steps)):
            raise ValueError(f"steps={self.steps}: must be one or more, from 0, rising")
        for name in ("every", "modes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 1")
        if not 0 <= self.slow < self.fast:
            raise ValueError(f"slow={self.slow}, fast={self.fast}: must be 0 <= slow < fast")


BEFORE_MARCH_2024 = Rules(standing_distance=5.0, straight_offset=5.0, u_turn_advance=-5.0)
"""The rules by which MTR, EDA and others of 2022 and 2023 published mAP."""
