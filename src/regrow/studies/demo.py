"""The demo: sparse networks beside dense ones on real data, in about two minutes on two cores.

Every sparse network has two controls: a dense network with as many parameters, and a static random
topology of the same density.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import regrow
from regrow.lab.design import Arm, Labelled, grid
from regrow.lab.effects import Effect, gain
from regrow.lab.rules import claim
from regrow.lab.study import Preset, Study
from regrow.studies.demo_page import DENSITIES, MOVING, PAGE
from regrow.studies.demo_trial import StepTimes, WatchedClassify

__all__ = ["STUDY", "demo_study"]

ARMS: dict[str, Arm] = {
    "dense": lambda: {"method": regrow.Dense()},
    "small dense": lambda density: {"method": regrow.Dense(), "narrow": density},
    "static": lambda density: {"method": regrow.Static(density=density)},
    "SET": lambda density, every: {"method": regrow.SET(density=density, update_every=every)},
    "RigL": lambda density, every: {"method": regrow.RigL(density=density, update_every=every)},
}
UPDATES = 40  # of the topology in a run, were they to go on to its end

# Widths and epochs are chosen for the running time; nothing was tuned on test images.
DATA: dict[str, dict[str, Any]] = {
    "digits": {"model": "mlp-256-256", "epochs": 60, "batch": 64, "samples": 898},
    "fashion-mnist": {"model": "mlp-256-256", "epochs": 6, "samples": 20_000},
    "cifar10": {"model": "conv-net", "epochs": 8, "samples": 10_000},
}
_TRAINED = {"learning_rate": 0.05, "nesterov": False, "schedule": "cosine", "rescale": True}


def _trials(data: str, seeds: int, first_seed: int, **other: Any) -> Iterator[Labelled]:
    """Cross all networks with all seeds; when they are trained, time their steps."""
    chosen: dict[str, Any] = {"data": data, "augment": False, **_TRAINED, **DATA[data], **other}
    base = WatchedClassify(seed=0, method=regrow.Dense(), **chosen)
    steps = chosen["samples"] // base.batch  # an epoch
    given = {"every": max(base.epochs * steps // UPDATES, 1)}
    labels = {"task": f"{base.model} on {data}"}
    made = partial(grid, arms=ARMS, labels=labels, given=given)
    for told, trial in made(base, seeds=seeds, density=DENSITIES):
        yield Labelled(told, replace(trial, seed=first_seed + trial.seed))
    endless = made(replace(base, epochs=10**4), seeds=1, density=DENSITIES[:1])
    networks: dict[str, Any] = {str(told["arm"]): trial for told, trial in endless}
    times = StepTimes(seed=0, networks=networks, epochs=-(-UPDATES // steps))
    yield Labelled({**labels, "arm": "times"}, times)


def _each(control: str) -> dict[str, Effect]:
    asked = product(DENSITIES, MOVING)
    return {f"{arm} {d:g}": gain(arm, control, density=d) for d, arm in asked}


_RECALLED = "Evci et al. 2020, Rigging the Lottery (recalled; unverified)"
CLAIMS = (
    claim(
        "A topology that moves beats one that stays where it was drawn.",
        _RECALLED,
        _each("static"),
        above=0,
    ),
    claim(
        "A sparse network beats a dense one with as many parameters.",
        _RECALLED,
        _each("small dense"),
        above=0,
    ),
    claim(
        "A sparse network is as good as the full dense one.",
        "a question of ours",
        _each("dense"),
        within=0.5,
    ),
)


def demo_study(seeds: int = 10, first_seed: int = 0, **other: Any) -> Study:
    """Make the demo.

    Args:
        seeds: repetitions.
        first_seed: the lowest of them.
        other: fields of all trials, such as epochs, instead of the data set's own.
    """
    designs = {data: partial(_trials, data, seeds, first_seed, **other) for data in DATA}
    return Study(
        name="demo",
        title="Sparse training beside dense training",
        source="SET (Mocanu et al. 2018), RigL (Evci et al. 2020)",
        about="SET and RigL at densities 0.1 and 0.05 beside a static random topology, a dense "
        "network with as many parameters, and the full dense network. Seeds are chosen by "
        f"regrow demo --seeds {seeds} --first-seed {first_seed}.",
        presets={"quick": Preset("two minutes on two CPU cores (digits)", designs, "digits")},
        claims=CLAIMS,
        page=PAGE,
    )


STUDY = demo_study()
