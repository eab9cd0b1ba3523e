"""The sizes at which the study can be run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import regrow
from regrow.lab.study import Preset, check_data
from regrow.lab.trial import Trial
from regrow.studies.corruption_robustness.methods import MOVING
from regrow.studies.corruption_robustness.trial import Robust
from regrow.vision.corruptions import CORRUPTIONS, EXTRA

__all__ = ["PRESETS", "Setup"]

RADII = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.2)
_UPDATES = 50  # in a run
_MANY = 15  # seeds where robustness differs by points from one to the next
_OTHERS = tuple(name for name in MOVING if name not in ("SET", "RigL"))


@dataclass(frozen=True)
class Setup:
    """How a model learns a data set, whatever the method.

    Args:
        base: all of the trial but method and seed.
        steps: optimizer steps of a run.
    """

    base: Robust
    steps: int

    @classmethod
    def of(cls, train: int, **setting: Any) -> Setup:
        """Make one for so many samples to train on, with fields of :class:`Robust`."""
        base = Robust(seed=0, method=regrow.Dense(), radii=RADII, **setting)
        return cls(base, base.epochs * (train // base.batch))

    def trials(
        self, seed: int, densities: Sequence[float], moving: Sequence[str], *, controls: bool = True
    ) -> Iterator[Robust]:
        """Make the trials of one seed: methods of the paper, and what they are held against."""
        base = replace(self.base, seed=seed)
        if controls:
            yield base
        for density in densities:
            if controls:
                yield replace(base, narrow=density)
                yield replace(base, method=regrow.Static(density=density))
            for name in moving:
                every = max(self.steps // _UPDATES, 1)
                yield replace(base, method=MOVING[name](density, every))


_SHORT = {"schedule": "cosine", "warmup": 1.0}
_CIFAR = {"data": "cifar10", "precision": "bfloat16", "learning_rate": 0.1, **_SHORT}
_FASHION = {"data": "fashion-mnist", "learning_rate": 0.05, **_SHORT}
# The best of 0.005, 0.01, 0.02 and 0.05 on clips held out of training, dense; 0.05 may diverge.
_CLIPS = {"data": "moving-fashion", "learning_rate": 0.02, **_SHORT}


def _smoke(data: str | None) -> Sequence[Trial]:
    check_data(data, ("digits",))
    setup = Setup.of(
        898, data="digits", model="conv-net", epochs=8, batch=64, tested=200, learning_rate=0.1
    )
    return [t for s in range(3) for t in setup.trials(s, (0.7, 0.5), ("SET", "RigL"))]


def _quick(data: str | None) -> Sequence[Trial]:
    check_data(data, ("fashion-mnist", "cifar10", "moving-fashion"))
    if data == "cifar10":
        return _quick_cifar()
    if data == "moving-fashion":
        clips = Setup.of(8000, model="small-conv3d", epochs=8, batch=64, **_CLIPS)
        return [t for s in range(5) for t in clips.trials(s, (0.9, 0.5), ("SET", "RigL"))]
    fashion = Setup.of(60_000, model="resnet20", epochs=6, **_FASHION, precision="bfloat16")
    densities = (0.9, 0.7, 0.5, 0.3)
    main = [t for s in range(_MANY) for t in fashion.trials(s, densities, ("SET", "RigL"))]
    return main + _others(fashion)


def _quick_cifar() -> list[Trial]:
    first = Setup.of(50_000, model="resnet18", epochs=12, **_CIFAR)
    second = Setup.of(50_000, model="vgg16", epochs=12, **_CIFAR | {"learning_rate": 0.05})
    trials: list[Trial] = []
    for seed in range(5):
        trials += first.trials(seed, (0.9, 0.7, 0.5, 0.3), ("SET", "RigL"))
    for seed in range(5):
        trials += second.trials(seed, (0.7, 0.5), ("SET", "RigL"))
    return trials + _others(first)


def _others(setup: Setup) -> list[Trial]:
    """Make the paper's other methods, at two densities."""
    return [t for s in range(5) for t in setup.trials(s, (0.7, 0.5), _OTHERS, controls=False)]


_LONG = {"epochs": 200, "learning_rate": 0.1, "schedule": "cosine"}
_IMAGENET = {
    "data": "imagenet",
    "published": True,
    "batch": 256,
    "warmup": 5.0,
    "schedule": "cosine",
    "weight_decay": 1e-4,
    "label_smoothing": 0.1,
    "precision": "bfloat16",
}
_VIT = {"optimizer": "adamw", "learning_rate": 5e-4, "weight_decay": 0.05, "batch": 512}


def _paper(data: str | None) -> Sequence[Trial]:
    all_19 = {"corruptions": CORRUPTIONS + EXTRA, "published": True}
    small = (0.7, 0.6, 0.5, 0.4, 0.3)
    settings: list[tuple[int, Sequence[float], dict[str, Any]]] = [
        (50_000, small, {"data": "cifar10", "model": "vgg16", **_LONG, **all_19}),
        (50_000, small, {"data": "cifar100", "model": "resnet34", **_LONG, **all_19}),
        (100_000, small, {"data": "tiny-imagenet", "model": "efficientnet-b0", **_LONG, **all_19}),
        (1_281_167, (0.9,), {"model": "resnet50", "epochs": 90, **_IMAGENET}),
        (1_281_167, (0.9,), {"model": "deit-base", "epochs": 300, **_IMAGENET, **_VIT}),
        (9537, (0.9,), {"data": "ucf101", "model": "resnet3d-50", **_LONG, "batch": 32}),
        (9537, (0.9,), {"data": "ucf101", "model": "i3d", **_LONG, "batch": 32}),
    ]
    check_data(data, tuple(dict.fromkeys(fields["data"] for _, _, fields in settings)))
    trials: list[Trial] = []
    for train, densities, fields in settings:
        if data in (None, fields["data"]):
            setup = Setup.of(train, **fields)
            for seed in range(3):
                trials += setup.trials(seed, densities, tuple(MOVING))
    return trials


PRESETS = {
    "smoke": Preset("a minute on two CPU cores (digits)", _smoke),
    "quick": Preset(
        "with --data fashion-mnist (its choice) or moving-fashion some minutes on a GPU, with "
        "--data cifar10 an hour",
        _quick,
    ),
    "paper": Preset("GPU months: as in the paper, on its own data", _paper),
}
