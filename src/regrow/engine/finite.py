"""Refuses NaN and infinite values, over all layers and ranks at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from regrow.engine.sharding import agree_on, local

__all__ = ["check_finite", "not_finite"]


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
    bad = agree_on(tensors, _all_finite(parts))
    if bad:
        bad = agree_on(tensors, {name: part.isfinite().all() for name, part in parts.items()})
    if bad:
        raise not_finite(bad, what, outcome)


def not_finite(
    names: Sequence[str], what: str, outcome: str = "nothing was changed"
) -> FloatingPointError:
    """Return the error of :func:`check_finite` about some names."""
    return FloatingPointError(
        f"topology update: the {what} of {', '.join(names)} holds NaN or infinite values; "
        f"{outcome}. Lower the learning rate, or skip such steps (as GradScaler does)"
    )


def _all_finite(parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return one flag a tensor; on a GPU in a few launches for all."""
    several = [part for part in parts.values() if part.is_cuda and part.numel()]
    if len(several) < len(parts) or any(not part.is_floating_point() for part in several):
        # A sum is the cheapest question; only if one is not finite, every value is looked at.
        return {name: _sum(part).isfinite() for name, part in parts.items()}
    largest = torch._foreach_norm(several, torch.inf)
    return dict(zip(parts, torch.stack(largest).isfinite().unbind(), strict=True))


def _sum(tensor: Tensor) -> Tensor:
    return tensor.sum(dtype=torch.float32 if tensor.element_size() < 4 else None)
