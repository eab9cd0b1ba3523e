"""Keeps the random state of where a model is, while it is run by the way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

__all__ = ["kept_random_state"]


@contextmanager
def kept_random_state(model: nn.Module) -> Iterator[None]:
    """Leave the random numbers of the CPU and of a model's GPUs as they were before the block.

    Args:
        model: what is run inside; other GPUs are left alone, as asking for their state would
            start each of them.

    Example:
        >>> model = nn.Linear(2, 2)
        >>> before = torch.get_rng_state()
        >>> with kept_random_state(model):
        ...     _ = torch.rand(3)
        >>> torch.equal(before, torch.get_rng_state())
        True
    """
    tensors = [*model.parameters(), *model.buffers()]
    gpus = sorted({tensor.device.index for tensor in tensors if tensor.is_cuda})
    with torch.random.fork_rng(devices=gpus):
        yield
