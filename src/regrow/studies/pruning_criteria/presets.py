"""The sizes at which the study can be run."""

from __future__ import annotations

from collections.abc import Sequence

from regrow.lab.study import Preset
from regrow.lab.trial import Trial
from regrow.studies.pruning_criteria.trials import Setup, few_samples, grid, overlaps, periods

__all__ = ["PRESETS", "quick_setups"]

_STUDY_DENSITIES = (0.05, 0.06, 0.07, 0.08, 0.09, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)
_STUDY_PERIODS = (25, 50, 100, 200, 400, 800, 1600, 3200, 6400)


def quick_setups(data: str) -> dict[str, Setup]:
    """Return how the models of the quick preset learn a data set, by model.

    Learning rates are the study's for residual networks, and larger than its 0.01 for the others,
    whose runs are several times shorter. Nothing was tuned on test images.
    """
    if data == "fashion-mnist":
        common = {"samples": 20_000, "learning_rate": 0.05}
        return {
            "mlp-300-100": Setup.of(data, "mlp-300-100", epochs=10, **common),
            "lenet5": Setup.of(data, "lenet5", epochs=10, **common),
        }
    half = {"samples": 50_000, "precision": "bfloat16"}
    return {
        "mlp-1024-512": Setup.of(data, "mlp-1024-512", epochs=10, learning_rate=0.05, **half),
        "small-conv": Setup.of(data, "small-conv", epochs=12, learning_rate=0.05, **half),
        "resnet20": Setup.of(data, "resnet20", epochs=12, weight_decay=1e-4, **half),
    }


def _smoke(data: str | None) -> Sequence[Trial]:
    _check(data, ("digits",))
    setup = Setup.of(
        "digits", "mlp-100-50", samples=898, epochs=12, batch=64, learning_rate=0.05
    )
    return [
        *grid(setup, 3, (0.05, 0.2), ("magnitude", "SNIP", "random")),
        *periods(setup, 3, (4, 16, 64), (0.1,), ("magnitude",)),
        *overlaps(setup, 3, 0.2, every=8),
        *few_samples(setup, 3, (0.95, 0.5), (0.2,)),
    ]


def _quick(data: str | None) -> Sequence[Trial]:
    _check(data, ("fashion-mnist", "cifar10"))
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
    few = Setup.of(
        first.base.data, first.base.model, samples=1000, epochs=60, batch=100, learning_rate=0.05
    )
    trials += few_samples(few, 5, (0.95, 0.8, 0.5), (0.05, 0.2, 0.5))
    return trials


def _paper(data: str | None) -> Sequence[Trial]:
    setups = _paper_setups()
    chosen = [setup for name, setup in setups if data in (None, name)]
    _check(data, tuple(dict.fromkeys(name for name, _ in setups)))
    trials: list[Trial] = []
    for setup in chosen:
        if setup.base.data == "imagenet":
            trials += grid(setup, 1, (0.2,))
            continue
        trials += grid(setup, 5, _STUDY_DENSITIES)
        if setup.base.data == "cifar10":
            trials += periods(setup, 5, _STUDY_PERIODS, (0.1, 0.2))
            trials += overlaps(setup, 5, 0.2)
    return trials


def _paper_setups() -> list[tuple[str, Setup]]:
    """Return the study's own settings, by data set."""
    plain = {"epochs": 100, "learning_rate": 0.01}
    residual = {"epochs": 200, "learning_rate": 0.1, "weight_decay": 1e-4}
    setups = [
        Setup.of("cifar10", "mlp-1024-512", samples=45_000, validation=0.1, **plain),
        Setup.of("cifar10", "small-conv", samples=45_000, validation=0.1, **plain),
        Setup.of("cifar10", "resnet56", samples=45_000, validation=0.1, **residual),
        Setup.of("cifar100", "resnet56", samples=45_000, validation=0.1, **residual),
        Setup.of(
            "cifar100",
            "vgg16",
            samples=45_000,
            validation=0.1,
            **residual | {"learning_rate": 0.01},
        ),
        Setup.of("fashion-mnist", "lenet5", samples=54_000, validation=0.1, **plain),
        Setup.of(
            "tiny-imagenet",
            "efficientnet-b0",
            samples=90_000,
            validation=0.1,
            weight_decay=1e-3,
            nesterov=False,
            **plain,
        ),
        Setup.of(
            "imagenet",
            "resnet50",
            samples=1_281_167,
            epochs=90,
            batch=256,
            weight_decay=1e-4,
            label_smoothing=0.1,
            warmup=5,
            milestones=(1 / 3, 2 / 3, 8 / 9),
            precision="bfloat16",
        ),
    ]
    higgs = Setup.of("higgs", "mlp-256-256", samples=659_000, **plain)
    return [(setup.base.data, setup) for setup in (*setups, higgs)]


def _check(data: str | None, known: Sequence[str]) -> None:
    if data is not None and data not in known:
        raise ValueError(f"data={data!r}: this preset knows {', '.join(known)}")


PRESETS = {
    "smoke": Preset("under a minute on two CPU cores (digits)", _smoke),
    "quick": Preset(
        "with --data fashion-mnist half an hour on two CPU cores for the perceptron and two for "
        "LeNet-5; with --data cifar10 half an hour on two GPUs",
        _quick,
    ),
    "paper": Preset("GPU months: as in the paper, on its own data", _paper),
}
