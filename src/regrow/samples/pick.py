"""Draws samples at random, and reads values under a mask, in little memory."""

from __future__ import annotations

import torch
from torch import Tensor

from regrow.engine.selection import top_k

__all__ = ["drawn", "of"]


def drawn(k: int, allowed: Tensor, generator: torch.Generator) -> Tensor:
    """Choose k of the allowed at random: those of the highest of n random numbers.

    Takes a third of the memory of the engine's ``random_k``, which is faster for few of many.

    Args:
        k: how many, at most as many as are allowed.
        allowed: bool, shape (n,).
        generator: a CPU generator.

    Returns:
        Bool, shape (n,).

    Example:
        >>> allowed = torch.tensor([True, False, True])
        >>> drawn(2, allowed, torch.Generator()).tolist()
        [True, False, True]
    """
    return top_k(torch.rand(len(allowed), generator=generator), k, allowed)


def of(values: Tensor, mask: Tensor) -> Tensor:
    """Return the values where a mask is True; the values themselves if it is everywhere.

    Example:
        >>> of(torch.tensor([1.0, 2.0]), torch.tensor([False, True])).tolist()
        [2.0]
    """
    # By numpy: torch would make an int64 index of all positions first.
    chosen = mask.numpy()
    return values if bool(chosen.all()) else torch.from_numpy(values.numpy()[chosen])
