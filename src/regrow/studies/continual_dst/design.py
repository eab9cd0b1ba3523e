"""What is run: who learns, streams and networks, and the sizes of the study."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from regrow.continual.baselines import Training
from regrow.continual.streams import STREAMS
from regrow.lab.design import Arm, Labelled, grid
from regrow.lab.study import Preset
from regrow.studies.continual_dst.learners import (
    ALLOCATIONS,
    GROWTH,
    Consolidated,
    FineTuned,
    Joined,
    Packed,
    Rehearsed,
    Separate,
    SpaceReserved,
    Stabilised,
    Subnetworks,
)
from regrow.studies.continual_dst.trial import LearnStream
from regrow.studies.names import in_words

__all__ = ["ARMS", "PRESETS", "trials"]

ARMS: dict[str, Arm] = {
    "DST": lambda density, allocation, growth, updates: {
        "learner": Subnetworks(density, allocation, growth, updates)
    },
    "static": lambda density, allocation, updates: {
        "learner": Subnetworks(density, allocation, "static", updates)
    },
    "naive": lambda: {"learner": FineTuned()},
    "EWC": lambda: {"learner": Consolidated()},
    "replay": lambda buffer: {"learner": Rehearsed(buffer)},
    "joint": lambda: {"learner": Joined()},
    "independent": lambda: {"learner": Separate()},
    "independent, same size": lambda: {"learner": Separate(same_total=True)},
    "independent, sparse": lambda density, updates: {"learner": Separate(density, updates=updates)},
    "PackNet": lambda density: {"learner": Packed(density)},
    "SpaceNet-like": lambda density, updates: {"learner": SpaceReserved(density, updates)},
    "NISPA-like": lambda density, updates: {"learner": Stabilised(density, updates)},
}


def trials(
    base: LearnStream,
    seeds: int,
    densities: Sequence[float] = (0.05, 0.1, 0.2),
    *,
    updates: int = 20,
    buffer: int = 500,
) -> list[Labelled]:
    """Let every arm learn a stream, with all seeds.

    Args:
        base: all of the trial but learner and seed.
        seeds: how many.
        densities: of a task's network.
        updates: of a topology within a task.
        buffer: samples that replay keeps.
    """
    return grid(
        base,
        ARMS,
        seeds=seeds,
        labels={"task": in_words(f"{base.stream}, {base.model}")},
        given={"updates": updates, "buffer": buffer},
        allocation=tuple(ALLOCATIONS),
        growth=tuple(GROWTH),
        density=densities,
    )


def _base(stream: str, model: str, training: Training, **fields: Any) -> LearnStream:
    return LearnStream(
        seed=0, stream=stream, model=model, learner=FineTuned(), training=training, **fields
    )


# Learning rates are usual ones for these networks; nothing was tuned on test images.
_DIGITS = _base("split-digits", "mlp-100-50", Training(epochs=8, batch=16, learning_rate=0.05))
_FASHION = _base(
    "permuted-fashion-mnist",
    "mlp-300-100",
    Training(epochs=5, batch=100, learning_rate=0.05),
    samples=10_000,
    tests=5_000,
)
_CIFAR = _base(
    "split-cifar10", "resnet20", Training(epochs=5, batch=128, learning_rate=0.1), augment=True
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


def _paper(data: str) -> list[Labelled]:
    made = []
    for stream, (epochs, batch, every, samples) in _PAPER.items():
        if STREAMS[stream].data != data:
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
        base = _base(stream, "resnet18", training, augment=True)
        made += trials(base, 3, updates=updates, buffer=2000)
    return made


PRESETS = {
    "smoke": Preset(
        "under a minute on two CPU cores (digits)",
        {"digits": partial(trials, _DIGITS, 3, (0.05, 0.2), updates=10, buffer=50)},
        judges=False,
    ),
    "quick": Preset(
        "with --data fashion-mnist an hour on two CPU cores; with --data cifar10 some minutes on a "
        "large GPU with ten trials side by side",
        {"fashion-mnist": partial(trials, _FASHION, 5), "cifar10": partial(trials, _CIFAR, 3)},
        default="fashion-mnist",
    ),
    "paper": Preset(
        "GPU weeks: networks and epochs of the public code, on its data",
        {data: partial(_paper, data) for data in ("cifar100", "mini-imagenet")},
    ),
}
