"""How one task is trained: the loop that all learners share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from regrow.continual.streams.task import Part
from regrow.engine.selection import seeded_generator

__all__ = ["Augment", "Loss", "Tell", "Training", "fit", "predict_in_parts"]

Augment: TypeAlias = Callable[[Tensor, torch.Generator], Tensor]
"""Changes a batch of inputs at random: takes them and a CPU generator."""

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Of a batch of inputs and targets."""

Tell: TypeAlias = Callable[[float], None]
"""Is told the share of the task that is done."""

_TEST_BATCH = 1000


@dataclass(frozen=True)
class Training:
    """How a task is trained.

    Args:
        epochs: passes over the task's samples, at least 1.
        batch: samples a step.
        learning_rate: at its highest.
        optimizer: "sgd" or "adamw"; each task has one of its own, which remembers nothing.
        momentum: for "sgd".
        weight_decay: as the optimizer takes it.
        schedule: within the task. "cosine" lets the learning rate fall to 0, "steps" divides it by
            10 at a half and at three quarters, "constant" leaves it.
        precision: of the passes; weights are float32.

    Raises:
        ValueError: a choice is unknown or a number out of its range; the message says which.

    Example:
        >>> Training(epochs=3, batch=10).steps(95)
        27
    """

    epochs: int
    batch: int = 128
    learning_rate: float = 0.05
    optimizer: Literal["sgd", "adamw"] = "sgd"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: Literal["cosine", "steps", "constant"] = "cosine"
    precision: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        for name in ("epochs", "batch"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"{name}={value}: must be at least 1")
        for name, allowed in _CHOICES.items():
            if (value := getattr(self, name)) not in allowed:
                raise ValueError(f"{name}={value!r}: must be one of {', '.join(allowed)}")

    def steps(self, samples: int) -> int:
        """Return how many optimizer steps so many samples take; a partial batch is left out."""
        return self.epochs * max(samples // self.batch, 1)

    def make_optimizer(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        """Make an optimizer of parameters."""
        held = list(parameters)
        if self.optimizer == "adamw":
            return torch.optim.AdamW(
                held, self.learning_rate, weight_decay=self.weight_decay, foreach=True
            )
        return torch.optim.SGD(
            held,
            self.learning_rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            foreach=True,
        )

    def autocast(self, device: torch.device) -> torch.autocast:
        """Make the context in which passes run."""
        half = self.precision == "bfloat16"
        return torch.autocast(device.type, dtype=torch.bfloat16, enabled=half, cache_enabled=False)

    def rate(self, progress: float) -> float:
        """Return the learning rate at some progress through the task, from 0 to 1."""
        if self.schedule == "constant":
            return self.learning_rate
        if self.schedule == "steps":
            return self.learning_rate * 0.1 ** ((progress >= 0.5) + (progress >= 0.75))
        return self.learning_rate * (1 + math.cos(math.pi * progress)) / 2


_CHOICES = {
    "optimizer": ("sgd", "adamw"),
    "schedule": ("cosine", "steps", "constant"),
    "precision": ("float32", "bfloat16"),
}


def fit(
    loss: Loss,
    optimizer: Optimizer,
    part: Part,
    training: Training,
    *key: int | str,
    augment: Augment | None = None,
    before_step: Callable[[], None] = lambda: None,
    tell: Tell = lambda _: None,
) -> None:
    """Train on samples, in an order that depends on the key and the epoch alone.

    Args:
        loss: of a batch of inputs and targets.
        optimizer: steps once a batch.
        part: the samples.
        training: how long, how fast.
        key: of everything random.
        augment: changes a batch of inputs at random.
        before_step: is called when gradients are there and no step was taken yet.
        tell: is told the share that is done.

    Raises:
        ValueError: there is no sample.
        FloatingPointError: the loss is no longer a number.
    """
    if not len(part):
        raise ValueError("the task has no sample to train on")
    device, n = part.inputs.device, len(part)
    steps, done = training.steps(n), 0
    total = torch.zeros((), device=device)
    for epoch in range(training.epochs):
        generator = seeded_generator(*key, epoch)
        order = torch.randperm(n, generator=generator).to(device)
        for index in order.split(training.batch)[: steps // training.epochs]:
            inputs = part.inputs[index]
            if augment is not None:
                inputs = augment(inputs, generator)
            for group in optimizer.param_groups:
                group["lr"] = training.rate(done / steps)
            optimizer.zero_grad()
            with training.autocast(device):
                value = loss(inputs, part.targets[index])
            value.backward()
            before_step()
            optimizer.step()
            total += value.detach()
            done += 1
            tell(done / steps)
    if not math.isfinite(float(total)):
        raise FloatingPointError("the loss is no longer a number: lower the learning rate")


@torch.no_grad()
def predict_in_parts(
    module: nn.Module, logits: Callable[[Tensor], Tensor], inputs: Tensor, training: Training
) -> Tensor:
    """Compute logits in evaluation mode, in parts of a fixed size.

    Args:
        module: is set to evaluation mode.
        logits: of a batch of inputs.
        inputs: shape (n, ...).
        training: whose precision is used.

    Returns:
        float32, shape (n, classes).
    """
    module.eval()
    with training.autocast(inputs.device):
        return torch.cat([logits(part).float() for part in inputs.split(_TEST_BATCH)])
