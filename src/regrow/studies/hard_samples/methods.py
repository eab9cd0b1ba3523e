"""The methods that are compared, by the names a reader knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import regrow
from regrow.engine.allocation import Uniform
from regrow.engine.schedules import Cosine
from regrow.lab.records import Record

__all__ = ["CORE", "EXTRA", "METHODS", "UPDATES", "WHOLE", "density_of", "method_of"]

UPDATES = 50
"""In a run, of methods that have any: as many as the study's 200 epochs with one every 4 have."""

_MOVES: Mapping[str, Any] = {"drop_fraction": Cosine(0.2, 0.001), "stop_at": 1.0}

Make = Callable[[float, int], Mapping[str, Any]]
"""Makes the fields of a trial for a density and so many steps between updates."""


def _static(chosen: str) -> Make:
    return lambda density, _: {"method": regrow.Static(density=density), "chosen": chosen}


METHODS: Mapping[str, Make] = {
    "dense": lambda _, __: {"method": regrow.Dense()},
    "dense twice": lambda _, __: {"method": regrow.Static(density=1.0), "chosen": "OMP"},
    "small dense": lambda density, _: {"method": regrow.Dense(), "narrow": density},
    "static ERK": _static("at random"),
    "static uniform": lambda density, _: {
        "method": regrow.Static(density=density, allocation=Uniform())
    },
    "SET": lambda density, every: {
        "method": regrow.SET(density=density, update_every=every, **_MOVES)
    },
    "RigL": lambda density, every: {
        "method": regrow.RigL(density=density, update_every=every, replaces_step=False, **_MOVES)
    },
    "SNIP ratios": _static("SNIP ratios"),
    "SNIP": _static("SNIP"),
    "GMP": lambda density, every: {
        "method": regrow.GMP(density=density, update_every=every, shrink="global")
    },
    "OMP": _static("OMP"),
    "LTH": _static("LTH"),
}
"""By name; "small dense" is a narrower dense network with no more parameters, "dense twice" goes on
as one-shot pruning does, with nothing pruned."""

WHOLE = ("dense", "dense twice")
"""Methods that have no density."""

CORE = ("dense", "small dense", "static ERK", "SET", "SNIP ratios")
EXTRA = tuple(name for name in METHODS if name not in CORE)


def method_of(record: Record) -> str:
    """Name the method of a record as :data:`METHODS` does."""
    kind = str(record.get("method.kind"))
    if kind == "Dense":
        return "small dense" if record.get("narrow") < 1 else "dense"
    if kind != "Static":
        return kind
    if (chosen := str(record.get("chosen"))) != "at random":
        return "dense twice" if chosen == "OMP" and record.get("method.density") == 1 else chosen
    return "static " + ("uniform" if record.get("method.allocation.kind") == "Uniform" else "ERK")


def density_of(record: Record) -> float:
    """Return the density of a record's network; of a small dense one, whose size it has."""
    field = "narrow" if record.get("method.kind") == "Dense" else "method.density"
    return float(record.get(field))
