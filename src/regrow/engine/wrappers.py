"""Finds the user's own module inside DDP, DataParallel, Fabric, averaged and compiled models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

__all__ = ["peel", "unwrap"]

_WRAPPERS = (
    nn.parallel.DistributedDataParallel,
    nn.DataParallel,
    torch.optim.swa_utils.AveragedModel,
)


def unwrap(model: nn.Module) -> nn.Module:
    """Return the user's own module inside DDP, DataParallel, AveragedModel, Fabric, torch.compile.

    Example:
        >>> inner = nn.Linear(2, 2)
        >>> unwrap(nn.DataParallel(inner)) is inner
        True
    """
    *_, inner = peel(model)
    return inner


def peel(model: nn.Module) -> Iterator[nn.Module]:
    """Yield a model and what is inside of each wrapper, down to the user's own module.

    Example:
        >>> [type(module).__name__ for module in peel(nn.DataParallel(nn.Linear(2, 2)))]
        ['DataParallel', 'Linear']
    """
    inside: Any = model
    while isinstance(inside, nn.Module):
        yield (model := inside)
        # By class and not by the attribute `module` alone, which a user's own model may have; what
        # torch.compile makes is known by its private attribute only, and Fabric's wrapper by its
        # name, since Lightning need not be installed.
        if isinstance(model, _WRAPPERS):
            inside = model.module
        elif type(model).__name__ == "_FabricModule":
            inside = getattr(model, "_forward_module", None)
        else:
            inside = getattr(model, "_orig_mod", None)
