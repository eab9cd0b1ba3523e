"""Gives a parameter another length, in place."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["resize_"]


def resize_(tensor: Tensor, values: Tensor) -> None:
    """Give a tensor the memory of others, of another length.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(3))
        >>> loss = weight.sum()  # holds on to how long the weight was
        >>> resize_(weight, torch.zeros(2))
        >>> weight.sum().backward()
        >>> weight.grad
        tensor([1., 1.])
    """
    # .data and not a new Parameter: the optimizer, a scheduler and the user hold this object. What
    # adds up its gradient lives as long as any graph, such as that of the last loss, and would
    # refuse another length; torch makes it anew where the dtype changes.
    other = torch.float32 if tensor.dtype == torch.float64 else torch.float64
    tensor.data = values.new_empty(0, dtype=other)
    tensor.data = values
