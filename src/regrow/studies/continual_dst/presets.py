"""The sizes at which the study can be run."""

from __future__ import annotations

from collections.abc import Sequence

from regrow.continual.baselines import Training
from regrow.continual.streams import STREAMS
from regrow.lab.study import Preset, check_data
from regrow.lab.trial import Trial
from regrow.studies.continual_dst.trials import Setting, controls, grid

__all__ = ["PRESETS"]

_DENSITIES = (0.05, 0.1, 0.2)

# Learning rates are usual ones for these networks; nothing was tuned on test images.
_QUICK = {
    "fashion-mnist": Setting(
        "permuted-fashion-mnist",
        "mlp-300-100",
        Training(epochs=5, batch=100, learning_rate=0.05),
        samples=10_000,
        tests=5_000,
    ),
    "cifar10": Setting(
        "split-cifar10",
        "resnet20",
        Training(epochs=5, batch=128, learning_rate=0.1),
        augment=True,
    ),
}
_SMOKE = Setting(
    "split-digits",
    "mlp-100-50",
    Training(epochs=8, batch=16, learning_rate=0.05),
    updates=10,
    buffer=50,
)

# By stream: epochs, batch, optimizer steps between updates, samples of a task.
_PAPER = {
    "split-cifar100-5": (100, 64, 100, 10_000),
    "split-cifar100-10": (100, 64, 400, 5_000),
    "split-cifar100-20": (25, 64, 100, 2_500),
    "split-mini-imagenet-5": (100, 128, 100, 10_000),
    "split-mini-imagenet-10": (100, 128, 400, 5_000),
    "split-mini-imagenet-20": (25, 128, 100, 2_500),
}


def _smoke(data: str | None) -> Sequence[Trial]:
    check_data(data, ("digits",))
    return _all(_SMOKE, 3, (0.05, 0.2))


def _quick(data: str | None) -> Sequence[Trial]:
    check_data(data, tuple(_QUICK))
    chosen = data or "fashion-mnist"
    return _all(_QUICK[chosen], 5 if chosen == "fashion-mnist" else 3, _DENSITIES)


def _paper(data: str | None) -> Sequence[Trial]:
    check_data(data, tuple(dict.fromkeys(STREAMS[stream].data for stream in _PAPER)))
    trials: list[Trial] = []
    for stream, (epochs, batch, every, samples) in _PAPER.items():
        if data not in (None, STREAMS[stream].data):
            continue
        training = Training(
            epochs=epochs,
            batch=batch,
            learning_rate=1e-3,
            optimizer="adamw",
            weight_decay=0.0,
            schedule="steps",
        )
        updates = max(training.steps(samples) // every, 1)
        setting = Setting(stream, "resnet18", training, augment=True, updates=updates, buffer=2000)
        trials += _all(setting, 3, _DENSITIES)
    return trials


def _all(setting: Setting, seeds: int, densities: Sequence[float]) -> list[Trial]:
    return [*grid(setting, seeds, densities), *controls(setting, seeds, densities)]


PRESETS = {
    "smoke": Preset("under a minute on two CPU cores (digits)", _smoke),
    "quick": Preset(
        "with --data fashion-mnist an hour on two CPU cores; with --data cifar10 some minutes on a "
        "large GPU with ten trials side by side",
        _quick,
    ),
    "paper": Preset("GPU weeks: networks and epochs of the public code, on its data", _paper),
}
