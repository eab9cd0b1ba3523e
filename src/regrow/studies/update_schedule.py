"""How often, and how much, should a sparse network exchange its connections?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any

import regrow
from regrow.engine.schedules import Constant, Cosine
from regrow.lab import charts
from regrow.lab.claims import Answer
from regrow.lab.design import Arm, Labelled, grid
from regrow.lab.effects import ACCURACY, EVERY, HIGHEST, LOWEST, Effect, gain, level, percent
from regrow.lab.learnt import Known
from regrow.lab.rules import claim, each
from regrow.lab.section import Section
from regrow.lab.study import Preset, Study
from regrow.lab.view import View
from regrow.studies.names import in_words
from regrow.studies.supervised.classify import Classify

__all__ = ["STUDY"]

DENSITY = 0.1
UPDATES, FRACTIONS = (5, 15, 50, 150, 500), (0.1, 0.3, 0.5)
DECAY = {"cosine": Cosine, "none": Constant}
USUAL: dict[str, Any] = {"updates": 50, "fraction": 0.3, "decay": "cosine"}
MARGIN = 0.5  # points of accuracy that matter
KNOWN = [
    Known({"task": task, "arm": "dense"}, level, source, chance=10.0)
    for task, level, source in (
        ("MLP 100-50 on digits", 97.0, "scikit-learn's example of digits"),
        ("MLP 300-100 on Fashion-MNIST", 89.4, "results/update-schedule"),
        ("ResNet-20 on CIFAR-10", 83.2, "results/update-schedule"),
    )
]


def _moving(method: Callable[..., regrow.Method]) -> Arm:
    def arm(updates: int, fraction: float, decay: str, steps: int) -> dict[str, Any]:
        share, every = DECAY[decay](fraction), max(steps // updates, 1)
        own = {"drop_fraction": share, "update_every": every, "stop_at": 1.0}
        return {"method": method(density=DENSITY, **own)}

    return arm


CONTROLS: dict[str, Arm] = {
    "dense": lambda: {"method": regrow.Dense()},
    "small dense": lambda: {"method": regrow.Dense(), "narrow": DENSITY},
    "static": lambda: {"method": regrow.Static(density=DENSITY)},
}
CHOOSING = {"SET": _moving(regrow.SET), "RigL": _moving(partial(regrow.RigL, replaces_step=False))}
WALK = {"random walk": _moving(regrow.RandomWalk)}


def _trials(train: int, seeds: int, updates: tuple[int, ...], **setting: Any) -> Iterator[Labelled]:
    """Cross how often with how much; without decay, and at random, at the usual share only."""
    base = Classify(seed=0, method=regrow.Dense(), **setting)
    labels = {"task": in_words(f"{base.model} on {base.data}")}
    yield from grid(base, CONTROLS, seeds=seeds, labels=labels)
    steps = {"steps": base.epochs * (train // base.batch)}
    made = partial(grid, base, seeds=seeds, labels=labels, given=steps, updates=updates)
    yield from made(CHOOSING, fraction=FRACTIONS, decay=("cosine",))
    yield from made(CHOOSING, fraction=(0.3,), decay=("none",))
    yield from made(WALK, fraction=(0.3,), decay=("cosine",))


_DIGITS = {"data": "digits", "model": "mlp-100-50", "epochs": 20, "batch": 32}
_FASHION = {"data": "fashion-mnist", "model": "mlp-300-100", "epochs": 8, "schedule": "cosine"}
_CIFAR = {"data": "cifar10", "model": "resnet20", "epochs": 12, "schedule": "cosine"}
_RESIDUAL = {"weight_decay": 1e-4, "precision": "bfloat16", "warmup": 1.0}
_QUICK = {
    "fashion-mnist": partial(_trials, 60_000, 5, UPDATES, learning_rate=0.05, **_FASHION),
    "cifar10": partial(_trials, 50_000, 5, UPDATES, **_CIFAR, **_RESIDUAL),
}
_HOURS = "two hours on two CPU cores; with --data cifar10 half an hour on an H200 with --jobs 16"
PRESETS = {
    "smoke": Preset(
        "a minute", {"digits": partial(_trials, 898, 3, (5, 50, 150), **_DIGITS)}, judges=False
    ),
    "quick": Preset(_HOURS, _QUICK, default="fashion-mnist"),
}

_RIGL = "Evci et al. 2020, on update schedule and frequency (recalled; unverified)"
_ITOP = "Liu et al. 2021, on the update interval (recalled; unverified)"


def against_usual(arm: str, axis: str, place: Any) -> Effect:
    """Ask what another place of one axis gains over the usual one, mean over the other axes."""
    others = {a: p for a, p in {**USUAL, "updates": EVERY, "fraction": EVERY}.items() if a != axis}
    return gain({"arm": arm, axis: place}, {"arm": arm, axis: USUAL[axis]}, **others)


def over_static(arm: str, fraction: float) -> Effect:
    """Ask what moving gains over a static topology, mean over the numbers of updates."""
    return gain(arm, "static", updates=EVERY, fraction=fraction, decay="cosine")


CLAIMS = (
    claim(
        "Updating too often hurts: new connections need time to grow.",
        _ITOP,
        each(CHOOSING, lambda arm: against_usual(arm, "updates", HIGHEST)),
        below=0,
        answer=Answer(
            "updating most often is worse than 50 times in a run",
            "updating most often is no worse than 50 times in a run",
        ),
    ),
    claim(
        "Updating too rarely wastes the exchange.",
        _ITOP,
        each(CHOOSING, lambda arm: against_usual(arm, "updates", LOWEST)),
        below=0,
        answer=Answer(
            "updating least often is worse than 50 times in a run",
            "updating least often is no worse than 50 times in a run",
        ),
    ),
    claim(
        "A first share of 0.3 is as good as 0.1 and 0.5.",
        _RIGL,
        {f"{a}, {n:g}": against_usual(a, "fraction", n) for a in CHOOSING for n in (0.1, 0.5)},
        within=MARGIN,
        answer=Answer(
            "a first share of 0.3 is as good as 0.1 and 0.5",
            "the first share matters",
        ),
    ),
    claim(
        "The share should fall: without decay it is worse.",
        _RIGL,
        each(CHOOSING, lambda arm: against_usual(arm, "decay", "none")),
        below=0,
    ),
    claim(
        "Moving beats a static topology, whatever the schedule.",
        "a control of ours",
        {f"{a}, {n:g}": over_static(a, n) for a in CHOOSING for n in FRACTIONS},
        above=0,
    ),
    claim(
        "Which connections are exchanged matters: at random nothing is gained over a static one.",
        "a control of ours",
        over_static("random walk", 0.3),
        below=MARGIN,
    ),
    claim(
        "At the usual schedule it beats a dense network with as many parameters.",
        "a control of ours",
        each(CHOOSING, lambda arm: gain(arm, "small dense", **USUAL)),
        above=0,
    ),
)

EXPLORED = percent("explored", "weights ever active")


def how_often(view: View) -> Iterator[Section]:
    """Draw accuracy and exploration by the number of updates, a panel a share."""
    for (task, here), measure in product(view.by("task").items(), (ACCURACY, EXPLORED)):
        asked = partial(level, measure=measure, decay="cosine")
        panels = {
            f"first share {n:g}": charts.curves_of(
                here,
                lambda arm, u, n=n, asked=asked: asked(arm, updates=u, fraction=n),  # type: ignore[misc]
                CHOOSING,
                here.axis("updates"),
            )
            for n in FRACTIONS
        }
        controls = charts.rows_of(here, {arm: level(arm) for arm in ("dense", "static")})
        yield from charts.curves(
            f"{measure.name.capitalize()} by the number of updates: {task}",
            "The share exchanged falls to 0 along a cosine.",
            panels,
            x="updates in a run",
            y=f"{measure.name}, %",
            colours=charts.palette(CHOOSING),
            levels=dict.fromkeys(panels, controls) if measure is ACCURACY else None,
        )


def choices(view: View) -> Iterator[Section]:
    """Draw what choices gain over the usual ones, over all tasks."""
    axes = {"updates": UPDATES, "fraction": FRACTIONS, "decay": DECAY}
    asked = [(arm, axis, n) for arm in CHOOSING for axis in axes for n in axes[axis]]
    effects = {
        f"{arm}: {axis} {n}": against_usual(arm, axis, n)
        for arm, axis, n in asked
        if n != USUAL[axis]
    }
    text = "Against 50 updates, a first share of 0.3, a cosine; mean over the other axes and tasks."
    panels = {"": charts.rows_of(view, effects)}
    yield from charts.rows("What each choice is worth", text, panels, x="points", band=MARGIN)


def accuracies(view: View) -> Iterator[Section]:
    """Write all accuracies."""
    for task, here in view.by("task").items():
        updates = here.axis("updates")
        lines = {arm: [here.where(arm=arm).mean(ACCURACY)] * len(updates) for arm in CONTROLS}
        for arm, n, decay in product((*CHOOSING, *WALK), FRACTIONS, DECAY):
            cell = partial(level, arm, fraction=n, decay=decay)
            lines[f"{arm}, {n:g}, decay {decay}"] = [cell(updates=u).maybe(here) for u in updates]
        table = charts.values_table(lines, [f"{n} updates" for n in updates])
        yield Section(f"All accuracies: {task}", "Test accuracy in per cent.", table=table)


STUDY = Study(
    name="update-schedule",
    title="How often, and how much, should a sparse network exchange its connections?",
    source="Evci et al. 2020, Rigging the Lottery (ICML, arXiv 1911.11134); Liu et al. 2021, Do We "
    "Actually Need Dense Over-Parameterization? (ICML, arXiv 2102.02887)",
    about="SET and RigL at density 0.1, with 5 to 500 updates in a run and a first share of 0.1, "
    "0.3 or 0.5 exchanged, falling along a cosine or not. Controls: a static topology, random "
    "exchange, dense training, a narrower dense network with no more parameters.",
    presets=PRESETS,
    claims=CLAIMS,
    known=KNOWN,
    page=(partial(charts.verdicts_by_task, CLAIMS), how_often, choices, accuracies),
)
