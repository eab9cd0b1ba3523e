"""Refuses NaN and infinite values, over all layers and ranks at once."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from regrow.engine.sharding import agree_on, local

__all__ = ["check_finite"]


def check_finite(
    tensors: Mapping[str, Tensor], what: str, outcome: str = "nothing was changed"
) -> None:
    """Raise FloatingPointError if any value is NaN or infinite; the device is asked once.

    Args:
        tensors: by name.
        what: they are, for the error.
        outcome: what has come of the update until now, for the error.

    Example:
        >>> check_finite({"a": torch.ones(2)}, "weight")
    """
    parts = {name: local(tensor.detach()) for name, tensor in tensors.items()}
    # A sum is the cheapest question; only if one is not finite, every value is looked at.
    bad = agree_on(tensors, {name: _sum(part).isfinite() for name, part in parts.items()})
    if bad:
        bad = agree_on(tensors, {name: part.isfinite().all() for name, part in parts.items()})
    if bad:
        raise FloatingPointError(
            f"topology update: the {what} of {', '.join(bad)} holds NaN or infinite values; "
            f"{outcome}. Lower the learning rate, or skip such steps (as GradScaler does)"
        )


def _sum(tensor: Tensor) -> Tensor:
    return tensor.sum(dtype=torch.float32 if tensor.element_size() < 4 else None)
