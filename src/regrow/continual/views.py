"""A model's tensors, sorted by whom they belong to, and written in place."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

__all__ = ["find_head", "new_head", "own_tensors", "write_"]


def find_head(model: nn.Module, name: str | None) -> str:
    """Return the name of the linear layer that gives the logits.

    Args:
        model: any module.
        name: as the caller gives it; None: the last linear layer.

    Raises:
        ValueError: there is no such layer, or it is the whole model.

    Example:
        >>> find_head(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), None)
        '2'
    """
    linear = [n for n, module in model.named_modules() if type(module) is nn.Linear]
    if name is None and linear:
        name = linear[-1]
    if name not in linear:
        raise ValueError(
            f"head={name!r}: the name of the nn.Linear that gives the logits is needed; those of "
            f"the model are {', '.join(map(repr, linear)) or 'none'}"
        )
    if not name:
        raise ValueError("head: the model is nothing but its head, so tasks would share no weight")
    return name


def new_head(like: nn.Linear, outputs: int) -> nn.Linear:
    """Make a head like another, with this many outputs; its values are yet to be written."""
    weight, bias = like.weight, like.bias is not None
    head = nn.Linear(1, 1, bias=bias, device="meta", dtype=weight.dtype)
    head.in_features, head.out_features = like.in_features, outputs
    head.weight = nn.Parameter(weight.detach().new_zeros(outputs, like.in_features))
    if bias:
        head.bias = nn.Parameter(weight.detach().new_zeros(outputs))
    return head.train(like.training)


def own_tensors(model: nn.Module, shared: Collection[str]) -> dict[str, Tensor]:
    """Return every parameter and buffer that is not shared, by name: these belong to one task."""
    tensors: dict[str, Tensor] = dict(model.named_parameters()) | dict(model.named_buffers())
    return {name: tensor for name, tensor in tensors.items() if name not in shared}


@torch.no_grad()
def write_(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Write parameters and buffers in place, by name."""
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    for name, value in values.items():
        tensors[name].copy_(value)
