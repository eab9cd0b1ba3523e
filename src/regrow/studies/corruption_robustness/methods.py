"""The methods that are compared, by the names a reader knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import regrow
from regrow.engine.schedules import Cosine
from regrow.engine.scores import Gradient, Magnitude, Random
from regrow.lab.records import Record

__all__ = ["CONTROLS", "METHODS", "MOVING", "density_of", "method_of"]

_FRACTION = Cosine(0.5, 0.005)
_SOFT_MEMORY = 0.1
_GRANET_START = 0.8

Make = Callable[[float, int], regrow.Method]
"""Makes a method for a density and so many steps between updates."""


def _exchange(grow: Random | Gradient) -> Make:
    return lambda density, every: regrow.Dynamic(
        density=density,
        drop=Magnitude(),
        grow=grow,
        drop_fraction=_FRACTION,
        update_every=every,
        stop_at=1.0,
    )


def _mest(grow: Random | Gradient) -> Make:
    return lambda density, every: regrow.MEST(
        density=density, gamma=0.0, soft_memory=_SOFT_MEMORY, grow=grow, update_every=every
    )


def _granet(grow: Random | Gradient) -> Make:
    return lambda density, every: regrow.GraNet(
        density=density,
        grow=grow,
        drop_fraction=_FRACTION,
        initial_density=_GRANET_START if density < _GRANET_START else 1.0,
        update_every=every,
    )


MOVING: Mapping[str, Make] = {
    "SET": _exchange(Random()),
    "RigL": _exchange(Gradient()),
    "MEST, random growth": _mest(Random()),
    "MEST, gradient growth": _mest(Gradient()),
    "GraNet, random growth": _granet(Random()),
    "GraNet, gradient growth": _granet(Gradient()),
}
"""What the paper tried. All drop by magnitude, as there."""

CONTROLS = ("dense", "small dense", "static")
METHODS = (*CONTROLS, *MOVING)


def method_of(record: Record) -> str:
    """Name the method of a record as :data:`METHODS` does."""
    kind = str(record.get("method.kind"))
    if kind == "Dense":
        return "small dense" if record.get("narrow") < 1 else "dense"
    if kind == "Static":
        return "static"
    random = record.get("method.grow.kind") == "Random"
    if kind == "Dynamic":
        return "SET" if random else "RigL"
    return f"{kind}, {'random' if random else 'gradient'} growth"


def density_of(record: Record) -> float:
    """Return the density of a record's network; of a small dense one, whose size it has."""
    if record.get("method.kind") == "Dense":
        return float(record.get("narrow"))
    return float(record.get("method.density"))
