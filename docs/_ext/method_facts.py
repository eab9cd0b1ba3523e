"""When a method updates by default, and what it reads then: asked of the method itself."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

import regrow
from regrow.engine.update import Moves

RUN = 20_000
ONE = torch.zeros(1, 1)
NEEDED: dict[str, Any] = {"loss": lambda model: ONE.sum(), "inputs": ONE, "trained": {}}


def sample(kind: type[regrow.Method]) -> regrow.Method:
    """Make the method as it is by default."""
    takes = {field.name for field in dataclasses.fields(kind) if field.init}
    needed: dict[str, Any] = {"density": 0.1, **NEEDED}
    return kind(**{name: value for name, value in needed.items() if name in takes})


def updates(method: regrow.Dynamic) -> dict[int, Moves]:
    """Return what moves in a layer of a million weights at which step of a run."""
    units, step, found = 1_000_000, 0, {}
    active = round(units * (method.initial_density or 0.1))
    while following := method.next_update(step, RUN):
        step, progress = following, method.progress(following, RUN)
        density = method.density_at(progress, method.initial_density or 0.1, 0.1)
        target = round(units * density)
        if moves := method.moves(active, target, units, method.fraction_at(progress)):
            found[step] = moves
        active = target
    return found


def facts(kind: type[regrow.Method]) -> list[list[str]]:
    """Tell when a method updates by default, and what it reads then."""
    method = sample(kind)
    if not isinstance(method, regrow.Dynamic):
        return [["updates", "none"], ["gradients of inactive weights", "not needed in training"]]
    moves = updates(method)
    reads = sorted(method.reads(moves.values()))
    grows = [step for step, move in moves.items() if move.exchange or move.expand]
    dense = "not needed"
    if grows and "gradient" in method.grow.needs:
        dense = f"needed at {len(grows):,} of these updates"
    elif "momentum" in reads:
        dense = "needed at every step, for the momentum"
    elif method.reserves:
        dense = "needed at every step, those in the backward set"
    path = f"from {method.initial_density} to ``density``"
    when = (
        f"{len(moves):,} in {RUN:,} steps, the first at {min(moves):,}, the last at {max(moves):,}"
    )
    return [
        ["density", "constant" if method.initial_density is None else path],
        ["updates that move something", when],
        ["an update takes the place of its step", "yes" if method.replaces_step else "no"],
        ["signals read besides weights and masks", ", ".join(reads) or "none"],
        ["gradients of inactive weights", dense],
    ]
