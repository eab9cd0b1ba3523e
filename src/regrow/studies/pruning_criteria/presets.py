"""The sizes at which the study can be run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from regrow.lab.study import Preset, check_data
from regrow.lab.trial import Trial
from regrow.studies.pruning_criteria.criteria import PAPER
from regrow.studies.pruning_criteria.trials import Setup, few_samples, grid, overlaps, periods

__all__ = ["PRESETS", "quick_setups"]

_STUDY_DENSITIES = (0.05, 0.06, 0.07, 0.08, 0.09, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)
_STUDY_PERIODS = (25, 50, 100, 200, 400, 800, 1600, 3200, 6400)


_QUICK_CIFAR: dict[str, dict[str, Any]] = {
    "mlp-1024-512": {"epochs": 10, "learning_rate": 0.05},
    "small-conv": {"epochs": 12, "learning_rate": 0.05},
    "resnet20": {"epochs": 8, "learning_rate": 0.1, "weight_decay": 1e-4},
}


def quick_setups(data: str) -> dict[str, Setup]:
    """Return how the models of the quick preset learn a data set, by model.

    Learning rates are the study's for residual networks, and larger than its 0.01 for the others,
    whose runs are several times shorter. Nothing was tuned on test images.
    """
    if data == "fashion-mnist":
        setups = [
            Setup.of(20_000, data=data, model=model, samples=20_000, epochs=10, learning_rate=0.05)
            for model in ("mlp-300-100", "lenet5")
        ]
    else:
        setups = [
            Setup.of(50_000, data=data, model=model, precision="bfloat16", **fields)
            for model, fields in _QUICK_CIFAR.items()
        ]
    return {setup.base.model: setup for setup in setups}


def _smoke(data: str | None) -> Sequence[Trial]:
    check_data(data, ("digits",))
    setup = Setup.of(
        898, data="digits", model="mlp-100-50", epochs=16, batch=64, learning_rate=0.05
    )
    few = Setup(replace(setup.base, samples=256, epochs=30), 120)
    return [
        *grid(setup, 3, (0.05, 0.2), PAPER),
        *periods(setup, 3, (2, 16, 64), (0.1,), ("magnitude", "SNIP")),
        *overlaps(setup, 3, 0.2, every=8),
        *few_samples(few, 3, (0.95, 0.5), (0.2,)),
    ]


def _quick(data: str | None) -> Sequence[Trial]:
    check_data(data, ("fashion-mnist", "cifar10"))
    setups = quick_setups(data or "fashion-mnist")
    trials: list[Trial] = []
    for setup in setups.values():
        trials += grid(setup, 5, (0.05, 0.1, 0.2))
    first = next(iter(setups.values()))
    trials += overlaps(first, 5, 0.2)
    if data == "cifar10":
        trials += overlaps(setups["resnet20"], 5, 0.2)
        return trials
    trials += periods(first, 5, (10, 25, 50, 100, 200, 400, 800), (0.1,))
    few = Setup(replace(first.base, samples=1000, batch=100, epochs=60), 600)
    trials += few_samples(few, 5, (0.95, 0.8, 0.5), (0.05, 0.2, 0.5))
    return trials


def _paper(data: str | None) -> Sequence[Trial]:
    setups = _paper_setups()
    check_data(data, tuple(dict.fromkeys(setup.base.data for setup in setups)))
    trials: list[Trial] = []
    for setup in setups:
        if data not in (None, setup.base.data):
            continue
        if setup.base.data == "imagenet":
            trials += grid(setup, 1, (0.2,))
            continue
        trials += grid(setup, 5, _STUDY_DENSITIES)
        if setup.base.data == "cifar10":
            trials += periods(setup, 5, _STUDY_PERIODS, (0.1, 0.2))
            trials += overlaps(setup, 5, 0.2)
    return trials


_TINY = {"weight_decay": 1e-3, "nesterov": False}
_IMAGENET = {
    "epochs": 90,
    "batch": 256,
    "learning_rate": 0.1,
    "weight_decay": 1e-4,
    "label_smoothing": 0.1,
    "warmup": 5.0,
    "milestones": (1 / 3, 2 / 3, 8 / 9),
    "precision": "bfloat16",
}


def _paper_setups() -> list[Setup]:
    """Return the study's own settings."""
    cifar = {"validation": 0.1, "learning_rate": 0.01, "epochs": 100}
    residual = cifar | {"learning_rate": 0.1, "epochs": 200, "weight_decay": 1e-4}
    settings: list[tuple[int, dict[str, Any]]] = [
        (45_000, {"data": "cifar10", "model": "mlp-1024-512", **cifar}),
        (45_000, {"data": "cifar10", "model": "small-conv", **cifar}),
        (45_000, {"data": "cifar10", "model": "resnet56", **residual}),
        (45_000, {"data": "cifar100", "model": "resnet56", **residual}),
        (45_000, {"data": "cifar100", "model": "vgg16", **residual | {"learning_rate": 0.01}}),
        (54_000, {"data": "fashion-mnist", "model": "lenet5", **cifar}),
        (90_000, {"data": "tiny-imagenet", "model": "efficientnet-b0", **cifar, **_TINY}),
        (1_281_167, {"data": "imagenet", "model": "resnet50", **_IMAGENET}),
        (658_112, {"data": "higgs", "model": "mlp-256-256", **cifar | {"validation": 15 / 85}}),
    ]
    return [Setup.of(train, **fields) for train, fields in settings]


PRESETS = {
    "smoke": Preset("under a minute on two CPU cores (digits)", _smoke),
    "quick": Preset(
        "with --data fashion-mnist half an hour on two CPU cores for the perceptron and two for "
        "LeNet-5; with --data cifar10 half an hour on two GPUs",
        _quick,
    ),
    "paper": Preset("GPU months: as in the paper, on its own data", _paper),
}
