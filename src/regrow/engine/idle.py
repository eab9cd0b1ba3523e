"""Detects dummy steps, made only to initialise the state of an optimizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from regrow.engine.sharding import agree_on, local

__all__ = ["fills_state"]


def fills_state(optimizer: Optimizer, arguments: Sequence[Any]) -> bool:
    """Tell whether the step about to be made is there only to give an optimizer its state.

    ``torch.distributed.checkpoint`` makes one, before it saves or loads an optimizer that has no
    state: ``step(closure=None)``, with all learning rates and all gradients at zero. It changes no
    parameter and belongs to no run.

    Args:
        optimizer: as it is before the step.
        arguments: what the step was given.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(2))
        >>> optimizer = torch.optim.SGD([weight], lr=0.0)
        >>> weight.grad = torch.zeros(2)
        >>> fills_state(optimizer, [None]), fills_state(optimizer, [])
        (True, False)
    """
    # Cheap questions first: nearly every real step ends here, before a tensor is looked at.
    if optimizer.state or len(arguments) != 1 or arguments[0] is not None:
        return False
    if not all(_is_zero(group.get("lr", 0.0)) for group in optimizer.param_groups):
        return False
    held = (p for group in optimizer.param_groups for p in group["params"])
    gradients = {str(i): p.grad for i, p in enumerate(held) if p.grad is not None}
    if any(gradient.layout != torch.strided for gradient in gradients.values()):
        return False
    still = {name: ~local(gradient).any() for name, gradient in gradients.items()}
    return bool(gradients) and not agree_on(gradients, still)


def _is_zero(rate: object) -> bool:
    """Tell whether a learning rate is surely 0; one on a GPU counts as not 0, without waiting."""
    if isinstance(rate, Tensor):
        return rate.device.type == "cpu" and float(rate) == 0
    return rate == 0
