"""Runs a model without a trace: modes, buffers, gradients and random states stay as they were."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["evaluating", "kept_random_state"]


@contextmanager
def kept_random_state(model: nn.Module) -> Iterator[None]:
    """Put the random states of Python, NumPy, the CPU and a model's GPUs back at the end.

    Args:
        model: what is run inside; other GPUs are left alone, as asking for their state would
            start each of them.

    Example:
        >>> model, before = nn.Dropout(), torch.get_rng_state()
        >>> with kept_random_state(model):
        ...     _ = torch.rand(3)
        >>> torch.equal(torch.get_rng_state(), before)
        True
    """
    tensors = [*model.parameters(), *model.buffers()]
    gpus = sorted({tensor.device.index for tensor in tensors if tensor.is_cuda})
    own, of_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 not ours: the user's
    try:
        with torch.random.fork_rng(devices=gpus):
            yield
    finally:
        random.setstate(own)
        np.random.set_state(of_numpy)  # noqa: NPY002


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Run a model in evaluation mode without gradients, and leave no trace.

    Modes, buffers and random states are put back at the end.

    Modes are set module by module: a module's own ``eval()`` may do more than that. The fast paths
    of torch's attention, which call no hooks, are off meanwhile.

    Example:
        >>> layer = nn.BatchNorm1d(2)
        >>> with evaluating(layer):
        ...     layer.training
        False
        >>> layer.training
        True
    """
    modules = list(model.modules())
    modes = [module.training for module in modules]
    buffers = [dict(module._buffers) for module in modules]
    values = [{name: _copy(one) for name, one in own.items()} for own in buffers]
    fast = torch.backends.mha.get_fastpath_enabled()
    try:
        for module in modules:
            module.training = False
        torch.backends.mha.set_fastpath_enabled(False)
        with kept_random_state(model), torch.no_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for module, mode, own, before in zip(modules, modes, buffers, values, strict=True):
            module.training = mode
            module._buffers.clear()
            module._buffers.update(own)
            for name, value in before.items():
                _put_back_(own[name], value)


def _copy(buffer: Tensor | None) -> Tensor | None:
    return None if buffer is None or buffer.is_meta else buffer.detach().clone()


@torch.no_grad()
def _put_back_(buffer: Tensor | None, value: Tensor | None) -> None:
    # What was not written is not written now: a buffer may be shared, or read-only.
    if buffer is not None and value is not None and not _same(buffer, value):
        buffer.copy_(value)


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one.nan_to_num(), other.nan_to_num())
