"""The criteria and growth rules that are compared, by the names a reader knows."""

from __future__ import annotations

from collections.abc import Mapping

from regrow.engine.criteria import (
    LegacySign,
    MagnitudePlusGradient,
    ReciprocalSensitivity,
    WeightTimesGradient,
)
from regrow.engine.scores import Gradient, Magnitude, Random, Score, SignedMagnitude

__all__ = ["CRITERIA", "GROWTH", "PAPER"]

CRITERIA: Mapping[str, Score] = {
    "magnitude": Magnitude(),
    "SET": SignedMagnitude(),
    "MEST": MagnitudePlusGradient(1.0),
    "SNIP": WeightTimesGradient(),
    "reciprocal sensitivity": ReciprocalSensitivity(),
    "random": Random(),
    "SET as shipped": LegacySign(),
}
PAPER = ("magnitude", "SET", "MEST", "SNIP", "reciprocal sensitivity")
GROWTH: Mapping[str, Score] = {"random": Random(), "gradient": Gradient()}
