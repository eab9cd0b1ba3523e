"""Takes channels out of layers, their norms and the optimizer's state, in place."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from regrow.engine.optimizers import inside
from regrow.engine.resize import resize_
from regrow.engine.slim.choose import Cut
from regrow.engine.slim.groups import Group
from regrow.engine.slim.layers import is_depthwise

__all__ = ["Plan", "plan_cuts"]

Writes = list[Callable[[], object]]


class Plan:
    """What is to be written, computed beforehand, and what puts everything back.

    Attributes:
        writes: functions that cut.
        undo: functions that give back what there was.
        shapes: of the parameters that are cut, before and after, by identity.
    """

    def __init__(self) -> None:
        self.writes: Writes = []
        self.undo: Writes = []
        self.shapes: dict[int, tuple[tuple[int, ...], tuple[int, ...]]] = {}

    def value_(self, tensor: Tensor, after: Tensor) -> None:
        """Plan another value of a tensor, of any length."""
        before = tensor.detach()
        self.writes.append(partial(resize_, tensor, after))
        self.undo.append(partial(resize_, tensor, before))

    def attribute_(self, module: nn.Module, name: str, after: object) -> None:
        """Plan another value of an attribute."""
        own = vars(module)
        self.writes.append(partial(setattr, module, name, after))
        undo = partial(setattr, module, name, own[name]) if name in own else None
        self.undo.append(undo or partial(own.pop, name, None))

    def gradient_(self, parameter: nn.Parameter) -> None:
        """Plan that a gradient goes: it is of the weight as it was."""
        self.writes.append(partial(setattr, parameter, "grad", None))
        self.undo.append(partial(setattr, parameter, "grad", parameter.grad))

    def cut_(
        self,
        parameter: nn.Parameter,
        source: Tensor,
        index: dict[int, Tensor],
        optimizer: Optimizer,
    ) -> None:
        """Plan that of a parameter, and of what optimizers keep of it, some entries stay.

        Args:
            parameter: to be cut.
            source: its value, or what it is to have instead.
            index: which entries of each dimension stay.
            optimizer: may hold state of it.

        Raises:
            ValueError: the optimizer keeps state of it that is not of its shape.
        """
        after = taken(source, index)
        self.value_(parameter, after)
        self.gradient_(parameter)
        self.shapes[id(parameter)] = tuple(parameter.shape), tuple(after.shape)
        _plan_state(self, optimizer, parameter, index)


@torch.no_grad()
def plan_cuts(cuts: list[tuple[Group, Cut]], optimizer: Optimizer) -> Plan:
    """Plan the cuts of some groups; changes nothing yet.

    Raises:
        ValueError: the optimizer keeps state of a weight that is not of its shape.
    """
    plan, values = Plan(), _merged(cuts)
    kept: dict[int, dict[int, Tensor]] = {}  # by parameter: which entries of each dimension stay
    held: dict[int, nn.Parameter] = {}

    def keep(parameter: Any, dim: int, index: Tensor) -> None:
        if isinstance(parameter, nn.Parameter):
            kept.setdefault(id(parameter), {})[dim] = index
            held[id(parameter)] = parameter

    for group, cut in cuts:
        n = len(cut.kept)
        for module in group.makes.values():
            keep(module._parameters.get("weight"), 0, cut.kept)
            keep(module._parameters.get("bias"), 0, cut.kept)
            linear = isinstance(module, nn.Linear)
            plan.attribute_(module, "out_features" if linear else "out_channels", n)
        for module in {id(r.module): r.module for r in group.reads}.values():
            span = next(r.span for r in group.reads if r.module is module)
            entries = (cut.kept[:, None] * span + torch.arange(span)).flatten()
            keep(module._parameters.get("weight"), 1, entries)
            linear = isinstance(module, nn.Linear)
            plan.attribute_(module, "in_features" if linear else "in_channels", n * span)
        for module in group.each.values():
            for parameter in module._parameters.values():
                keep(parameter, 0, cut.kept)
            for buffer in module._buffers.values():
                if buffer is not None and buffer.ndim == 1:
                    plan.value_(buffer, buffer[cut.kept.to(buffer.device)])
            for name in ("in_channels", "out_channels", "groups") if is_depthwise(module) else ():
                plan.attribute_(module, name, n)
            for name in ("num_features", "num_parameters"):
                if hasattr(module, name):
                    plan.attribute_(module, name, n)
    for key in values.keys() | kept.keys():
        parameter, before = held.get(key), values.get(key)
        if parameter is None:
            assert before is not None
            parameter = before[0]
        index = kept.get(key, {})
        source = parameter.detach() if before is None else before[1]
        plan.cut_(parameter, source, index, optimizer)
    return plan


def taken(tensor: Tensor, index: dict[int, Tensor]) -> Tensor:
    """Return the entries of a tensor that stay, by dimension; a copy."""
    for dim, entries in index.items():
        tensor = tensor.index_select(dim, entries.to(tensor.device))
    return tensor.clone()


def _merged(cuts: list[tuple[Group, Cut]]) -> dict[int, tuple[nn.Parameter, Tensor]]:
    """Return parameters that take in what others added, before anything is cut out of them."""
    values: dict[int, tuple[nn.Parameter, Tensor]] = {}
    for group, cut in cuts:
        for module, added in cut.biases.items():
            bias: Any = module.bias
            values[id(bias)] = bias, (bias.detach().double() + added.to(bias.device)).to(bias.dtype)
        spans = {id(read.module): read.span for read in group.reads}
        for module, (channel, added) in cut.merged.items():
            weight: Any = module.weight
            span, value = spans[id(module)], weight.detach().clone()
            part = value[:, channel * span : (channel + 1) * span]
            part += added.to(weight.device).reshape(part.shape).to(weight.dtype)
            values[id(weight)] = weight, value
    return values


def _plan_state(
    plan: Plan, optimizer: Optimizer, parameter: nn.Parameter, index: dict[int, Tensor]
) -> None:
    """Plan the same cut of all that optimizers keep of a parameter."""
    for one in inside(optimizer):
        for name, slot in one.state.get(parameter, {}).items():
            if not isinstance(slot, Tensor) or slot.numel() <= 1:
                continue
            if slot.shape != parameter.shape or type(slot) is not Tensor:
                raise ValueError(
                    f"{type(optimizer).__name__} keeps {name!r} of shape {tuple(slot.shape)} for a "
                    f"weight of shape {tuple(parameter.shape)}, of which no channel can be cut: "
                    "slim with an optimizer that has made no step (rebind_), and train on with it"
                )
            if index:
                plan.value_(slot, taken(slot, index))
