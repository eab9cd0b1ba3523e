"""What is run: methods of the paper and their controls, models and data, and the sizes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import regrow
from regrow.engine.schedules import Cosine
from regrow.engine.scores import Gradient, Magnitude, Random
from regrow.lab.design import Arm, Labelled, grid
from regrow.lab.study import Preset
from regrow.studies.corruption_robustness.trial import Robust
from regrow.studies.names import in_words
from regrow.vision.corruptions import CORRUPTIONS, EXTRA

__all__ = ["ARMS", "CONTROLS", "MOVING", "PRESETS", "RADII", "Task"]

# ---------------------------------------------------------------------- arms

UPDATES = 50  # in a run
_FRACTION = Cosine(0.5, 0.005)
_SOFT_MEMORY = 0.1
_GRANET_START = 0.8


def _exchange(grow: Random | Gradient) -> Arm:
    return lambda density, every: {
        "method": regrow.Dynamic(
            density=density,
            drop=Magnitude(),
            grow=grow,
            drop_fraction=_FRACTION,
            update_every=every,
            stop_at=1.0,
        )
    }


def _mest(grow: Random | Gradient) -> Arm:
    return lambda density, every: {
        "method": regrow.MEST(
            density=density, gamma=0.0, soft_memory=_SOFT_MEMORY, grow=grow, update_every=every
        )
    }


def _granet(grow: Random | Gradient) -> Arm:
    return lambda density, every: {
        "method": regrow.GraNet(
            density=density,
            grow=grow,
            drop_fraction=_FRACTION,
            initial_density=_GRANET_START if density < _GRANET_START else 1.0,
            update_every=every,
        )
    }


MOVING: dict[str, Arm] = {
    "SET": _exchange(Random()),
    "RigL": _exchange(Gradient()),
    "MEST, random growth": _mest(Random()),
    "MEST, gradient growth": _mest(Gradient()),
    "GraNet, random growth": _granet(Random()),
    "GraNet, gradient growth": _granet(Gradient()),
}
"""What the paper tried. All drop by magnitude, as there."""

ARMS: dict[str, Arm] = {
    "dense": lambda: {"method": regrow.Dense()},
    "small dense": lambda density: {"method": regrow.Dense(), "narrow": density},
    "static": lambda density: {"method": regrow.Static(density=density)},
    **MOVING,
}
CONTROLS = ("dense", "small dense", "static")

# ---------------------------------------------------------------------- trials

RADII = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.2)


@dataclass(frozen=True)
class Task:
    """How a model learns a data set, whatever the arm.

    Args:
        base: all of the trial but arm and seed.
        train: how many samples there are to train on.
        more: what the task's name says beside model and data.
    """

    base: Robust
    train: int
    more: str = ""

    def trials(
        self, seeds: int, densities: Sequence[float], arms: Sequence[str], part: str = "main"
    ) -> list[Labelled]:
        """Run arms at densities, with all seeds.

        Args:
            seeds: how many.
            densities: of all arms but the dense one.
            arms: by name.
            part: "main", or "others" for methods that are not run at all densities of the task.
        """
        steps = self.base.epochs * (self.train // self.base.batch)
        task = in_words(f"{self.base.model} on {self.base.data}{self.more}")
        return grid(
            self.base,
            {name: ARMS[name] for name in arms},
            seeds=seeds,
            labels={"task": task, "part": part},
            given={"every": max(steps // UPDATES, 1)},
            density=densities,
        )


def _base(**setting: Any) -> Robust:
    return Robust(seed=0, method=regrow.Dense(), radii=RADII, **setting)


# ---------------------------------------------------------------------- presets

_MAIN = (*CONTROLS, "SET", "RigL")
_OTHERS = tuple(name for name in MOVING if name not in _MAIN)
_MANY = 15  # seeds where robustness differs by points from one to the next

_SHORT = {"schedule": "cosine", "warmup": 1.0}
_CIFAR = {"data": "cifar10", "epochs": 12, "precision": "bfloat16", **_SHORT}


def _smoke() -> list[Labelled]:
    setting = {"epochs": 8, "batch": 64, "tested": 200, "learning_rate": 0.1}
    task = Task(_base(data="digits", model="conv-net", **setting), 898)
    return task.trials(3, (0.7, 0.5), _MAIN)


def _quick_fashion() -> Iterator[Labelled]:
    setting = {"epochs": 6, "learning_rate": 0.05, "precision": "bfloat16", **_SHORT}
    task = Task(_base(data="fashion-mnist", model="resnet20", **setting), 60_000)
    yield from task.trials(_MANY, (0.9, 0.7, 0.5, 0.3), _MAIN)
    yield from task.trials(5, (0.7, 0.5), _OTHERS, "others")


def _quick_cifar() -> Iterator[Labelled]:
    first = Task(_base(model="resnet18", learning_rate=0.1, **_CIFAR), 50_000)
    second = Task(_base(model="vgg16", learning_rate=0.05, **_CIFAR), 50_000)
    yield from first.trials(5, (0.9, 0.7, 0.5, 0.3), _MAIN)
    yield from second.trials(5, (0.7, 0.5), _MAIN)
    yield from first.trials(5, (0.7, 0.5), _OTHERS, "others")


def _quick_clips() -> list[Labelled]:
    # The best rate of 0.005, 0.01, 0.02 and 0.05 on clips held out of training, dense; 0.05 may
    # diverge.
    setting = {"epochs": 8, "batch": 64, "learning_rate": 0.02, **_SHORT}
    task = Task(_base(data="moving-fashion", model="small-conv3d", **setting), 8000)
    return task.trials(5, (0.9, 0.5), _MAIN)


_SMALL = (0.7, 0.6, 0.5, 0.4, 0.3)
_LONG: dict[str, Any] = {"epochs": 200, "learning_rate": 0.1, "schedule": "cosine"}
_ALL_19 = _LONG | {"corruptions": CORRUPTIONS + EXTRA, "published": True}
_CLIPS = _LONG | {"batch": 32}
_RESNET: dict[str, Any] = {
    "epochs": 90,
    "published": True,
    "batch": 256,
    "warmup": 5.0,
    "schedule": "cosine",
    "weight_decay": 1e-4,
    "label_smoothing": 0.1,
    "precision": "bfloat16",
}
_ADAMW = {"optimizer": "adamw", "learning_rate": 5e-4, "weight_decay": 0.05}
_VIT = _RESNET | {"epochs": 300, "batch": 512, **_ADAMW}
_PAPER: dict[str, tuple[int, Sequence[float], dict[str, dict[str, Any]]]] = {
    "cifar10": (50_000, _SMALL, {"vgg16": _ALL_19}),
    "cifar100": (50_000, _SMALL, {"resnet34": _ALL_19}),
    "tiny-imagenet": (100_000, _SMALL, {"efficientnet-b0": _ALL_19}),
    "imagenet": (1_281_167, (0.9,), {"resnet50": _RESNET, "deit-base": _VIT}),
    "ucf101": (9537, (0.9,), {"resnet3d-50": _CLIPS, "i3d": _CLIPS}),
}
"""How many samples the paper trains on, its densities, and settings by model, by data set."""


def _paper(data: str) -> Iterator[Labelled]:
    train, densities, settings = _PAPER[data]
    for model, setting in settings.items():
        base = _base(data=data, model=model, **setting)
        yield from Task(base, train, f", {base.epochs} epochs").trials(3, densities, tuple(ARMS))


PRESETS = {
    "smoke": Preset("a minute on two CPU cores (digits)", {"digits": _smoke}, judges=False),
    "quick": Preset(
        "with --data fashion-mnist (its choice) or moving-fashion some minutes on a GPU, with "
        "--data cifar10 an hour",
        {
            "fashion-mnist": _quick_fashion,
            "cifar10": _quick_cifar,
            "moving-fashion": _quick_clips,
        },
        default="fashion-mnist",
    ),
    "paper": Preset(
        "GPU months: as in the paper, on its own data",
        {data: partial(_paper, data) for data in _PAPER},
    ),
}
