"""Times every layer dense and stored, as the model really calls it, and chooses the faster."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from regrow.engine.method import Method
from regrow.engine.patterns import NM, Block, Pattern
from regrow.engine.planned import Plan, PlannedLayer
from regrow.engine.selection import sample, seeded_generator
from regrow.engine.undisturbed import evaluating
from regrow.execution.convert import stored_copy, why_not, why_not_method
from regrow.execution.two_four.library import library, why_dense
from regrow.execution.two_four.linear import TwoFourLinear
from regrow.measure.timing import Timing, interleaved

__all__ = [
    "Call",
    "choose",
    "clearly_faster",
    "dense_step",
    "layer_calls",
    "stored_step",
    "time_layer",
]

_GAIN = 0.95  # stored has to be this much faster, and clearly so, or timing noise would choose


@dataclass(frozen=True)
class Call:
    """How a model calls one of its layers.

    Args:
        shape: of the input.
        gradient: whether the input needs a gradient; a first layer's does not.
        strides: how the input lies in memory (channels last, say); None: in the order of its axes.
    """

    shape: tuple[int, ...]
    gradient: bool
    strides: tuple[int, ...] | None = None

    def like(self, weight: Tensor) -> Tensor:
        """Make a random input of a layer with this weight."""
        x = torch.randn(self.shape, device=weight.device, dtype=weight.dtype)
        if self.strides is not None:
            x = torch.empty_strided(
                self.shape, self.strides, device=weight.device, dtype=weight.dtype
            ).copy_(x)
        return x.requires_grad_(self.gradient)


def choose(model: nn.Module, optimizer: Optimizer, method: Method, plan: Plan, inputs: Any) -> Plan:
    """Choose for every planned layer the faster of dense under a mask, and stored.

    A step of one layer is timed: forward, both gradients, the optimizer's step.

    Args:
        model: is run once on the inputs, in evaluation mode; nothing of it changes.
        optimizer: its class and options are timed along.
        method: gives the pattern, and the densities of the plan.
        plan: which layers, how dense.
        inputs: a batch of the size that training will use: a tensor, or a tuple of arguments.

    Returns:
        The plan with how each layer is to be computed, and why.

    Raises:
        ValueError: the inputs are None.
    """
    if inputs is None:
        raise ValueError(
            "execution='auto' times layers as the model calls them: pass example_inputs, a batch "
            "of the size that training will use"
        )
    reasons = {layer.name: _why_masked(model, method, layer) for layer in plan.layers}
    # The model is run only if that tells something: FSDP leaves weights whole after a forward pass.
    timed = [name for name, reason in reasons.items() if reason is None]
    calls = layer_calls(model, timed, inputs) if timed else {}
    layers = []
    for layer in plan.layers:
        if reason := reasons[layer.name]:
            chosen, why = "masked", reason
        else:
            chosen, why = _faster(model, optimizer, method, layer, calls[layer.name])
        layers.append(replace(layer, execution=chosen, why=why))
    return Plan(tuple(layers), plan.skipped)


def _why_masked(model: nn.Module, method: Method, planned: PlannedLayer) -> str | None:
    """Return why a layer can be computed under its mask only, or None if there is a choice."""
    execution = way_of(method.pattern)
    reason = why_not_method(method, execution) or why_not(model, planned, execution)
    if execution == "2:4" and not reason:
        weight = model.get_parameter(planned.name)
        reason = why_dense(weight, weight.dtype, library(weight.device))
    return reason or None


def _faster(
    model: nn.Module, optimizer: Optimizer, method: Method, planned: PlannedLayer, calls: list[Call]
) -> tuple[str, str]:
    """Return the faster execution of one layer, and why it is that one."""
    execution = way_of(method.pattern)
    if not calls:
        return "masked", "the example inputs do not reach it"
    times = time_layer(model, optimizer, method, planned, execution, calls)
    dense, stored = times["masked"].median, times[execution].median
    chosen = execution if clearly_faster(times[execution], times["masked"]) else "masked"
    why = f"a step takes {stored * 1e3:.2f} ms as {execution}, {dense * 1e3:.2f} ms masked"
    if _another(optimizer, [nn.Parameter(torch.zeros(1))]) is None:
        why += f", without that of the optimizer: another {type(optimizer).__name__} cannot be made"
    return chosen, why


def way_of(pattern: Pattern) -> str:
    """Return how layers of a pattern may be computed faster than under masks.

    Example:
        >>> way_of(Block(32)), way_of(NM(2, 4)), way_of(NM(1, 4))
        ('block', '2:4', 'csr')
    """
    if isinstance(pattern, Block):
        return "block"
    return "2:4" if pattern == NM(2, 4) else "csr"


def time_layer(
    model: nn.Module,
    optimizer: Optimizer,
    method: Method,
    planned: PlannedLayer,
    execution: str,
    calls: list[Call],
    *,
    seconds: float = 0.3,
) -> dict[str, Timing]:
    """Time a training step of one layer alone, dense under a mask and stored, in turns.

    Returns:
        Timings of "masked" and of the execution.
    """
    if execution == "2:4":
        other = _two_four_step(model, optimizer, method, planned, calls)
    else:
        other = stored_step(model, optimizer, method, planned, calls)
    steps = {"masked": dense_step(model, optimizer, planned, calls), execution: other}
    return interleaved(steps, seconds=seconds)


def dense_step(
    model: nn.Module, optimizer: Optimizer, planned: PlannedLayer, calls: list[Call]
) -> Callable[[], None]:
    """Return a training step of one layer alone under a mask, to be timed."""
    dense = _copy_of(model, planned)
    return _step_of(dense, optimizer, calls, torch.ones_like(dense.weight))  # type: ignore[arg-type]


def stored_step(
    model: nn.Module,
    optimizer: Optimizer,
    method: Method,
    planned: PlannedLayer,
    calls: list[Call],
) -> Callable[[], None]:
    """Return a training step of one layer alone that stores active weights, to be timed."""
    positions = sample(planned.units, planned.initial, seeded_generator(0, planned.name, "time"))
    stored = stored_copy(_copy_of(model, planned), positions, method.pattern)
    return _step_of(stored, optimizer, calls, None)


def _two_four_step(
    model: nn.Module,
    optimizer: Optimizer,
    method: Method,
    planned: PlannedLayer,
    calls: list[Call],
) -> Callable[[], None]:
    dense = _copy_of(model, planned)
    grid = torch.ones(method.pattern.grid(planned.shape), dtype=torch.bool, device="cpu")
    generator = seeded_generator(0, planned.name, "time")
    units = method.pattern.draw(planned.initial, grid, planned.units, generator)
    weight = cast(Tensor, dense.weight)
    mask = method.pattern.expand(units, planned.shape).contiguous().to(weight)
    return _step_of(TwoFourLinear.made_of_(cast(nn.Linear, dense), mask), optimizer, calls, mask)


def _copy_of(model: nn.Module, planned: PlannedLayer) -> nn.Module:
    return copy.deepcopy(model.get_submodule(planned.name.removesuffix(".weight")))


def clearly_faster(stored: Timing, dense: Timing) -> bool:
    """Tell whether a stored layer is faster beyond the noise of timing, and by enough to matter."""
    return stored.clearly_below(dense) and stored.median < _GAIN * dense.median


def _step_of(
    layer: nn.Module, optimizer: Optimizer, calls: list[Call], mask: Tensor | None
) -> Callable[[], None]:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    inputs = [call.like(weight) for call in calls]
    gradients = [torch.randn_like(layer(x)) for x in inputs]
    # The optimizer's step is part of what sparse layers save: its state has one entry a nonzero.
    own = _another(optimizer, layer.parameters())

    def step() -> None:
        layer.zero_grad()
        for x, gradient in zip(inputs, gradients, strict=True):
            x.grad = None
            layer(x).backward(gradient)
        if own is not None:
            own.step()
        if mask is not None:
            weight.data.mul_(mask)

    return step


def _another(optimizer: Optimizer, parameters: Iterable[Tensor]) -> Optimizer | None:
    """Make an optimizer of the same kind and options, or None where it takes other arguments."""
    try:
        return type(optimizer)(parameters, **optimizer.defaults)
    except TypeError:
        return None


def _call_with(x: Tensor) -> Call:
    # Convolutions are faster channels last: timed otherwise, dense ones would look too slow.
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(x.dim())
    turned = last is not None and not x.is_contiguous() and x.is_contiguous(memory_format=last)
    return Call(tuple(x.shape), x.requires_grad, x.stride() if turned else None)


def layer_calls(model: nn.Module, names: list[str], inputs: Any) -> dict[str, list[Call]]:
    """Run a model once and note with which inputs it calls the layers of some weights.

    Args:
        model: is run in evaluation mode; its modes, buffers and random state are restored.
        names: parameter names such as "0.weight".
        inputs: a tensor, or a tuple of arguments.
    """
    calls: dict[str, list[Call]] = defaultdict(list)
    handles = []
    for name in names:
        module = model.get_submodule(name.rpartition(".")[0])

        def note(_: nn.Module, args: tuple[Any, ...], name: str = name) -> None:
            if args and isinstance(args[0], Tensor):
                calls[name].append(_call_with(args[0]))

        handles.append(module.register_forward_pre_hook(note))
    try:
        # In evaluation mode, so that batch norms do not learn from a batch that is no training
        # data; even then dropout draws numbers.
        with evaluating(model), torch.enable_grad():
            model(*inputs) if isinstance(inputs, tuple) else model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return {name: calls[name] for name in names}
