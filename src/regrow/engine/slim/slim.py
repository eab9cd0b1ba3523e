"""Slims a model: cuts the channels that do nothing, and proves that nothing has changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_leaves

from regrow.engine.slim.choose import Cut, choose
from regrow.engine.slim.cut import plan_cuts
from regrow.engine.slim.flow import follow
from regrow.engine.slim.groups import Group
from regrow.engine.slim.heads import plan_heads
from regrow.engine.slim.trace import trace
from regrow.engine.tables import draw
from regrow.engine.topology import Topology
from regrow.engine.undisturbed import evaluating
from regrow.engine.whole import finish

__all__ = ["Slimmed", "check_slimmable", "slim_"]

# How far outputs may move by another order of the same sums, relative to their norm.
_ROUNDING = {torch.float64: 1e-10, torch.float32: 1e-4}
_ROUNDING_OF_HALVES = 3e-2


@dataclass(frozen=True)
class Slimmed:
    """What was cut, and what could not be.

    Args:
        shapes: of the parameters that were cut, before and after, by name.
        whole: why channels of a layer could not be cut, by its name, of those with zeros in them.
        before: parameters of the model before, in numbers.
        after: and after.
    """

    shapes: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
    whole: Mapping[str, str]
    before: int
    after: int

    def __str__(self) -> str:
        rows = [
            (name, "×".join(map(str, one)), "×".join(map(str, other)))
            for name, (one, other) in self.shapes.items()
        ]
        lines = [draw([("parameter", "before", "after"), *rows])] if rows else ["nothing was cut"]
        lines += [f"whole: {name} ({why})" for name, why in self.whole.items()]
        share = self.after / max(1, self.before)
        return "\n".join([*lines, f"{self.after:,} of {self.before:,} parameters ({share:.1%})"])


def check_slimmable(topology: Topology, live: Iterable[Any]) -> None:
    """Raise ValueError unless the layers of a topology are dense ones under its masks alone.

    Args:
        topology: of the model.
        live: whatever else has a topology.
    """
    if stored := [layer.name for layer in topology.layers if layer.stored]:
        raise ValueError(
            f"slim_() cuts dense layers, and {', '.join(stored)} is stored: give a dense model the "
            "weights by regrow.execution.export.dense_state_dict, and sparsify it with masks"
        )
    weights = {id(p) for p in topology.model.parameters()}
    others = (one.topology for one in live if one.topology is not topology)
    if any(id(weight) in weights for other in others for weight in other.present()):
        raise ValueError(
            "slim_(): another Sparsifier has weights of this model, whose masks would no longer "
            "fit: call remove() on it first"
        )


def slim_(model: nn.Module, optimizer: Optimizer, example_inputs: Any) -> Slimmed:
    """Cut the channels of a model that do nothing, in place; its outputs stay.

    Args:
        model: whose weights are zero where they were pruned.
        optimizer: holds its weights; its state is cut as they are.
        example_inputs: a tensor, or a tuple of the model's arguments. The model is called with them
            in evaluation mode, before and after.

    Raises:
        ValueError: the model cannot be traced, or the optimizer's state not be cut.
        RuntimeError: outputs would have changed. Model and optimizer are then as they were.
    """
    inputs = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    with evaluating(model):
        expected = _outputs(model, inputs)
        graph, shapes = trace(model, inputs)
        groups = follow(model, graph, shapes).all()
    with torch.no_grad():
        chosen = [(group, choose(group)) for group in groups]
        cuts = [(group, cut) for group, cut in chosen if isinstance(cut, Cut)]
        before = sum(p.numel() for p in model.parameters())
        plan = plan_cuts(cuts, optimizer)
        whole = plan_heads(plan, model, optimizer)
        try:
            finish(plan.writes)
            with evaluating(model):
                _check_equal(expected, model, inputs)
        except BaseException:
            finish(plan.undo)
            raise
    shapes_of = {n: plan.shapes[id(p)] for n, p in model.named_parameters() if id(p) in plan.shapes}
    return Slimmed(
        {name: both for name, both in shapes_of.items() if both[0] != both[1]},
        whole | _reasons(model, chosen),
        before,
        sum(p.numel() for p in model.parameters()),
    )


def _outputs(model: nn.Module, inputs: tuple[Any, ...]) -> list[Tensor]:
    return [t.clone() for t in tree_leaves(model(*inputs)) if isinstance(t, Tensor)]


def _check_equal(expected: list[Tensor], model: nn.Module, inputs: tuple[Any, ...]) -> None:
    try:
        found = _outputs(model, inputs)
        same = len(found) == len(expected) and all(
            one.shape == other.shape and _close(one, other)
            for one, other in zip(found, expected, strict=True)
        )
    except Exception as error:
        raise RuntimeError(
            "slim_() would make a model that cannot be called, so that nothing was changed: its "
            f"forward counts on numbers of channels ({error})"
        ) from error
    if not same:
        raise RuntimeError(
            "slim_() would change the model's outputs, so that nothing was changed: its forward "
            "does more with numbers of channels than can be seen"
        )


def _close(one: Tensor, other: Tensor) -> bool:
    if not one.is_floating_point():
        return bool(torch.equal(one, other))
    tolerance = _ROUNDING.get(other.dtype, _ROUNDING_OF_HALVES)
    distance = (one.double() - other.double()).norm()
    return bool(distance <= tolerance * other.double().norm() + 1e-12)


def _reasons(model: nn.Module, chosen: list[tuple[Group, Cut | str]]) -> dict[str, str]:
    """Say of layers with outputs or inputs of zeros alone why those channels stay."""
    names = {id(module): name for name, module in model.named_modules()}
    reasons = {}
    for group, cut in chosen:
        if isinstance(cut, Cut):
            continue
        for module in group.makes.values():
            weight = module._parameters.get("weight")
            if weight is not None and not bool(weight.detach().flatten(1).any(1).all()):
                reasons[f"{names[id(module)]}, outputs"] = cut
        for read in group.reads:
            weight = read.module._parameters.get("weight")
            if weight is not None and not bool(
                weight.detach().transpose(0, 1).flatten(1).any(1).all()
            ):
                reasons[f"{names[id(read.module)]}, inputs"] = cut
    return reasons
