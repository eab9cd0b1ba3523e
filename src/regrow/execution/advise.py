"""Times sparse against dense training of a model on this machine, and gives advice."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_leaves

from regrow.engine.checks import check_integer
from regrow.engine.method import Method
from regrow.engine.methods import RigL
from regrow.engine.patterns import Block
from regrow.engine.plan import Globs, make_plan
from regrow.engine.planned import Plan
from regrow.engine.sparsifier import Sparsifier
from regrow.engine.sparsify import sparsify
from regrow.engine.structured import DynamicBlock
from regrow.engine.wrappers import unwrap
from regrow.execution.advice import Advice, LayerAdvice, StepAdvice
from regrow.execution.choose import dense_step, layer_calls, stored_step
from regrow.execution.convert import why_not
from regrow.measure.memory import bytes_allocated
from regrow.measure.timing import Timing, interleaved, now

__all__ = ["Advice", "LayerAdvice", "StepAdvice", "advise"]

_BURST = 0.03  # seconds of steps in a row: alone, a step finds caches that others have filled
_CYCLE, _MOST = 4, 30  # steps in a row: at least so many where there are updates, at most
_ROUNDS, _MOST_ROUNDS = 3, 15
_LAYERS = 0.25  # share of the time for single layers; whole steps decide


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
    update_every: int = 100,
    seconds: float = 3.0,
) -> Advice:
    """Time a model's training step dense, under masks and stored, at several densities.

    Steps are timed in bursts, in turns, as RigL trains (with blocks, ``DynamicBlock``): what a
    topology update takes is spread over the steps between two of them.

    Args:
        model: stays as it is; copies are timed, where it is: on the CPU or a GPU. In another memory
            format, ``torch.channels_last`` say, the dense step is timed as the model and its inputs
            are.
        example_inputs: a batch of the size that training will use: a tensor, or a tuple of the
            model's arguments.
        densities: each in (0, 1].
        optimizer: makes the optimizer from parameters.
        loss: makes a scalar of the model's output; None weighs it at random and sums it up.
        include: as for :func:`regrow.sparsify`.
        exclude: as for :func:`regrow.sparsify`.
        block: the side of blocks; None: single weights on the CPU, blocks of 64 on a GPU, where
            single weights are not faster.
        update_every: steps between two updates of the topology.
        seconds: of timing in all; three rounds are made whatever they take.

    Returns:
        The advice; ``print`` it. It says where timings were too noisy to tell.

    Raises:
        ValueError: a density is out of range, update_every is below 1, or nothing in the model can
            be sparse.
        TypeError: update_every is no whole number.

    Example:
        >>> model = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))
        >>> advice = advise(model, torch.randn(8, 32), [0.1], seconds=0.0)
        >>> [(step.density, step.execution) for step in advice.steps]
        [(1.0, 'dense'), (0.1, 'masked'), (0.1, 'csr'), (0.1, 'auto')]
    """
    check_integer(update_every, "update_every", 1)
    if not isinstance(densities, Sequence) or isinstance(densities, str):
        raise TypeError(f"densities={densities!r}: a list of numbers in (0, 1] is needed")
    unwrap(model)  # raises if it is no module
    execution = _execution(model, block)
    methods = {density: _method(density, execution, block, 2) for density in densities}
    plans = {
        density: make_plan(model, method, include, exclude) for density, method in methods.items()
    }
    layers = _time_layers(model, optimizer, methods, plans, execution, example_inputs, seconds)
    step = _Step(example_inputs, loss)
    dense = _Run(copy.deepcopy(model), optimizer, step)
    # As many steps between updates as make a burst; a stored step takes a part of a dense one.
    in_burst = _BURST / dense.once()
    cycle = max(_CYCLE, min(_MOST, round(4 * in_burst)))

    def run(way: str, density: float, names: list[str], state: Any = None) -> _Run:
        # Masked steps take as long as dense ones, so that slow ones are few.
        own = cycle if way != "masked" else max(2, min(_MOST, round(in_burst)))
        method = _method(density, execution, block, own)
        return _Run(copy.deepcopy(model), optimizer, step, method, way, names, state)

    ways: dict[tuple[str, float], _Run] = {}
    for density, plan in plans.items():
        ours = [layer for layer in layers if layer.at == density]
        stored = [layer.name for layer in ours if layer.reason is None]
        # Masks cost the same at every density.
        masked = next(iter(ways.values()), None) or run(
            "masked", density, [layer.name for layer in plan.layers]
        )
        ways["masked", density] = masked
        if not stored:
            continue
        all_stored = ways[execution, density] = run(execution, density, stored)
        faster = {one.name for one in ours if one.faster}
        if faster == set(stored):
            ways["auto", density] = all_stored
        elif not faster:
            ways["auto", density] = masked
        else:
            how = {name: execution if name in faster else "masked" for name in stored}
            assert all_stored.sparse is not None
            state = {**all_stored.sparse.state_dict(), "execution": how}
            ways["auto", density] = run("auto", density, stored, state)
    _time([dense, *dict.fromkeys(ways.values())], (1 - _LAYERS) * seconds)
    steps = [dense.advice(1.0, "dense", update_every)]
    steps += [one.advice(density, way, update_every) for (way, density), one in ways.items()]
    return Advice(tuple(layers), tuple(steps), update_every)


def _execution(model: nn.Module, block: int | None) -> str:
    """Return how units are stored where the model is."""
    on_gpu = any(parameter.is_cuda for parameter in model.parameters())
    return "csr" if block is None and not on_gpu else "block"


def _method(density: float, execution: str, block: int | None, update_every: int) -> Method:
    if execution == "csr":
        return RigL(density=density, update_every=update_every, stop_at=1.0)
    pattern = Block(block or 64)
    return DynamicBlock(density=density, pattern=pattern, update_every=update_every, stop_at=1.0)


def _time_layers(
    model: nn.Module,
    optimizer: Callable[[Any], Optimizer],
    methods: Mapping[float, Method],
    plans: Mapping[float, Plan],
    execution: str,
    inputs: Any,
    seconds: float,
) -> list[LayerAdvice]:
    """Time each layer alone: once dense under a mask, and stored at every density, in turns."""
    names = [layer.name for plan in plans.values() for layer in plan.layers]
    calls = layer_calls(model, list(dict.fromkeys(names)), inputs)
    made = optimizer(model.parameters())
    found: dict[tuple[float, str], LayerAdvice] = {}
    for name, calls_of in calls.items():
        steps: dict[str, Callable[[], None]] = {}
        planned = {d: one for d, plan in plans.items() for one in plan.layers if one.name == name}
        reason = why_not(model, next(iter(planned.values())), execution)
        reason = reason or (None if calls_of else "is not reached")
        for density, one in planned.items():
            if reason is None:
                if not steps:
                    steps["masked"] = dense_step(model, made, one, calls_of)
                steps[f"{density}"] = stored_step(model, made, methods[density], one, calls_of)
        share = _LAYERS * seconds / len(calls)
        times = (
            interleaved(steps, seconds=share, warmup=1, least=_ROUNDS, clock=now) if steps else {}
        )
        for density, one in planned.items():
            dense, stored = times.get("masked"), times.get(f"{density}")
            kept = one.initial / one.units
            found[density, name] = LayerAdvice(name, kept, dense, stored, reason, density)
    return [found[density, layer.name] for density, plan in plans.items() for layer in plan.layers]


class _Step:
    """What is computed before the optimizer's step."""

    def __init__(self, inputs: Any, loss: Callable[[Any], Tensor] | None) -> None:
        self.inputs, self.loss = inputs, loss
        self._weights: list[Tensor] = []

    def __call__(self, model: nn.Module) -> None:
        output = model(*self.inputs) if isinstance(self.inputs, tuple) else model(self.inputs)
        (self.loss or self._weighed)(output).backward()

    def _weighed(self, output: Any) -> Tensor:
        """Weigh outputs at random: a plain sum has the same gradient everywhere, all ties."""
        leaves = tree_leaves(output)
        if not self._weights:
            generator = torch.Generator().manual_seed(0)
            self._weights = [
                torch.randn(leaf.shape, generator=generator).to(leaf.device) for leaf in leaves
            ]
        pairs = zip(leaves, self._weights, strict=True)
        return torch.stack([(leaf.float() * weights).sum() for leaf, weights in pairs]).sum()


class _Run:
    """A copy of the model that is trained one way, timed a burst of steps at a time."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: Callable[[Any], Optimizer],
        step: _Step,
        method: Method | None = None,
        way: str = "",
        names: list[str] | None = None,
        state: Any = None,
    ) -> None:
        self.model, self.step = model, step
        self.optimizer = optimizer(model.parameters())
        # Weights stay: without a loss of the user's own they would soon be beyond all numbers.
        for group in self.optimizer.param_groups:
            if isinstance(group.get("lr"), float | int | Tensor):
                group["lr"] = 0.0 * group["lr"]
        self.sparse: Sparsifier | None = None
        self.ordinary: list[float] = []  # seconds of a step, a number a burst
        self.updates: list[float] = []  # seconds that an update adds, likewise
        self.cycle = 1
        self.decides = way != "masked"
        if method is not None:
            self.sparse = sparsify(
                model,
                self.optimizer,
                method,
                total_steps=1 << 30,
                include=names,
                execution=way,
                example_inputs=step.inputs,
                state=state,
            )
            self.cycle = getattr(method, "update_every", 1)

    def once(self) -> float:
        """Make one step and return its seconds."""
        started = now()
        self.optimizer.zero_grad()
        self.step(self.model)
        self.optimizer.step()
        return now() - started

    def burst(self) -> None:
        """Make as many steps as lie between two updates; the last one updates."""
        if self.sparse is None:
            first = self.once()
            more = [self.once() for _ in range(min(_MOST, int(_BURST / first)))]
            self.ordinary.append(float(np.median(more or [first])))
            return
        first, *steps, last = (self.once() for _ in range(self.cycle))
        ordinary = float(np.median(steps or [first]))
        self.ordinary.append(ordinary)
        # What the update has put off, such as the order by columns, is made by the step after it.
        self.updates.append(max(0.0, last - ordinary) + max(0.0, first - ordinary))

    def advice(self, density: float, way: str, update_every: int) -> StepAdvice:
        """Return what was found."""
        update = float(np.median(self.updates)) if self.updates else 0.0
        seconds = tuple(one + update / update_every for one in self.ordinary)
        held = bytes_allocated(self.model, self.optimizer, self.sparse).total
        return StepAdvice(density, way, Timing(seconds), held, update)


def _time(runs: list[_Run], seconds: float) -> None:
    """Train the runs in turns, a burst each; the first round warms up, if there are more."""
    started, rounds = time.perf_counter(), 0
    while rounds < _ROUNDS or (time.perf_counter() - started < seconds and rounds < _MOST_ROUNDS):
        for run in runs:
            # Masks decide nothing, and a slow model has no time to spare for a third round.
            if run.decides or rounds < _ROUNDS - 1 or run.ordinary[-1] < _BURST:
                run.burst()
        rounds += 1
    for run in runs:
        if rounds > _ROUNDS:
            del run.ordinary[0], run.updates[:1]
