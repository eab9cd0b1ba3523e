"""Bytes of weights, gradients and optimizer state.

Counted from the tensors of one model and its optimizer. Activations are not counted, nor what an
allocator or the process holds besides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from regrow.engine.moments import of_shape
from regrow.engine.sparsifier import Sparsifier

__all__ = ["Bytes", "bytes_allocated", "bytes_of_nonzeros", "nonzeros"]

_INDEX = 4  # bytes of an int32


@dataclass(frozen=True)
class Bytes:
    """What training a model keeps in memory between steps, activations aside.

    Args:
        weights: all parameters.
        gradients: one for each parameter that requires one.
        optimizer_state: as it is now: before the first step most optimizers have none.
        topology: masks or indices.
    """

    weights: int
    gradients: int
    optimizer_state: int
    topology: int

    @property
    def total(self) -> int:
        """The sum."""
        return self.weights + self.gradients + self.optimizer_state + self.topology


def nonzeros(model: nn.Module) -> int:
    """Count the parameters of a model that are not zero, biases and norms included.

    Example:
        >>> layer = nn.Linear(2, 2, bias=False)
        >>> _ = nn.init.eye_(layer.weight)
        >>> nonzeros(layer)
        2
    """
    return sum(int(torch.count_nonzero(p)) for p in model.parameters())


def bytes_allocated(
    model: nn.Module, optimizer: Optimizer, sparse: Sparsifier | None = None
) -> Bytes:
    """Count the bytes held now: all tensors as they are, and masks or indices.

    Example:
        >>> layer = nn.Linear(4, 4, bias=False)
        >>> bytes_allocated(layer, torch.optim.SGD(layer.parameters(), lr=0.1))
        Bytes(weights=64, gradients=64, optimizer_state=0, topology=0)
    """
    parameters = list(model.parameters())
    return Bytes(
        weights=sum(p.nbytes for p in parameters),
        # Whether or not there is one now: the peak of a step is what has to fit.
        gradients=sum(p.nbytes for p in parameters if p.requires_grad),
        optimizer_state=sum(_state_bytes(optimizer, p) for p in parameters),
        topology=sparse.topology_bytes() if sparse else 0,
    )


def bytes_of_nonzeros(model: nn.Module, optimizer: Optimizer, sparse: Sparsifier) -> Bytes:
    """Count the bytes a format would hold that stores active weights only.

    A weight's values, gradients and optimizer slots shrink to its active entries; the topology
    costs an int32 for each active unit and for each row of the grid of units, plus one.

    Args:
        model: the model made sparse.
        optimizer: its optimizer, after at least one step.
        sparse: its sparsifier.
    """
    active = {name: int(torch.count_nonzero(mask)) for name, mask in sparse.masks.items()}
    totals = [0, 0, 0]
    for name, parameter in model.named_parameters():
        share = active.get(name, parameter.numel()) / max(parameter.numel(), 1)
        per_entry = sum(
            slot.nbytes for slot in of_shape(optimizer.state.get(parameter, {}), parameter).values()
        )
        rest = _state_bytes(optimizer, parameter) - per_entry
        totals[0] += round(share * parameter.nbytes)
        totals[1] += round(share * parameter.nbytes) if parameter.requires_grad else 0
        totals[2] += round(share * per_entry) + rest
    pattern = sparse.method.pattern
    rows = sum(pattern.grid(layer.shape)[0] + 1 for layer in sparse.plan.layers)
    units = sum(
        round(active[layer.name] / math.prod(layer.shape) * layer.units)
        for layer in sparse.plan.layers
    )
    return Bytes(totals[0], totals[1], totals[2], topology=_INDEX * (units + rows))


def _state_bytes(optimizer: Optimizer, parameter: nn.Parameter) -> int:
    state = optimizer.state.get(parameter, {})
    return sum(value.nbytes for value in state.values() if isinstance(value, Tensor))
