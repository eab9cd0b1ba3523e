"""Finds the user's own module inside DDP, DataParallel, Fabric, averaged and compiled models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

__all__ = ["owner", "peel", "under_names", "unwrap"]

_WRAPPERS = (
    nn.parallel.DistributedDataParallel,
    nn.DataParallel,
    torch.optim.swa_utils.AveragedModel,
)


def unwrap(model: nn.Module) -> nn.Module:
    """Return the user's own module inside DDP, DataParallel, AveragedModel, Fabric, torch.compile.

    Raises:
        TypeError: it is no module.

    Example:
        >>> inner = nn.Linear(2, 2)
        >>> unwrap(nn.DataParallel(inner)) is inner
        True
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}: a torch.nn.Module is needed")
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
            inside = getattr(model, "_orig_mod", getattr(model, "_checkpoint_wrapped_module", None))


# Parts of a parameter's name that only a wrapper makes; of DDP and its kin, "module" at the front.
_PARTS = frozenset({"_forward_module", "_orig_mod", "_checkpoint_wrapped_module"})


def under_names(saved: Any, names: Sequence[str]) -> Any:
    """Return saved entries under the names that their weights have here, whatever wrapped them.

    Args:
        saved: entries by parameter name. Where not all of them can be told, it is returned as it
            is, for the caller to refuse.
        names: of the weights here, in the same order.

    Example:
        >>> under_names({"module._orig_mod.0.weight": 1}, ["0.weight"])
        {'0.weight': 1}
    """
    if isinstance(saved, Mapping) and list(saved) != names and _bare(saved) == _bare(names):
        return dict(zip(names, saved.values(), strict=True))
    return saved


def _bare(names: Sequence[str] | Mapping[str, Any]) -> list[list[str]]:
    """Return names in parts, without those of wrappers."""
    parts = [[part for part in str(name).split(".") if part not in _PARTS] for name in names]
    while parts and all(name[:1] == ["module"] for name in parts):
        parts = [name[1:] for name in parts]
    return parts


def owner(module: nn.Module, key: str) -> nn.Module:
    """Return what has a child or parameter of this name: a module, or what it was wrapped around.

    Example:
        >>> type(owner(nn.DataParallel(nn.Sequential(nn.Linear(2, 2))), "0")).__name__
        'Sequential'
    """
    return next(
        (one for one in peel(module) if key in one._modules or key in one._parameters), module
    )
