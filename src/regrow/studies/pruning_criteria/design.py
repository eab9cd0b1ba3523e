"""What is run: criteria, growth, densities, update periods, overlaps, few samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import regrow
from regrow.engine.schedules import Cosine
from regrow.lab.design import Arm, Labelled, grid
from regrow.lab.study import Preset
from regrow.studies.names import in_words
from regrow.studies.pruning_criteria.criteria import CRITERIA, GROWTH, PAPER
from regrow.studies.pruning_criteria.overlaps import Overlaps
from regrow.studies.supervised.classify import Classify

__all__ = ["ARMS", "PRESETS", "Task", "criteria_grid", "few_samples", "overlaps", "periods"]

# ---------------------------------------------------------------------- arms

UPDATES = 44  # in a run: what 100 epochs of CIFAR-10 with 800 steps between updates come to
_FRACTION = Cosine(0.5, 0.005)


def _moving(criterion: str) -> Arm:
    """Drop by a criterion to the end of training, as the paper did."""
    return lambda density, growth, period: {
        "method": regrow.Dynamic(
            density=density,
            drop=CRITERIA[criterion],
            grow=GROWTH[growth],
            drop_fraction=_FRACTION,
            update_every=period,
            stop_at=1.0,
        )
    }


ARMS: dict[str, Arm] = {
    "dense": lambda: {"method": regrow.Dense()},
    "dropout": lambda dropout: {"method": regrow.Dense(), "dropout": dropout},
    "small dense": lambda density: {"method": regrow.Dense(), "narrow": density},
    "static": lambda density: {"method": regrow.Static(density=density)},
    **{name: _moving(name) for name in CRITERIA},
}

# ---------------------------------------------------------------------- the four questions


@dataclass(frozen=True)
class Task:
    """How a model learns a data set, whatever the arm.

    Args:
        base: all of the trial but arm and seed.
        train: how many samples there are to train on.
        more: what the task's name says beside model and data.
    """

    base: Classify
    train: int
    more: str = ""

    @property
    def period(self) -> int:
        """Steps between updates that make a run's number of updates the same for all tasks."""
        steps = self.base.epochs * (self.train // self.base.batch)
        return max(steps // UPDATES, 1)

    def trials(self, part: str, arms: Sequence[str], seeds: int, **axes: Any) -> list[Labelled]:
        """Run arms for one part of the study; criteria have the task's period if none is named."""
        moving = {} if CRITERIA.keys().isdisjoint(arms) else {"period": (self.period,)}
        name = in_words(f"{self.base.model} on {self.base.data}{self.more}")
        return grid(
            self.base,
            {arm: ARMS[arm] for arm in arms},
            seeds=seeds,
            labels={"task": name, "part": part},
            **(moving | axes),
        )


def criteria_grid(
    task: Task,
    seeds: int,
    densities: Sequence[float],
    criteria: Sequence[str] = (*PAPER, "random"),
) -> Iterator[Labelled]:
    """Question 1: every criterion and growth at every density, with all controls.

    Controls: dense; dense with as many parameters; static random topology; dropping at random; the
    rule that public code ships as SET's, with random growth, which it was made for.
    """
    run = partial(task.trials, "grid", seeds=seeds, density=densities)
    yield from run(("dense", "small dense", "static", *criteria), growth=tuple(GROWTH))
    yield from run(("SET as shipped",), growth=("random",))


def periods(
    task: Task,
    seeds: int,
    lengths: Sequence[int],
    densities: Sequence[float],
    criteria: Sequence[str] = ("magnitude", "SNIP", "random"),
) -> Iterator[Labelled]:
    """Question 2: steps between updates."""
    axes = {"density": densities, "growth": tuple(GROWTH), "period": lengths}
    yield from task.trials("periods", ("static", *criteria), seeds, **axes)


def overlaps(task: Task, seeds: int, density: float, every: int = 4) -> Iterator[Labelled]:
    """Question 3: what criteria would drop from one state, now and again during training."""
    kept = {field.name: getattr(task.base, field.name) for field in fields(task.base)}
    asked = replace(task, base=Overlaps(**kept, every=every))
    axes = {"density": (density,), "growth": ("gradient",)}
    yield from asked.trials("overlaps", ("magnitude",), seeds, **axes)


def few_samples(
    task: Task, seeds: int, densities: Sequence[float], dropouts: Sequence[float]
) -> Iterator[Labelled]:
    """Question 4: dynamic sparse training as a regulariser, beside dropout."""
    axes = {"density": densities, "growth": tuple(GROWTH), "dropout": dropouts}
    yield from task.trials(
        "few samples", ("dense", "dropout", "static", "magnitude"), seeds, **axes
    )


# ---------------------------------------------------------------------- presets


def _base(**setting: Any) -> Classify:
    return Classify(seed=0, method=regrow.Dense(), **setting)


def _few(task: Task, samples: int, **setting: Any) -> Task:
    base = replace(task.base, samples=samples, **setting)
    return Task(base, samples, f", {samples} samples")


# Learning rates are the paper's for residual networks, and larger than its 0.01 for the others,
# whose runs are several times shorter. Nothing was tuned on test images.
_FASHION = [
    Task(
        _base(data="fashion-mnist", model=model, samples=20_000, epochs=10, learning_rate=0.05),
        20_000,
    )
    for model in ("mlp-300-100", "lenet5")
]
_CIFAR = [
    Task(_base(data="cifar10", precision="bfloat16", **setting), 50_000)
    for setting in (
        {"model": "mlp-1024-512", "epochs": 10, "learning_rate": 0.05},
        {"model": "small-conv", "epochs": 12, "learning_rate": 0.05},
        {"model": "resnet20", "epochs": 8, "learning_rate": 0.1, "weight_decay": 1e-4},
    )
]


def _smoke() -> Iterator[Labelled]:
    base = _base(data="digits", model="mlp-100-50", epochs=16, batch=64, learning_rate=0.05)
    task = Task(base, 898)
    yield from criteria_grid(task, 3, (0.05, 0.2), PAPER)
    yield from periods(task, 3, (2, 16, 64), (0.1,), ("magnitude", "SNIP"))
    yield from overlaps(task, 3, 0.2, every=8)
    yield from few_samples(_few(task, 256, epochs=30), 3, (0.95, 0.5), (0.2,))


def _quick(tasks: Sequence[Task]) -> Iterator[Labelled]:
    for task in tasks:
        yield from criteria_grid(task, 5, (0.05, 0.1, 0.2))


def _quick_fashion() -> Iterator[Labelled]:
    yield from _quick(_FASHION)
    first, _ = _FASHION
    yield from overlaps(first, 5, 0.2)
    yield from periods(first, 5, (10, 25, 50, 100, 200, 400, 800), (0.1,))
    few = _few(first, 1000, batch=100, epochs=60)
    yield from few_samples(few, 5, (0.95, 0.8, 0.5), (0.05, 0.2, 0.5))


def _quick_cifar() -> Iterator[Labelled]:
    yield from _quick(_CIFAR)
    perceptron, _, residual = _CIFAR
    yield from overlaps(perceptron, 5, 0.2)
    yield from overlaps(residual, 5, 0.2)


_DENSITIES = (0.05, 0.06, 0.07, 0.08, 0.09, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)
_PERIODS = (25, 50, 100, 200, 400, 800, 1600, 3200, 6400)
_PLAIN = {"validation": 0.1, "learning_rate": 0.01, "epochs": 100}
_RESIDUAL = _PLAIN | {"learning_rate": 0.1, "epochs": 200, "weight_decay": 1e-4}
_TINY = {"weight_decay": 1e-3, "nesterov": False}
_IMAGENET: dict[str, Any] = {
    "epochs": 90,
    "batch": 256,
    "learning_rate": 0.1,
    "weight_decay": 1e-4,
    "label_smoothing": 0.1,
    "warmup": 5.0,
    "milestones": (1 / 3, 2 / 3, 8 / 9),
    "precision": "bfloat16",
}
_PAPER: dict[str, tuple[int, dict[str, dict[str, Any]]]] = {
    "cifar10": (
        45_000,
        {"mlp-1024-512": _PLAIN, "small-conv": _PLAIN, "resnet56": _RESIDUAL},
    ),
    "cifar100": (45_000, {"resnet56": _RESIDUAL, "vgg16": _RESIDUAL | {"learning_rate": 0.01}}),
    "fashion-mnist": (54_000, {"lenet5": _PLAIN}),
    "tiny-imagenet": (90_000, {"efficientnet-b0": _PLAIN | _TINY}),
    "imagenet": (1_281_167, {"resnet50": _IMAGENET}),
    "higgs": (658_112, {"mlp-256-256": _PLAIN | {"validation": 15 / 85}}),
}
"""How many samples the paper trains on, and its settings by model, by data set."""


def _paper(data: str) -> Iterator[Labelled]:
    train, settings = _PAPER[data]
    for model, setting in settings.items():
        base = _base(data=data, model=model, **setting)
        task = Task(base, train, f", {base.epochs} epochs")
        if data == "imagenet":
            yield from criteria_grid(task, 1, (0.2,))
            continue
        yield from criteria_grid(task, 5, _DENSITIES)
        if data == "cifar10":
            yield from periods(task, 5, _PERIODS, (0.1, 0.2))
            yield from overlaps(task, 5, 0.2)


PRESETS = {
    "smoke": Preset("under a minute on two CPU cores (digits)", {"digits": _smoke}, judges=False),
    "quick": Preset(
        "with --data fashion-mnist half an hour on two CPU cores for the perceptron and two for "
        "LeNet-5; with --data cifar10 half an hour on two GPUs",
        {"fashion-mnist": _quick_fashion, "cifar10": _quick_cifar},
        default="fashion-mnist",
    ),
    "paper": Preset(
        "GPU months: as in the paper, on its own data",
        {data: partial(_paper, data) for data in _PAPER},
    ),
}
