"""Trials that did not learn: controls far below the level that they are known to reach."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from regrow.lab.effects import ACCURACY, Measure
from regrow.lab.records import Record
from regrow.lab.view import View

__all__ = ["Known", "Unlearnt", "unlearnt"]

HALF = 0.5  # of the way from chance to the known level: who is not there has not learned


@dataclass(frozen=True)
class Known:
    """A level that controls are known to reach.

    Args:
        at: labels of the controls, as of :meth:`regrow.lab.view.View.where`.
        level: what they are known to reach, in the measure's unit.
        source: where it is known from.
        chance: what is reached without learning.
        measure: what is read.

    Raises:
        ValueError: the level is not above chance.
    """

    at: Mapping[str, Any]
    level: float
    source: str
    chance: float = 0.0
    measure: Measure = ACCURACY

    def __post_init__(self) -> None:
        if not self.level > self.chance:
            raise ValueError(
                f"level={self.level}: must lie above chance={self.chance}, else all have learned"
            )

    @property
    def bar(self) -> float:
        """Where "far below" begins: half-way between chance and the known level."""
        return self.chance + HALF * (self.level - self.chance)


@dataclass(frozen=True)
class Unlearnt:
    """A trial that did not learn.

    Args:
        record: of the trial.
        name: what it was, by its labels.
        reached: its level.
        known: what it should have reached.
    """

    record: Record
    name: str
    reached: float
    known: Known

    def __str__(self) -> str:
        """Name the trial, what it reached, and what is known.

        Example:
            >>> from pathlib import Path
            >>> known = Known({"arm": "dense"}, 90.0, "a paper", chance=10.0)
            >>> str(Unlearnt(Record("", {}, {}, {}, Path()), "dense, seed 3", 10.2, known))
            'dense, seed 3: test accuracy 10.2, where 90 is known (a paper)'
        """
        level = f"{self.known.level:g} is known ({self.known.source})"
        return f"{self.name}: {self.known.measure.name} {self.reached:.1f}, where {level}"


def unlearnt(view: View, known: Iterable[Known]) -> Iterator[Unlearnt]:
    """Find the controls that did not learn.

    Args:
        view: records by their labels.
        known: levels that they are known to reach.
    """
    found: set[str] = set()
    for one in known:
        for labels, record in view.where(**one.at).rows:
            try:
                reached = float(one.measure.read(record))
            except (TypeError, ValueError):  # it says nothing of its level
                continue
            if not reached >= one.bar and record.identity not in found:  # NaN has not learned
                found.add(record.identity)
                seed = f"seed {record.config['seed']}"
                name = ", ".join([*(_said(axis, place) for axis, place in labels.items()), seed])
                yield Unlearnt(record, name, reached, one)


def _said(axis: str, place: Any) -> str:
    return str(place) if isinstance(place, str) else f"{axis} {place:g}"
