"""Waymo's motion metrics over a whole set, which may come in parts from several processes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.motion.metrics.measured import Measured, joined, measure
from regrow.motion.metrics.precision import mean_average_precision
from regrow.motion.metrics.rules import Rules
from regrow.motion.scene import KINDS, Scene

__all__ = ["NAMES", "MotionMetrics", "Values", "values_of"]

Array = npt.NDArray[Any]

NAMES = ("min_ade", "min_fde", "miss_rate", "overlap_rate", "map", "soft_map")
"""Names of the metrics, as in ``Values``."""


@dataclass(frozen=True)
class Values:
    """Metrics of a set by kind of agent, a row for each of ``KINDS``, and step, a column each.

    A value is NaN where nothing could be measured. ``agents`` tells the two reasons apart: 0, and
    there is no agent of that kind; more, and their truth is not known.

    Args:
        agents: int, (kinds,): agents predicted.
        measured: int, (kinds, steps): agents whose truth is known at that step.
        min_ade: metres, (kinds, steps).
        min_fde: metres, (kinds, steps).
        miss_rate: 0 to 1, (kinds, steps).
        overlap_rate: 0 to 1, (kinds, steps).
        map: 0 to 1, (kinds, steps).
        soft_map: 0 to 1, (kinds, steps).
    """

    agents: Array
    measured: Array
    min_ade: Array
    min_fde: Array
    miss_rate: Array
    overlap_rate: Array
    map: Array
    soft_map: Array

    def headline(self) -> dict[str, float]:
        """Return each metric's mean over steps, then over vehicles, pedestrians and cyclists.

        What is NaN is left out: with a kind absent, it is the mean of the others.
        """
        return {name: _mean([_mean(row) for row in getattr(self, name)[1:]]) for name in NAMES}

    def table(self) -> dict[str, dict[str, float]]:
        """Return each metric's mean over steps, by kind; kinds without an agent are left out."""
        there = [place for place in range(len(KINDS)) if self.agents[place]]
        return {
            KINDS[place]: {name: _mean(getattr(self, name)[place]) for name in NAMES}
            for place in there
        }


class MotionMetrics:
    """Collects predictions scene by scene; the values are those of all at once.

    Order and split do not change them, bit for bit: rows are kept, not means, some 250 bytes an
    agent.

    Args:
        rules: None: Waymo's.

    On several ranks, each measures scenes of its own, then takes what the others have:
    ``torch.distributed.all_gather_object(states, metrics.state_dict())``, and for each of them
    ``metrics.merge(state)``.

    Example:
        >>> metrics = MotionMetrics()
        >>> metrics.values().agents.tolist()
        [0, 0, 0, 0]

    Source: Waymo Open Dataset, motion_metrics.cc.
    """

    def __init__(self, rules: Rules | None = None) -> None:
        self.rules = rules or Rules()
        self._parts: list[Measured] = []
        self._scenes: set[str] = set()

    def add(self, scene: Scene, trajectories: Array, scores: Array) -> Measured:
        """Measure the predictions of a scene, keep that, and return it.

        Args:
            scene: with its future; one without targets adds nothing.
            trajectories: float, (targets, modes, points, 2): see
                :func:`~regrow.motion.metrics.measured.measure`.
            scores: float, (targets, modes).

        Raises:
            ValueError: as of ``measure``, or the scene is there already; nothing is kept.
        """
        if scene.name in self._scenes:
            raise ValueError(f"scene {scene.name}: was added already; add each scene once")
        found = measure(scene, trajectories, scores, self.rules)
        self._parts.append(found)
        self._scenes.add(scene.name)
        return found

    def rows(self) -> Measured:
        """Return what was measured, a row an agent."""
        return joined(self._parts, self.rules)

    def values(self) -> Values:
        """Return the metrics of all that was added."""
        return values_of(self.rows())

    def merge(self, other: MotionMetrics | Mapping[str, Any]) -> None:
        """Take what another has collected, or what its ``state_dict`` holds.

        A scene that both have counts once: samplers of several processes repeat some, so that all
        get as many.

        Args:
            other: measured by the same rules.

        Raises:
            ValueError: it was measured by other rules; nothing is taken.
        """
        state = other.state_dict() if isinstance(other, MotionMetrics) else other
        if state["rules"] != (mine := _rules_of(self.rules)):
            raise ValueError(f"rules: merges {state['rules']} into {mine}; must be the same")
        rows = Measured(**{f.name: state[f.name] for f in fields(Measured)})
        self._parts.append(rows.where(~np.isin(rows.scenes, list(self._scenes))))
        self._scenes |= set(state["names"])

    def state_dict(self) -> dict[str, Any]:
        """Return all that was collected: arrays, a list and a dict, to send or to save."""
        rows = self.rows()
        own = {f.name: getattr(rows, f.name) for f in fields(Measured)}
        return {**own, "rules": _rules_of(self.rules), "names": sorted(self._scenes)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what ``state_dict`` returned, in place of what is here.

        Raises:
            ValueError: it was measured by other rules; nothing changes.
        """
        fresh = MotionMetrics(self.rules)
        fresh.merge(state)
        self._parts, self._scenes = fresh._parts, fresh._scenes


def values_of(rows: Measured) -> Values:
    """Return the metrics of some agents, such as those of a set, near ones or fast ones.

    Args:
        rows: what was measured of them.
    """
    own = [rows.where(rows.kinds == place) for place in range(len(KINDS))]
    steps = range(rows.miss.shape[1])

    def by(make: Any) -> Array:
        return np.array([[make(part, step) for step in steps] for part in own], dtype=float)

    return Values(
        agents=np.array([len(part) for part in own]),
        measured=by(lambda part, step: (~np.isnan(part.miss[:, step])).sum()).astype(int),
        min_ade=by(lambda part, step: _mean(part.min_ade[:, step])),
        min_fde=by(lambda part, step: _mean(part.min_fde[:, step])),
        miss_rate=by(lambda part, step: _mean(part.miss[:, step])),
        overlap_rate=by(lambda part, step: _mean(part.overlap[:, step])),
        map=by(lambda part, step: _precision(part, step, soft=False)),
        soft_map=by(lambda part, step: _precision(part, step, soft=True)),
    )


def _precision(rows: Measured, step: int, soft: bool) -> float:
    return mean_average_precision(rows.scores, rows.matched[:, step], rows.shapes, soft=soft)


def _mean(values: Array | list[float]) -> float:
    """Return the mean of what is not NaN, rounded once, so that no order changes it."""
    there = [float(value) for value in values if not math.isnan(value)]
    return math.fsum(there) / len(there) if there else math.nan


def _rules_of(rules: Rules) -> dict[str, Any]:
    return {f.name: getattr(rules, f.name) for f in fields(Rules)}
