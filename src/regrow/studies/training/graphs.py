"""Forward and backward passes as CUDA graphs: for small models launches take most of a step."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["graphed"]


def graphed(
    model: nn.Module, example: Tensor, autocast: Callable[[], AbstractContextManager[Any]]
) -> nn.Module:
    """Capture a model's training passes for inputs of one shape; the model's state stays as it was.

    Args:
        model: on a GPU, in training mode when it is called.
        example: inputs of the shape that all batches have.
        autocast: the context it will be called in.

    Returns:
        A module over the same parameters, for training.
    """
    before = copy.deepcopy(model.state_dict())  # warming up moves the batch norms' averages
    model.train()
    with autocast():
        captured: nn.Module = torch.cuda.make_graphed_callables(model, (example,))
    model.load_state_dict(before)
    return captured
