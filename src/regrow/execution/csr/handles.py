"""Numbers by which an operator finds the layer that it computes, as tensors.

A graph of torch.compile holds tensors and numbers, no layers. Were the number of a layer a number
in the graph, layers of one kind could not share it.
"""

from __future__ import annotations

import itertools
import weakref
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["handle_of", "layer_of"]

_next = itertools.count().__next__
_LAYERS: weakref.WeakValueDictionary[int, nn.Module] = weakref.WeakValueDictionary()


def handle_of(layer: nn.Module, before: Tensor | None = None) -> Tensor:
    """Return a new handle of a layer; int64, 0-d.

    Args:
        layer: which.
        before: a handle of its own that ends: else they would be kept as long as the layer is.
    """
    if type(before) is Tensor:
        _LAYERS.pop(int(before), None)
    handle = torch.tensor(_next(), dtype=torch.int64, device="cpu")
    if type(handle) is Tensor:  # a fake tensor has no number
        _LAYERS[int(handle)] = layer
    return handle


def layer_of(handle: Tensor) -> Any:
    """Return the layer whose present handle this is.

    Raises:
        RuntimeError: the layer is gone, or its topology has moved since.
    """
    layer: Any = _LAYERS.get(int(handle))
    if layer is None:
        raise RuntimeError(
            "a csr layer was moved between a forward pass and its backward pass: let the backward "
            "pass come before optimizer.step() and before a state is loaded"
        )
    return layer
