"""Times every layer dense and stored, as the model really calls it, and chooses the faster."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from regrow.engine.method import Method
from regrow.engine.patterns import Block
from regrow.engine.planned import Plan, PlannedLayer
from regrow.engine.random_state import kept_random_state
from regrow.engine.selection import sample, seeded_generator
from regrow.execution.convert import stored_copy, why_not, why_not_method
from regrow.measure.timing import Timing, interleaved

__all__ = ["Call", "choose", "layer_calls", "time_layer"]

_GAIN = 0.95  # stored has to be this much faster, and clearly so, or timing noise would choose


@dataclass(frozen=True)
class Call:
    """How a model calls one of its layers.

    Args:
        shape: of the input.
        gradient: whether the input needs a gradient; a first layer's does not.
    """

    shape: tuple[int, ...]
    gradient: bool


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
    calls = layer_calls(model, [layer.name for layer in plan.layers], inputs)
    layers = []
    for layer in plan.layers:
        chosen, why = _faster(model, optimizer, method, layer, calls[layer.name])
        layers.append(replace(layer, execution=chosen, why=why))
    return Plan(tuple(layers), plan.skipped)


def _faster(
    model: nn.Module, optimizer: Optimizer, method: Method, planned: PlannedLayer, calls: list[Call]
) -> tuple[str, str]:
    """Return the faster execution of one layer, and why it is that one."""
    execution = "block" if isinstance(method.pattern, Block) else "csr"
    reason = why_not_method(method, execution) or why_not(model, planned, execution)
    if reason:
        return "masked", reason
    if not calls:
        return "masked", "the example inputs do not reach it"
    times = time_layer(model, optimizer, method, planned, execution, calls)
    dense, stored = times["masked"].median, times[execution].median
    clearly = times[execution].clearly_below(times["masked"])
    chosen = execution if clearly and stored < _GAIN * dense else "masked"
    why = f"a step takes {stored * 1e3:.2f} ms as {execution}, {dense * 1e3:.2f} ms masked"
    if _another(optimizer, [nn.Parameter(torch.zeros(1))]) is None:
        why += f", without that of the optimizer: another {type(optimizer).__name__} cannot be made"
    return chosen, why


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
    path = planned.name.removesuffix(".weight")
    dense = copy.deepcopy(model.get_submodule(path))
    positions = sample(planned.units, planned.initial, seeded_generator(0, planned.name, "time"))
    stored = stored_copy(dense, positions, method.pattern)
    mask = torch.ones_like(dense.weight)  # type: ignore[arg-type]
    steps = {
        "masked": _step_of(dense, optimizer, calls, mask),
        execution: _step_of(stored, optimizer, calls, None),
    }
    return interleaved(steps, seconds=seconds)


def _step_of(
    layer: nn.Module, optimizer: Optimizer, calls: list[Call], mask: Tensor | None
) -> Callable[[], None]:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    inputs = [
        torch.randn(call.shape, device=weight.device, dtype=weight.dtype).requires_grad_(
            call.gradient
        )
        for call in calls
    ]
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


def layer_calls(model: nn.Module, names: list[str], inputs: Any) -> dict[str, list[Call]]:
    """Run a model once and note with which inputs it calls the layers of some weights.

    Args:
        model: is run in evaluation mode; its mode and random state are restored.
        names: parameter names such as "0.weight".
        inputs: a tensor, or a tuple of arguments.
    """
    calls: dict[str, list[Call]] = defaultdict(list)
    handles = []
    for name in names:
        module = model.get_submodule(name.rpartition(".")[0])

        def note(_: nn.Module, args: tuple[Any, ...], name: str = name) -> None:
            if args and isinstance(args[0], Tensor):
                calls[name].append(Call(tuple(args[0].shape), args[0].requires_grad))

        handles.append(module.register_forward_pre_hook(note))
    modes = {module: module.training for module in model.modules()}
    try:
        # Dropout draws numbers even in a trial run; the user's random state is to stay as it was.
        with kept_random_state(model), torch.enable_grad():
            # In evaluation mode, so that batch norms do not learn from a batch that is no training
            # data.
            model.eval()
            model(*inputs) if isinstance(inputs, tuple) else model(inputs)
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
    return {name: calls[name] for name in names}
