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
    sharded = any(hasattr(tensor, "device_mesh") for tensor in tensors.values())
    bad = None if sharded else _bad_at_once(parts)
    if bad is None:
        # A sum is the cheapest question; only if one is not finite, every value is looked at.
        bad = agree_on(tensors, {name: _sum(part).isfinite() for name, part in parts.items()})
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


def _bad_at_once(parts: Mapping[str, Tensor]) -> list[str] | None:
    """Return the names of tensors that are not finite, by a few launches for all; None: not asked.

    On the CPU, where a launch costs nothing, sums are faster; ranks have to agree.
    """
    several = list(parts.values())
    plain = all(type(p) is Tensor and p.is_floating_point() and p.numel() for p in several)
    if not plain or {part.device.type for part in several} != {"cuda"}:
        return None
    if len({part.device for part in several}) > 1:
        return None
    finite = torch.stack(torch._foreach_norm(several, torch.inf)).isfinite()
    return [name for name, good in zip(parts, finite.tolist(), strict=True) if not good]


def _sum(tensor: Tensor) -> Tensor:
    return tensor.sum(dtype=torch.float32 if tensor.element_size() < 4 else None)
