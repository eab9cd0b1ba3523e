"""The training loop: an optimizer step a batch."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler
from torch.utils._pytree import tree_leaves

from regrow.training.batch import Batch

__all__ = ["Step", "check_finite", "not_finite", "take_steps"]


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
        with _no_warning_of_order() if scaler.is_enabled() else nullcontext():
            schedule.step()
        yield Step(batch, loss.detach(), counts)


@contextmanager
def _no_warning_of_order() -> Iterator[None]:
    # A scaler skips a first step that overflows; torch then takes the schedule for one that is
    # called before the optimizer.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Detected call of `lr_scheduler.step\(\)` before")
        yield


def check_finite(loss: float, epoch: int, where: Callable[[], str] = str) -> None:
    """Refuse a loss that is no number.

    Args:
        loss: of an epoch.
        epoch: its number.
        where: finds out where numbers ended; is asked only then, see :func:`not_finite`.

    Raises:
        FloatingPointError: it is infinite or NaN.
    """
    if not math.isfinite(loss):
        place = f" ({found})" if (found := where()) else ""
        raise FloatingPointError(
            f"the loss is {loss} in epoch {epoch}{place}: lower the learning rate"
        )


def not_finite(model: nn.Module, run: Callable[[], Any]) -> str:
    """Name the first weight that is NaN or infinite, else the first layer that gets or gives such.

    Args:
        model: whose layers are looked at.
        run: passes a batch through the model.

    Returns:
        A few words; empty if all is finite.

    Example:
        >>> model = nn.Sequential(nn.Linear(1, 1).half())
        >>> _ = nn.init.constant_(model[0].weight, 1e4)
        >>> not_finite(model, lambda: model(torch.full((1, 1), 1e4, dtype=torch.float16)))
        'outputs of layer 0 in float16'
    """
    for name, weight in model.named_parameters():
        if not bool(weight.detach().isfinite().all()):
            return f"weights of {name}"
    found: list[str] = []

    def look(name: str, **tensors: Any) -> None:
        for what, values in tensors.items():
            for one in tree_leaves(values):
                floats = isinstance(one, Tensor) and one.is_floating_point()
                if floats and not found and not bool(one.isfinite().all()):
                    dtype = str(one.dtype).removeprefix("torch.")
                    found.append(f"{what} of layer {name} in {dtype}")

    leaves = [(n, m) for n, m in model.named_modules() if not any(True for _ in m.children())]
    hooks = [
        module.register_forward_hook(
            lambda _, inputs, outputs, name=name: look(name, inputs=inputs, outputs=outputs)
        )
        for name, module in leaves
    ]
    try:
        with torch.no_grad():
            run()
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else ""
