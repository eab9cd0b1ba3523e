"""The sizes at which the study can be run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from regrow.lab.study import Preset, check_data
from regrow.lab.trial import Trial
from regrow.studies.hard_samples.attacks import Attack
from regrow.studies.hard_samples.conditions import (
    ALL,
    ATTACKED,
    Condition,
    hardest,
    random,
    severity,
)
from regrow.studies.hard_samples.methods import CORE, EXTRA, METHODS
from regrow.studies.hard_samples.ranking import Ranking
from regrow.studies.hard_samples.trials import Setup, cells

__all__ = ["PRESETS", "quick_setup"]

_SEEDS = 3
_QUICK_SEEDS = 5  # the mean over its two tasks has as many as the one with fewer
_TENTHS = tuple(round(0.1 * n, 1) for n in range(1, 10))
_EVERY = tuple(METHODS)
_UNDER_ATTACK = (*CORE, "dense twice", "RigL", "OMP")


def _smoke(data: str | None) -> Sequence[Trial]:
    check_data(data, ("digits",))
    setup = Setup.of(
        898,
        data="digits",
        model="mlp-300-100",
        epochs=12,
        batch=64,
        learning_rate=0.1,
        ranking=Ranking(runs=2, epochs=4),
        attack=Attack(steps=3, step=4 / 255),
        equal_steps=True,
    )
    conditions = (hardest(0.5), random(0.5), random(0.2), severity(2), severity(5))
    return [
        *cells(setup, _SEEDS, conditions, (0.5, 0.2)),
        *cells(setup, _SEEDS, [hardest(0.5)], (0.2,), EXTRA),
        *cells(setup, _SEEDS, [ATTACKED], (0.1,)),
    ]


def quick_setup(data: str) -> Setup:
    """Return how the quick preset learns a data set: 400,000 to 500,000 samples a run.

    Learning rate, batch and decay are the study's for the residual network; a perceptron has half
    the learning rate. In eight epochs a residual network has no time to recover from a start at
    the full rate, so it warms up for an epoch, and the rate falls along a cosine. Nothing was
    tuned on test images.
    """
    shared: dict[str, Any] = {
        "data": data,
        "weight_decay": 5e-4,
        "attack": Attack(steps=3, step=4 / 255),
        "equal_steps": True,
    }
    if data == "fashion-mnist":
        ranking = Ranking(runs=5, epochs=2)
        fields: dict[str, Any] = {"model": "mlp-300-100", "learning_rate": 0.05, "epochs": 8}
        return Setup.of(60_000, ranking=ranking, **shared, **fields)
    ranking = Ranking(runs=5, epochs=3)
    fields = {"model": "resnet18", "epochs": 8, "precision": "bfloat16"}
    fields |= {"schedule": "cosine", "warmup": 1.0}
    return Setup.of(50_000, ranking=ranking, **shared, **fields)


def _quick(data: str | None) -> Sequence[Trial]:
    check_data(data, ("fashion-mnist", "cifar10"))
    setup = quick_setup(data or "fashion-mnist")
    shares = (hardest(0.5), random(0.5), hardest(0.3), random(0.3), random(0.2), ALL)
    return [
        *cells(setup, _QUICK_SEEDS, shares, (0.5, 0.2, 0.1)),
        *cells(setup, _QUICK_SEEDS, [severity(5), severity(2), severity(4)], (0.5, 0.1)),
        *cells(setup, _QUICK_SEEDS, [ATTACKED], (0.1,), _UNDER_ATTACK),
        *cells(setup, _QUICK_SEEDS, [hardest(0.5)], (0.2, 0.1), EXTRA),
    ]


def _paper(data: str | None) -> Sequence[Trial]:
    check_data(data, ("cifar10", "cifar100", "tiny-imagenet"))
    return [trial for trial in _paper_trials() if data in (None, trial.data)]


_PAPER: dict[str, Any] = {"epochs": 200, "weight_decay": 5e-4}
_INTRINSIC = (hardest(0.5), hardest(0.3), *map(random, _TENTHS), ALL)
_CORRUPTED = tuple(severity(n, share) for n in (5, 4, 2) for share in (1.0, 0.3))
_ADVERSARIAL = (ATTACKED, Condition(0.5, attacked=True))


def _paper_trials() -> Iterator[Any]:
    """Yield the study's own grid: sparsity 10 % to 90 %, three seeds, every method.

    Without its VGG-19, and without severity 6, which the corruptions do not have.
    """
    densities = tuple(reversed(_TENTHS))
    for train, data, model in (
        (50_000, "cifar100", "resnet18"),
        (100_000, "tiny-imagenet", "resnet34"),
    ):
        setup = Setup.of(train, data=data, model=model, **_PAPER)
        yield from cells(setup, _SEEDS, _INTRINSIC, densities, _EVERY)
        yield from cells(setup, _SEEDS, _CORRUPTED, densities, _EVERY)
    for data, model in (("cifar10", "vgg16"), ("cifar100", "resnet18")):
        setup = Setup.of(45_000, data=data, model=model, validation=0.1, **_PAPER)
        yield from cells(setup, _SEEDS, _ADVERSARIAL, (0.1, 0.2), _EVERY)


PRESETS = {
    "smoke": Preset("a minute on two CPU cores (digits)", _smoke),
    "quick": Preset(
        "with --data fashion-mnist two hours on two CPU cores (14 seconds a run, 50 if attacked); "
        "with --data cifar10 two hours on an H100, --jobs 7",
        _quick,
    ),
    "paper": Preset("GPU months: as in the paper, on its own data", _paper),
}
