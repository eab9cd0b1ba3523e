"""Units of many members side by side, such as networks in one weight: each has its own count.

A pattern gives all groups of a layer equally many units. Where members of one tensor follow rules
and densities of their own, as the runs of a population do, these functions choose for all of them
at once, exactly, and without waiting for the device.
"""

from __future__ import annotations

import torch
from torch import Tensor

from regrow.engine.selection import top_per_group

__all__ = ["draw_members", "exchange_members"]


def draw_members(keys: Tensor, counts: Tensor) -> Tensor:
    """Choose in every member its own number of units, by the highest keys.

    Args:
        keys: random numbers or scores, shape (members, units).
        counts: int64, shape (members,), each from 0 to the number of units.

    Returns:
        Bool tensor of the shape of the keys.

    Raises:
        ValueError: shapes do not fit.

    Example:
        >>> draw_members(torch.tensor([[0.1, 0.9], [0.4, 0.2]]), torch.tensor([1, 2])).tolist()
        [[False, True], [True, True]]
    """
    _check(keys, counts)
    return top_per_group(keys, counts, torch.ones_like(keys, dtype=torch.bool))


def exchange_members(mask: Tensor, drop: Tensor, grow: Tensor, counts: Tensor) -> Tensor:
    """Exchange units in every member: its lowest active ones for the highest of those left out.

    A unit that was just dropped may be grown again, if its score for growing is high enough.

    Args:
        mask: the active units; bool, shape (members, units).
        drop: scores by which active units are kept, shaped like the mask.
        grow: scores by which units are grown.
        counts: how many of a member's units are exchanged; int64, shape (members,), at most those
            active.

    Returns:
        The active units afterwards, as many in every member as before.

    Raises:
        ValueError: shapes do not fit.

    Example:
        >>> mask = torch.tensor([[True, True, False]])
        >>> drop, grow = torch.tensor([[3.0, 1.0, 0.0]]), torch.tensor([[9.0, 0.0, 5.0]])
        >>> exchange_members(mask, drop, grow, torch.tensor([1])).tolist()
        [[True, False, True]]
    """
    for scores in (drop, grow):
        if scores.shape != mask.shape:
            raise ValueError(
                f"scores of shape {tuple(scores.shape)}: must be that of the mask, "
                f"{tuple(mask.shape)}"
            )
    _check(mask, counts)
    kept = top_per_group(drop, mask.sum(1) - counts, mask)
    return kept | top_per_group(grow, counts, ~kept)


def _check(units: Tensor, counts: Tensor) -> None:
    if units.ndim != 2 or counts.shape != units.shape[:1]:
        raise ValueError(
            f"counts of shape {tuple(counts.shape)} for units of shape {tuple(units.shape)}: "
            "one number a member is needed, and units of shape (members, units)"
        )
