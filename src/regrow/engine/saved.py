"""Packs masks at one bit a weight, and checks the saved state of a layer before it is used."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from regrow.engine.patterns import Pattern
from regrow.engine.planned import PlannedLayer

__all__ = [
    "PARTS",
    "check_names",
    "check_running",
    "check_tensor",
    "pack",
    "read_counts",
    "read_mask",
    "unpack",
]

PARTS = ("counts", "mask", "fired", "running", "free", "held")


def pack(mask: Tensor) -> Tensor:
    """Pack a bool tensor to one bit an entry; uint8 tensor on the CPU.

    Example:
        >>> pack(torch.tensor([True, False, True])).tolist()
        [5]
    """
    return torch.from_numpy(np.packbits(mask.cpu().numpy(), bitorder="little"))


def unpack(packed: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Undo :func:`pack`; bool tensor of the given shape.

    Raises:
        ValueError: the number of bytes does not fit the shape.

    Example:
        >>> unpack(torch.tensor([5], dtype=torch.uint8), (3,)).tolist()
        [True, False, True]
    """
    if not isinstance(packed, Tensor):
        raise ValueError(f"{packed!r} holds no mask of shape {shape}")
    count = math.prod(shape)
    if packed.dtype != torch.uint8 or packed.numel() != -(-count // 8):
        raise ValueError(
            f"{packed.numel()} entries of {packed.dtype} hold no mask of shape {shape}"
        )
    # count cuts off the padding of the last byte.
    bits = np.unpackbits(packed.cpu().numpy(), count=count, bitorder="little")
    return torch.from_numpy(bits.view(np.bool_)).reshape(shape)


def read_mask(
    planned: PlannedLayer, pattern: Pattern, state: Any, parts: Iterable[str] = PARTS
) -> Tensor:
    """Check what every layer saves, and return the mask, a bool tensor of the weight's shape.

    Args:
        planned: the layer's row of the plan.
        pattern: what a unit is.
        state: of the layer.
        parts: what it must hold.

    Raises:
        ValueError: the state is incomplete or damaged, or of another layer, density or pattern.
    """
    name, shape = planned.name, planned.shape
    if not isinstance(state, Mapping):
        raise ValueError(f"state: that of {name} is {state!r}: it is damaged")
    for key in parts:
        if key not in state:
            raise ValueError(f"state: {key} of {name} is missing: it is damaged")
    _check_counts(planned, state)
    _read_bits(name, "fired", state["fired"], pattern.grid(shape))
    mask = _read_bits(name, "mask", state["mask"], shape)
    # A mask that keeps half a block fits by its shape, but belongs to another pattern.
    units = pattern.reduce(mask.float()) > 0
    if not torch.equal(pattern.expand(units, shape), mask) or not pattern.allows(units):
        raise ValueError(f"state: the mask of {name} has broken units of {pattern}")
    free = state["free"]
    # A layer without a unit is damage, unless every unit of it is held by earlier tasks.
    if not units.any() and not (isinstance(free, Tensor) and not free.any()):
        raise ValueError(f"state: the mask of {name} keeps nothing")
    return mask


def check_running(name: str, running: Any, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless these are running averages of a weight of this shape, by role.

    Example:
        >>> check_running("w", {"drop": torch.zeros(2)}, (2,))
    """
    if not isinstance(running, Mapping) or not running.keys() <= {"drop", "grow"}:
        raise ValueError(f"state: running of {name} is {running!r}: it is damaged")
    for role, average in running.items():
        check_tensor(name, f"running average ({role})", average, shape)


def check_tensor(name: str, what: str, value: Any, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless a part of a layer's state is a tensor of this shape.

    Example:
        >>> check_tensor("w", "held", torch.zeros(2), (2,))
    """
    if not isinstance(value, Tensor) or tuple(value.shape) != tuple(shape):
        given = f"of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
        raise ValueError(f"state: the {what} of {name} is {given}, but {tuple(shape)} is needed")


def read_counts(planned: PlannedLayer, state: Any) -> tuple[int, int]:
    """Return how many units a saved layer started with and was to end with.

    Raises:
        ValueError: the state does not say.
    """
    counts = state.get("counts") if isinstance(state, Mapping) else None
    if not isinstance(counts, list | tuple) or len(counts) != 2:
        raise ValueError(f"state: counts of {planned.name} is {counts!r}: it is damaged")
    if not all(isinstance(count, int) and 0 < count <= planned.units for count in counts):
        raise ValueError(f"state: counts of {planned.name} is {counts}, of {planned.units} units")
    return counts[0], counts[1]


def _check_counts(planned: PlannedLayer, state: Mapping[str, Any]) -> None:
    initial, final = read_counts(planned, state)
    if (initial, final) != (planned.initial, planned.final):
        raise ValueError(
            f"state: {planned.name} goes from {initial} to {final} units, "
            f"here from {planned.initial} to {planned.final}: it was saved at density "
            f"{final / planned.units:.4g}, and the method here keeps {planned.final_density:.4g}: "
            "use the same method and density; if its start chose other counts, pass the state on: "
            "sparsify(..., state=state)"
        )


def _read_bits(name: str, key: str, packed: Any, shape: tuple[int, ...]) -> Tensor:
    try:
        return unpack(packed, shape)
    except ValueError as error:
        raise ValueError(f"state: {key} of {name}: {error}") from None


def check_names(state: Any, names: list[str]) -> None:
    """Raise ValueError unless a saved state is of these layers.

    Example:
        >>> check_names({"fc.weight": {}}, ["fc.weight"])
    """
    saved = list(state) if isinstance(state, Mapping) else state
    if saved != names:
        raise ValueError(
            f"state: it has masks of {saved}, but {names} are sparse here: "
            "use the same model, include and exclude"
        )
