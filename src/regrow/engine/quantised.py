"""Optimizer state held in fewer bits: told from plain numbers, read as floats, written back.

Two forms are known, by what they look like and not by their library, which is never imported:

* codes with a table (bitsandbytes): the slot ``state1`` holds one-byte places in the table
  ``qmap1``, whose entries are multiplied by ``absmax1``, one number for every 256 weights;
* a tensor class of its own (torchao) that can ``dequantize()`` itself and be copied into.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from regrow.engine.sharding import local

__all__ = ["is_codes", "is_plain", "read", "writable", "writing"]

_BLOCK = 256  # weights that share one absmax
_PLAIN = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_CODES = (torch.uint8, torch.int8)


def is_plain(slot: Tensor) -> bool:
    """Tell whether a tensor is one of plain numbers: strided and floating, of no class of its own.

    Example:
        >>> is_plain(torch.ones(2)), is_plain(torch.ones(2, dtype=torch.uint8))
        (True, False)
    """
    part = local(slot)
    return (
        type(part) in (Tensor, nn.Parameter)
        and part.layout == torch.strided
        and part.dtype in _PLAIN
    )


def is_codes(state: Mapping[str, Any], name: str) -> bool:
    """Tell whether a slot stands for numbers that it does not hold as they are.

    Bool tensors and integers are flags and counts, and no moments; but integers of one byte are
    codes if something in the state gives them a scale.

    Args:
        state: the optimizer's, of one weight.
        name: of a slot that is not plain.

    Example:
        >>> is_codes({"count": torch.zeros(4, dtype=torch.int64)}, "count")
        False
        >>> signs = torch.zeros(4, dtype=torch.int8)
        >>> is_codes({"m": signs, "scale": torch.ones(2)}, "m"), is_codes({"m": signs}, "m")
        (True, False)
    """
    part = local(state[name])
    if type(part) not in (Tensor, nn.Parameter) or part.layout != torch.strided:
        return True
    if part.dtype in _CODES:
        return any(
            isinstance(other, Tensor) and other.is_floating_point() and other.shape != part.shape
            for key, other in state.items()
            if key != "step"
        )
    return part.is_floating_point() or part.is_complex()


def read(state: Mapping[str, Any], name: str) -> Tensor | None:
    """Return the numbers that a slot of codes stands for, or None if its form is not known."""
    slot = state[name]
    if _with_table(state, name):
        table, scale = _table(state, name)
        blocks = _blocks(table[slot.int()])
        return (
            (blocks * scale.to(slot.device).unsqueeze(1))
            .reshape(-1)[: slot.numel()]
            .reshape(slot.shape)
        )
    return slot.dequantize().contiguous() if _by_itself(slot) else None


def writing(state: Mapping[str, Any], name: str, values: Tensor) -> Callable[[], None]:
    """Return a function that writes numbers into a slot of codes, as near as it can hold.

    Args:
        state: the optimizer's, of one weight.
        name: of a slot that :func:`read` can read.
        values: of its shape.

    Returns:
        It takes no memory, and may be called again: what is to be written is computed here.
    """
    slot = state[name]
    if _with_table(state, name):
        scale = state[f"absmax{name.removeprefix('state')}"]
        codes, scales = _encoded(state, name, values)
        pairs = [(slot, codes), (scale, scales)]
    else:
        twin = _twin(slot).copy_(values)
        pairs = [(getattr(slot, part), getattr(twin, part)) for part in _parts(slot)]

    def write() -> None:
        for kept, new in pairs:
            kept.copy_(new)

    return write


def _encoded(state: Mapping[str, Any], name: str, values: Tensor) -> tuple[Tensor, Tensor]:
    """Return the codes that stand for numbers, and the scales they are to be read with."""
    table, scale = _table(state, name)
    blocks = _blocks(values)
    # A scale never falls here: what was not changed keeps the codes it has.
    scales = torch.maximum(scale, blocks.abs().amax(1).to(scale.device))
    # Paged codes lie in memory of the host, their scales may not.
    divisor = scales.clamp(min=torch.finfo(scales.dtype).tiny).to(values.device)
    wanted = blocks / divisor.unsqueeze(1)
    # The table is ascending: the nearest entry lies on either side of where a number belongs.
    above = torch.searchsorted(table, wanted).clamp(1, len(table) - 1)
    nearer = (wanted - table[above - 1]) <= (table[above] - wanted)
    codes = torch.where(nearer, above - 1, above).reshape(-1)[: values.numel()]
    return codes.reshape(values.shape).to(state[name].device, state[name].dtype), scales


def writable(state: Mapping[str, Any], name: str) -> bool:
    """Tell whether a slot of codes can be read and written, by trying it on a copy."""
    try:
        values = read(state, name)
        if values is None:
            return False
        if not _with_table(state, name):
            _twin(state[name]).copy_(values)
        return values.shape == state[name].shape and values.is_floating_point()
    except (RuntimeError, NotImplementedError, TypeError, AttributeError):
        return False


def _twin(slot: Any) -> Any:
    """Copy a tensor of a class of its own: a write that fails half-way must not meet the slot."""
    _, context = slot.__tensor_flatten__()
    inner = {name: getattr(slot, name).clone() for name in _parts(slot)}
    return type(slot).__tensor_unflatten__(inner, context, slot.shape, slot.stride())


def _parts(slot: Any) -> list[str]:
    """Return the names of the tensors that make up one of a class of its own."""
    names: list[str] = slot.__tensor_flatten__()[0]
    return names


def _with_table(state: Mapping[str, Any], name: str) -> bool:
    slot, number = state[name], name.removeprefix("state")
    table, scale = state.get(f"qmap{number}"), state.get(f"absmax{number}")
    return (
        slot.dtype == torch.uint8
        and slot.is_contiguous()
        and isinstance(table, Tensor)
        and isinstance(scale, Tensor)
        and len(table) == _BLOCK
        and scale.numel() == -(-slot.numel() // _BLOCK)
        # Some tables are not in ascending order; the nearest entry is then looked for in vain.
        and bool((table.diff() >= 0).all())
    )


def _table(state: Mapping[str, Any], name: str) -> tuple[Tensor, Tensor]:
    number, device = name.removeprefix("state"), state[name].device
    return state[f"qmap{number}"].to(device), state[f"absmax{number}"]


def _blocks(values: Tensor) -> Tensor:
    """Return the values in rows of one scale each, the last filled up with zeros."""
    flat = values.reshape(-1)
    return nn.functional.pad(flat, (0, -flat.numel() % _BLOCK)).reshape(-1, _BLOCK)


def _by_itself(slot: Tensor) -> bool:
    own = getattr(type(slot), "dequantize", None) is not Tensor.dequantize
    return own and hasattr(slot, "__tensor_flatten__")
