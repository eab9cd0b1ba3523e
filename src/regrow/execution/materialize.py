"""Gives memory and first values to a model made on the meta device, active weights only."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from regrow.engine.patterns import Block, Pattern
from regrow.execution.empty import Unmade, fill_, made_real

__all__ = ["drawn_bias", "drawn_values", "exchange_", "materialize_"]


def drawn_values(dense: nn.Module, positions: Tensor, pattern: Pattern) -> Tensor:
    """Draw values of active units as the layer was to be initialised.

    By what is known of a weight made under :func:`~regrow.execution.empty.empty`; else as torch
    initialises Linear and Conv: U(-1/√fan_in, 1/√fan_in).

    Args:
        dense: a Linear or Conv layer on the meta device.
        positions: the active units.
        pattern: Element() or a Block, whose blocks reach beyond the weight with zeros.

    Returns:
        Tensor (n,), or (n, b, b) for blocks.
    """
    weight = cast(Tensor, dense.weight)
    side = (pattern.size,) * 2 if isinstance(pattern, Block) else ()
    values = torch.empty(len(positions), *side, dtype=weight.dtype, device="cpu")
    if isinstance(weight, Unmade) and weight.writes:
        fill_(values, weight)
    else:
        values.uniform_(-_bound(weight), _bound(weight))
    if not isinstance(pattern, Block):
        return values
    b, (rows, columns) = pattern.size, weight.shape
    across = -(-columns // b)
    row = (positions // across * b)[:, None] + torch.arange(b, device="cpu")
    column = (positions % across * b)[:, None] + torch.arange(b, device="cpu")
    # What a block holds beyond the edge of the weight must stay zero: it would count as an active
    # weight.
    return values * (row < rows)[:, :, None] * (column < columns)[:, None, :]


def drawn_bias(dense: nn.Module) -> Tensor | None:
    """Draw a bias on the meta device as torch does: U(-1/√fan_in, 1/√fan_in); others stay."""
    if dense.bias is None or not dense.bias.is_meta:
        return cast("nn.Parameter | None", dense.bias)
    bias, bound = cast(Tensor, dense.bias), _bound(cast(Tensor, dense.weight))
    return torch.empty(bias.shape, dtype=bias.dtype, device="cpu").uniform_(-bound, bound)


def materialize_(model: nn.Module, optimizer: Optimizer) -> None:
    """Give all that is left on the meta device memory on the CPU and its own initial values.

    Raises:
        ValueError: a module has parameters on the meta device and no ``reset_parameters``; or a
            weight made under ``empty()`` cannot be filled.
    """
    made: dict[nn.Parameter, nn.Parameter] = {}  # a tied weight stays one
    for name, module in model.named_modules():
        for key, parameter in list(module.named_parameters(recurse=False)):
            if isinstance(parameter, Unmade):
                if parameter not in made:
                    made[parameter] = _made(parameter, f"{name}.{key}")
                    exchange_(optimizer, parameter, made[parameter])
                setattr(module, key, made[parameter])
        own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        if not any(tensor.is_meta for tensor in own):
            continue
        reset = getattr(module, "reset_parameters", None)
        if reset is None:
            raise ValueError(
                f"{name} ({type(module).__name__}) is on the meta device and has no "
                "reset_parameters(): build this model on the CPU"
            )
        before = dict(module.named_parameters(recurse=False))
        # recurse=False: children are visited by the loop themselves, and a stored child has memory
        # already.
        module.to_empty(device="cpu", recurse=False)
        reset()
        for key, parameter in module.named_parameters(recurse=False):
            exchange_(optimizer, before[key], parameter)


def _made(weight: Unmade, name: str) -> nn.Parameter:
    try:
        return made_real(weight)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def exchange_(optimizer: Optimizer, before: nn.Parameter, after: nn.Parameter) -> None:
    """Put one parameter in the place of another, in its group: a scheduler holds these dicts."""
    for group in optimizer.param_groups:
        group["params"] = [after if p is before else p for p in group["params"]]


def _bound(weight: Tensor) -> float:
    return 1 / math.sqrt(math.prod(weight.shape[1:]))
