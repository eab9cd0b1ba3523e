"""What is trained, and how: every choice that decides the result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import regrow
from regrow.lab.trial import Trial

__all__ = ["Setting"]

_CHOICES = {
    "optimizer": ("sgd", "adamw"),
    "schedule": ("steps", "cosine"),
    "precision": ("float32", "bfloat16", "float16"),
}


@dataclass(frozen=True, kw_only=True)
class Setting(Trial):
    """The setting of a training run: a trial is one that says what is done with it.

    Args:
        data: a data set's name.
        model: a model's name.
        method: how it is kept sparse.
        epochs: passes over the training samples.
        batch: samples a step, over all ranks.
        optimizer: "sgd" or "adamw".
        learning_rate: at its highest.
        momentum: for "sgd".
        nesterov: for "sgd".
        weight_decay: as the optimizer takes it.
        schedule: "steps" divides the learning rate by 10 at the milestones, "cosine" lets it fall
            to 0.
        milestones: for "steps": shares of the run.
        warmup: epochs in which the learning rate rises from 0.
        label_smoothing: from 0 to 1.
        dropout: of a perceptron's hidden units.
        narrow: below 1: all widths are scaled down until the model has no more parameters than one
            of this density: the control of equal size. Goes with the dense method.
        exclude: globs over parameter names that stay dense.
        rescale: enlarge the weights kept at the start, see :func:`regrow.sparsify`.
        precision: of the passes; weights are float32.
        augment: whether to change training images as is usual for the data set.
        samples: training samples used, the same share of each class; None is all.
        validation: the share of them kept for validation.

    Raises:
        ValueError: a choice is unknown or a number out of its range; the message says which.
    """

    data: str
    model: str
    method: regrow.Method
    epochs: int
    batch: int = 128
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 0.1
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    schedule: Literal["steps", "cosine"] = "steps"
    milestones: tuple[float, ...] = (0.5, 0.75)
    warmup: float = 0.0
    label_smoothing: float = 0.0
    dropout: float = 0.0
    narrow: float = 1.0
    exclude: tuple[str, ...] = ()
    rescale: bool = False
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    augment: bool = True
    samples: int | None = None
    validation: float = 0.0

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ValueError(f"epochs={self.epochs}: must be at least 1")
        for name, choices in _CHOICES.items():
            if (value := getattr(self, name)) not in choices:
                raise ValueError(f"{name}={value!r}: must be one of {', '.join(choices)}")
        for name in ("dropout", "label_smoothing", "validation"):
            if not 0 <= (value := getattr(self, name)) < 1:
                raise ValueError(f"{name}={value}: must be at least 0 and below 1")
        if not 0 <= self.warmup <= self.epochs:
            raise ValueError(f"warmup={self.warmup}: must lie in 0..{self.epochs}, the epochs")
        if self.narrow < 1 and not isinstance(self.method, regrow.Dense):
            raise ValueError(f"narrow={self.narrow} is a dense control: give method=Dense()")
