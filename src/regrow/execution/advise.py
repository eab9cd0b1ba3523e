"""Times sparse against dense training of a model on this machine, and gives advice."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_leaves

from regrow.engine.method import Static
from regrow.engine.patterns import Block, Element, Pattern
from regrow.engine.plan import Globs, make_plan
from regrow.engine.sparsifier import Sparsifier
from regrow.engine.sparsify import sparsify
from regrow.engine.tables import draw
from regrow.execution.choose import layer_calls, time_layer
from regrow.execution.convert import why_not
from regrow.measure.memory import bytes_allocated
from regrow.measure.timing import Timing, interleaved

__all__ = ["Advice", "LayerAdvice", "StepAdvice", "advise"]


@dataclass(frozen=True)
class LayerAdvice:
    """What one layer's training step costs, dense and stored.

    Args:
        name: the weight's.
        density: of this layer.
        dense: seconds of a step under a mask.
        stored: seconds of a step that computes active weights only; None if it cannot.
        reason: why it cannot.
    """

    name: str
    density: float
    dense: Timing | None
    stored: Timing | None
    reason: str | None = None


@dataclass(frozen=True)
class StepAdvice:
    """What a training step of the whole model costs, one way.

    Args:
        density: over all sparse weights; 1 is the dense model.
        execution: "dense", "masked", "csr" or "block" (as many layers as can be), or "auto".
        time: of forward, backward and the optimizer's step.
        bytes: of weights, gradients, optimizer state and topology, activations aside.
    """

    density: float
    execution: str
    time: Timing
    bytes: int


@dataclass(frozen=True)
class Advice:
    """What sparse training would cost; ``print`` it.

    Args:
        layers: each layer at each density.
        steps: the whole step at each density, each way; the dense one first.
        pays_from: the largest of the densities at which a stored way clearly beats the dense step
            (the middle halves of their timings do not touch); None if none does.
    """

    layers: tuple[LayerAdvice, ...]
    steps: tuple[StepAdvice, ...]
    pays_from: float | None

    def __str__(self) -> str:
        """Draw two tables and a sentence."""
        dense = self.steps[0]
        rows = [("density", "execution", "ms", "middle half", "× faster", "MiB", "× smaller")]
        for step in self.steps:
            low, high = step.time.quartiles
            rows.append(
                (
                    f"{step.density:g}",
                    step.execution,
                    f"{step.time.median * 1e3:.2f}",
                    f"{low * 1e3:.2f}-{high * 1e3:.2f}",
                    f"{dense.time.median / step.time.median:.2f}",
                    f"{step.bytes / 2**20:.1f}",
                    f"{dense.bytes / step.bytes:.1f}",
                )
            )
        layers = [("weight", "density", "dense ms", "stored ms", "× faster")]
        for layer in self.layers:
            row = (layer.name, f"{layer.density:.4f}")
            if layer.dense is None or layer.stored is None:
                layers.append((*row, "", "", ""))
                continue
            slow, fast = layer.dense.median, layer.stored.median
            layers.append((*row, f"{slow * 1e3:.2f}", f"{fast * 1e3:.2f}", f"{slow / fast:.2f}"))
        reasons = {layer.name: layer.reason for layer in self.layers if layer.reason}
        cannot = [f"{name} stays dense: {reason}" for name, reason in reasons.items()]
        verdict = (
            f"Sparse execution pays from a density of {self.pays_from:g} down."
            if self.pays_from is not None
            else "Sparse execution does not pay here at any of these densities."
        )
        title = "A whole training step (forward, backward, optimizer):"
        parts = [title, draw(rows), "", "Layer by layer:", draw(layers), *cannot, "", verdict]
        return "\n".join(parts)


def advise(
    model: nn.Module,
    example_inputs: Any,
    densities: Sequence[float] = (0.2, 0.1, 0.05, 0.01),
    *,
    optimizer: Callable[[Any], Optimizer] = torch.optim.AdamW,
    loss: Callable[[Any], Tensor] | None = None,
    include: Globs = None,
    exclude: Globs = None,
    block: int | None = None,
    seconds: float = 2.0,
) -> Advice:
    """Time a model's training step dense, under masks and stored, at several densities.

    Args:
        model: stays as it is; copies are timed, where it is: on the CPU or a GPU.
        example_inputs: a batch of the size that training will use: a tensor, or a tuple of the
            model's arguments.
        densities: each in (0, 1].
        optimizer: makes the optimizer from parameters.
        loss: makes a scalar of the model's output; None sums it up.
        include: as for :func:`regrow.sparsify`.
        exclude: as for :func:`regrow.sparsify`.
        block: the side of blocks; None: single weights on the CPU, blocks of 64 on a GPU, where
            single weights are not faster.
        seconds: of timing for each density.

    Returns:
        The advice; ``print`` it.

    Raises:
        ValueError: a density is out of range, or nothing in the model can be sparse.

    Example:
        >>> model = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))
        >>> advice = advise(model, torch.randn(8, 32), [0.1], seconds=0.0)
        >>> [(step.density, step.execution) for step in advice.steps]
        [(1.0, 'dense'), (0.1, 'masked'), (0.1, 'csr'), (0.1, 'auto')]
    """
    pattern, execution = _pattern(model, block)
    steps: list[StepAdvice] = []
    layers: list[LayerAdvice] = []
    best: list[float] = []
    for density in densities:
        method = Static(density=density, pattern=pattern)
        plan = make_plan(model, method, include, exclude)
        possible = {layer.name: why_not(model, layer, execution) for layer in plan.layers}
        calls = layer_calls(model, [layer.name for layer in plan.layers], example_inputs)
        for layer in plan.layers:
            reason = possible[layer.name] or (None if calls[layer.name] else "is not reached")
            times: Mapping[str, Timing | None] = {"masked": None, execution: None}
            if reason is None:
                made = optimizer(model.parameters())
                # A quarter of the time for single layers; whole steps decide.
                share = seconds / 4 / len(plan.layers)
                times = time_layer(
                    model, made, method, layer, execution, calls[layer.name], seconds=share
                )
            share_kept = layer.initial / layer.units
            layers.append(
                LayerAdvice(layer.name, share_kept, times["masked"], times[execution], reason)
            )
        cannot = [name for name, reason in possible.items() if reason]
        storable = [name for name, reason in possible.items() if not reason]
        ways = {"masked": storable + cannot}
        if storable:
            ways |= {execution: storable, "auto": storable}
        ways = {way: names for way, names in ways.items() if names}
        timings = _time_steps(model, example_inputs, method, ways, optimizer, loss, seconds=seconds)
        if not steps:
            steps.append(timings["dense"])
        steps += [timings[way] for way in ways]
        sparse = [timings[way].time for way in ways if way != "masked"]
        if any(time.clearly_below(timings["dense"].time) for time in sparse):
            best.append(density)
    return Advice(tuple(layers), tuple(steps), max(best, default=None))


def _pattern(model: nn.Module, block: int | None) -> tuple[Pattern, str]:
    """Return what a unit is, and how it is stored, where the model is."""
    on_gpu = any(parameter.is_cuda for parameter in model.parameters())
    if block is None and not on_gpu:
        return Element(), "csr"
    return Block(block or 64), "block"


def _time_steps(
    model: nn.Module,
    inputs: Any,
    method: Static,
    ways: Mapping[str, list[str]],
    optimizer: Callable[[Any], Optimizer],
    loss: Callable[[Any], Tensor] | None,
    *,
    seconds: float,
) -> dict[str, StepAdvice]:
    """Time the whole step of copies of the model in turns, dense among them."""
    held: dict[str, tuple[nn.Module, Optimizer, Sparsifier | None]] = {}
    # All copies at once, timed in turns: what slows the machine slows them alike.
    for way in ("dense", *ways):
        twin = copy.deepcopy(model)
        made = optimizer(twin.parameters())
        sparse = None
        if way != "dense":
            sparse = sparsify(
                twin,
                made,
                method,
                total_steps=1 << 30,
                include=ways[way],
                execution=way,
                example_inputs=inputs,
            )
        held[way] = (twin, made, sparse)

    def step(twin: nn.Module, made: Optimizer) -> None:
        made.zero_grad()
        output = twin(*inputs) if isinstance(inputs, tuple) else twin(inputs)
        scalar = loss(output) if loss else sum(leaf.float().sum() for leaf in tree_leaves(output))
        scalar.backward()
        made.step()

    def call(twin: nn.Module, made: Optimizer) -> Callable[[], None]:
        return lambda: step(twin, made)

    times = interleaved({way: call(t, m) for way, (t, m, _) in held.items()}, seconds=seconds)
    density = method.density
    assert isinstance(density, float | int)
    return {
        way: StepAdvice(
            1.0 if way == "dense" else density, way, times[way], bytes_allocated(t, m, s).total
        )
        for way, (t, m, s) in held.items()
    }
