"""How a model is trained: method, length, optimizer, learning rate, precision."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

import regrow

__all__ = ["Setting", "autocast", "learning_rate_factor", "make_optimizer"]

_CHOICES = {
    "optimizer": ("sgd", "adamw"),
    "schedule": ("steps", "cosine", "poly"),
    "precision": ("float32", "bfloat16", "float16"),
}
_HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How a model is trained, whatever it learns.

    Args:
        seed: of everything random.
        method: how the model is kept sparse.
        epochs: passes over the training samples.
        batch: samples a step, over all ranks.
        optimizer: "sgd" or "adamw".
        learning_rate: at its highest.
        momentum: for "sgd".
        nesterov: for "sgd".
        weight_decay: as the optimizer takes it.
        schedule: "steps" divides the learning rate by 10 at the milestones (1/2 and 3/4 of the run
            unless others are given), "cosine" lets it fall to 0, "poly" too, as (1 - progress)^0.9.
        milestones: for "steps": shares of the run.
        warmup: epochs in which the learning rate rises from 0.
        clip: the largest norm of all gradients together; those of dropped weights do not count.
            None: any norm.
        include: the weights that may become sparse, as patterns; none: all that can be.
        exclude: weights that stay dense, as patterns such as "head.*".
        rescale: enlarge the weights kept at the start by 1/√density.
        precision: of the passes; weights are float32.

    Raises:
        ValueError: a choice is unknown or a number out of its range; the message says which.
    """

    seed: int
    method: regrow.Method
    epochs: int
    batch: int = 128
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 0.1
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    schedule: Literal["steps", "cosine", "poly"] = "steps"
    milestones: tuple[float, ...] = (0.5, 0.75)
    warmup: float = 0.0
    clip: float | None = field(default=None, metadata={"later": True})
    include: tuple[str, ...] = field(default=(), metadata={"later": True})
    exclude: tuple[str, ...] = ()
    rescale: bool = False
    precision: Literal["float32", "bfloat16", "float16"] = "float32"

    def __post_init__(self) -> None:
        for name in ("epochs", "batch"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"{name}={value}: must be at least 1")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed={self.seed}: must be at least 0 and below 2**63")
        for name in ("learning_rate", "weight_decay"):
            if not 0 <= (value := getattr(self, name)) < math.inf:
                raise ValueError(f"{name}={value}: must be at least 0 and finite")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum={self.momentum}: must be at least 0 and below 1")
        for name, choices in _CHOICES.items():
            if (value := getattr(self, name)) not in choices:
                raise ValueError(f"{name}={value!r}: must be one of {', '.join(choices)}")
        if self.clip is not None and not 0 < self.clip < math.inf:
            raise ValueError(f"clip={self.clip}: must be above 0 and finite; None does not clip")
        if self.clip is not None:  # clipping masks the gradients first
            try:
                self.method.check_masking()
            except RuntimeError as error:
                raise ValueError(f"clip={self.clip}: {error}: clip=None") from error
        if not 0 <= self.warmup <= self.epochs:
            raise ValueError(f"warmup={self.warmup}: must lie in 0..{self.epochs}, the epochs")


def learning_rate_factor(
    progress: float, schedule: str, warmup: float = 0.0, milestones: tuple[float, ...] = (0.5, 0.75)
) -> float:
    """Return what the learning rate is multiplied with.

    Args:
        progress: through the run, from 0 to 1.
        schedule: "cosine" falls from 1 to 0; "poly" does so as (1 - progress)^0.9; "steps" is
            divided by 10 at each milestone; "constant" stays.
        warmup: the share of the run in which the rate rises from 0.
        milestones: for "steps": shares of the run.

    Example:
        >>> learning_rate_factor(0.6, "steps")
        0.1
    """
    rise = min(1.0, progress / warmup) if warmup else 1.0
    if schedule == "constant":
        return rise
    if schedule == "poly":
        return rise * math.pow(1 - min(progress, 1.0), 0.9)
    if schedule == "cosine":
        return rise * (1 + math.cos(math.pi * min(progress, 1.0))) / 2
    return rise * 0.1 ** sum(progress >= milestone for milestone in milestones)


def make_optimizer(
    name: str,
    parameters: Iterable[nn.Parameter],
    *,
    learning_rate: float,
    weight_decay: float,
    momentum: float,
    nesterov: bool = False,
    **how: Any,
) -> torch.optim.Optimizer:
    """Make an optimizer.

    Args:
        name: "sgd" or "adamw".
        parameters: that it moves.
        learning_rate: at its highest.
        weight_decay: as the optimizer takes it.
        momentum: for "sgd".
        nesterov: for "sgd".
        how: ``fused`` or ``foreach``, which change the speed and the last bits.
    """
    if name == "adamw":
        return torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay, **how)
    return torch.optim.SGD(
        parameters,
        lr=learning_rate,
        momentum=momentum,
        nesterov=nesterov,
        weight_decay=weight_decay,
        **how,
    )


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Make the context in which passes run at a precision."""
    half = _HALF.get(precision)
    # CUDA graphs cannot be captured while autocast caches weights in half precision.
    return torch.autocast(device.type, dtype=half, enabled=half is not None, cache_enabled=False)
