"""Trains on one task, for all learners."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from regrow.continual.streams.task import Part
from regrow.engine.selection import seeded_generator
from regrow.training.batch import Batch
from regrow.training.loop import check_finite, take_steps
from regrow.training.setting import autocast, learning_rate_factor, make_optimizer

__all__ = ["Augment", "Loss", "Setup", "Tell", "Training", "fit", "predict_in_parts"]

Augment: TypeAlias = Callable[[Tensor, torch.Generator], Tensor]
"""Changes a batch of inputs at random: takes them and a CPU generator."""

Loss: TypeAlias = Callable[[Batch], Tensor]
"""Of a batch, whose ids are places among the task's samples."""

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
        return make_optimizer(
            self.optimizer,
            parameters,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            momentum=self.momentum,
            foreach=True,
        )

    def autocast(self, device: torch.device) -> torch.autocast:
        """Make the context in which passes run."""
        return autocast(device, self.precision)


_CHOICES = {
    "optimizer": ("sgd", "adamw"),
    "schedule": ("cosine", "steps", "constant"),
    "precision": ("float32", "bfloat16"),
}


@dataclass(frozen=True)
class Setup:
    """What learners of one comparison share.

    Args:
        build: makes the network; its last linear layer is replaced by one a task.
        training: how each task is trained.
        seed: of everything random.
        device: where. Tasks must be there, too.
        augment: changes a batch of inputs at random, in training only.
    """

    build: Callable[[], nn.Module]
    training: Training
    seed: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    augment: Augment | None = None


def fit(
    loss: Loss,
    optimizer: Optimizer,
    part: Part,
    setup: Setup,
    *key: int | str,
    before_step: Callable[[], None] = lambda: None,
    tell: Tell = lambda _: None,
) -> None:
    """Train on samples, in an order that depends on seed, key and epoch alone.

    Args:
        loss: of a batch.
        optimizer: steps once a batch.
        part: the samples.
        setup: how long, how fast, with which seed and augmentation.
        key: what is trained, of all that is by this seed.
        before_step: is called when gradients are there and no step was taken yet.
        tell: is told the share that is done.

    Raises:
        ValueError: there is no sample.
        FloatingPointError: the loss is no longer a number.
    """
    if not len(part):
        raise ValueError("the task has no sample to train on")
    training = setup.training
    batches = _TaskBatches(part, training.batch, (setup.seed, *key), setup.augment)
    steps, done = training.epochs * len(batches), 0
    schedule = LambdaLR(
        optimizer, lambda step: learning_rate_factor(step / steps, training.schedule)
    )
    for epoch in range(training.epochs):
        total = torch.zeros((), device=part.inputs.device)
        taken = take_steps(
            batches.epoch(epoch),
            lambda batch: (loss(batch), {}),
            optimizer,
            schedule,
            autocast=lambda: training.autocast(part.inputs.device),
            before_step=before_step,
        )
        for step in taken:
            total += step.loss
            done += 1
            tell(done / steps)
        check_finite(float(total) / len(batches), epoch + 1)


@dataclass(frozen=True)
class _TaskBatches:
    """Batches of one task, in an order that follows from a key and the epoch."""

    part: Part
    size: int
    key: tuple[int | str, ...]
    augment: Augment | None

    def __len__(self) -> int:
        return max(len(self.part) // self.size, 1)

    def epoch(self, number: int) -> Iterator[Batch]:
        generator = seeded_generator(*self.key, number)
        order = torch.randperm(len(self.part), generator=generator)
        for index in order.to(self.part.inputs.device).split(self.size)[: len(self)]:
            inputs = self.part.inputs[index]
            if self.augment is not None:
                inputs = self.augment(inputs, generator)
            yield Batch(inputs, self.part.targets[index], index)


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
