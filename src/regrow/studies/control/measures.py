"""What is read from the records of runs, and weighted sums of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from regrow.lab.effects import BySeed, Effect, Measure
from regrow.lab.view import View

__all__ = ["ATTENTION", "CORRELATION", "RATIO", "REAL", "RETURN", "TENTHS", "Weighted",
           "looked_at", "tenth"]  # fmt: skip

TENTHS = range(1, 11)


def _return(record: Any) -> float:
    late = record.result["late_returns"][0]
    if late is None:
        raise ValueError("no episode was over")
    return float(late)


def _look(record: Any, name: str, share: float) -> float:
    """Return a number of the look after a share of the training."""
    values = record.result.get("looks", {}).get(name, [])
    found = values[max(0, round(share * len(values)) - 1)][0] if values else None
    if found is None:
        raise ValueError(f"no {name.replace('_', ' ')}")
    return float(found)


def _ratio(record: Any) -> float:
    real, noise = (_look(record, f"critic_{kind}_connections", 1.0) for kind in ("real", "noise"))
    if real <= 0 or noise <= 0:
        raise ValueError("no connections of one kind")
    return real / noise


RETURN = Measure("late return", _return, "of return")
REAL = Measure("real features read", lambda record: float(record.result["real_features"][0]))
RATIO = Measure(
    "connections of a real feature, of critics, over those of a noise feature", _ratio, "times",
    ratio=True,
)  # fmt: skip


def tenth(number: int) -> Measure:
    """Return the mean return of a tenth of the training episodes, 1 to 10."""

    def read(record: Any) -> float:
        returns = record.result["training_returns"][0]
        first, last = ((number - k) * len(returns) // 10 for k in (1, 0))
        if first == last:
            raise ValueError("fewer than ten episodes")
        return float(sum(returns[first:last]) / (last - first))

    return Measure(f"return in tenth {number} of the training", read, "of return")


def looked_at(name: str, number: int) -> Measure:
    """Return a number that was looked at after a tenth of the training, 1 to 10."""
    return Measure(name, lambda record: _look(record, name, number / 10), "")


ATTENTION, CORRELATION = "critic_attention", "reward_correlation"


@dataclass(frozen=True)
class Weighted(Effect):
    """A sum of effects, each times its weight, seed by seed.

    Args:
        measure: of all of them.
        parts: weights and effects.
        words: what the sum is.
    """

    measure: Measure
    parts: Sequence[tuple[float, Effect]]
    words: str

    def by_seed(self, task: View) -> BySeed:
        """Add up, over the seeds that all parts have."""
        found = [(weight, effect.by_seed(task)) for weight, effect in self.parts]
        seeds = set.intersection(*(set(values) for _, values in found))
        return {
            seed: sum(weight * values[seed] for weight, values in found) for seed in sorted(seeds)
        }

    def __str__(self) -> str:
        return self.words
