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
from regrow.lab.records import Record

__all__ = ["CRITERIA", "GROWTH", "PAPER", "criterion_of", "growth_of"]

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


def criterion_of(record: Record) -> str:
    """Name what a record's method dropped by; "static" or "dense" if it dropped nothing."""
    kind = record.get("method.drop.kind")
    named = {type(score).__name__: name for name, score in CRITERIA.items()}
    return named[kind] if kind else str(record.get("method.kind")).lower()


def growth_of(record: Record) -> str:
    """Name what a record's method grew by; "" if nothing."""
    kind = record.get("method.grow.kind")
    named = {type(score).__name__: name for name, score in GROWTH.items()}
    return named[kind] if kind else ""
