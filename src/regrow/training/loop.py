"""The training loop: an optimizer step a batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from regrow.training.batch import Batch

__all__ = ["Step", "check_finite", "take_steps"]


@dataclass(frozen=True)
class Step:
    """An optimizer step that was taken.

    Args:
        batch: what was learnt.
        loss: a detached scalar: the mean over the batch.
        counts: sums over the samples of the batch, by name.
    """

    batch: Batch
    loss: Tensor
    counts: Mapping[str, Tensor]


def take_steps(
    batches: Iterable[Batch],
    evaluate: Callable[[Batch], tuple[Tensor, Mapping[str, Tensor]]],
    optimizer: torch.optim.Optimizer,
    schedule: LRScheduler,
    *,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    scaler: torch.amp.GradScaler | None = None,
    before_step: Callable[[], None] = lambda: None,
    clip: Callable[[], None] | None = None,
) -> Iterator[Step]:
    """Take an optimizer step a batch; each is taken when it is asked for.

    Args:
        batches: to learn.
        evaluate: returns a batch's losses, one value or one a sample, and its counts.
        optimizer: takes the steps.
        schedule: of the learning rate; moves on with every step.
        autocast: makes the context in which ``evaluate`` is called.
        scaler: of losses, for float16; None: they are taken as they are.
        before_step: is called when gradients are there and no step was taken yet.
        clip: is called after that, when the gradients are those of the losses, not scaled.
    """
    scaler = scaler or torch.amp.GradScaler(enabled=False)
    for batch in batches:
        with autocast():
            losses, counts = evaluate(batch)
            loss = losses.mean() if losses.ndim else losses  # small models feel every operation
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        before_step()
        if clip is not None:
            scaler.unscale_(optimizer)
            clip()
        scaler.step(optimizer)
        scaler.update()
        schedule.step()
        yield Step(batch, loss.detach(), counts)


def check_finite(loss: float, epoch: int) -> None:
    """Refuse a loss that is no number.

    Raises:
        FloatingPointError: it is infinite or NaN.
    """
    if not math.isfinite(loss):
        raise FloatingPointError(f"the loss is {loss} in epoch {epoch}: lower the learning rate")
