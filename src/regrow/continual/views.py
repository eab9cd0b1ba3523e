"""Writes one task's weights into the model, from a store that holds those of all tasks."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from regrow.continual.fresh import copies, take_fresh
from regrow.continual.task import Task
from regrow.engine.saved import unpack
from regrow.engine.wrappers import unwrap

__all__ = ["View", "find_head", "new_head", "own_tensors"]

Shape = tuple[int, ...]


class View:
    """A model, the store of its shared weights, and what is needed to begin anew.

    Args:
        model: any module; wrappers are looked into.
        head: the name of the linear layer that gives the logits.
        shapes: of the shared weights, by name; all else belongs to one task.
        seed: of what is drawn anew.

    Attributes:
        store: the shared weights, dense, on the CPU: as their task learnt them, or as they were at
            first.
        fresh: first values of all else, and samples of what is drawn anew.
        first_head: the first values of the model's own head.
    """

    def __init__(self, model: nn.Module, head: str, shapes: Mapping[str, Shape], seed: int) -> None:
        self.model = model
        self.head_name = head
        self.shapes = dict(shapes)
        inner = unwrap(model)
        shared = {name: inner.get_parameter(name) for name in shapes}
        own = own_tensors(inner, shapes)
        heads = {name: own.pop(name) for name in list(own) if self.of_head(name)}
        self.store = copies(shared)
        self.first_head = copies(heads)
        if odd := [name for name, one in (shared | heads).items() if not one.isfinite().all()]:
            raise ValueError(
                f"model: {', '.join(odd[:5])} holds NaN or infinity: initialise it anew"
            )
        self.fresh = take_fresh(own, shared | heads, seed)

    @property
    def head(self) -> nn.Linear:
        """The head of the task that is shown."""
        module = unwrap(self.model).get_submodule(self.head_name)
        assert isinstance(module, nn.Linear)
        return module

    def of_head(self, name: str) -> bool:
        """Tell whether a tensor is the head's."""
        return name.startswith(f"{self.head_name}.")

    def own(self) -> dict[str, Tensor]:
        """Copy what belongs to the task that is shown; what is as at first is stored once."""
        own, first = copies(own_tensors(unwrap(self.model), self.shapes)), self.fresh.own
        return {n: first[n] if n in first and _same(first[n], v) else v for n, v in own.items()}

    def everything(self) -> dict[str, Tensor]:
        """Copy all tensors of the model."""
        return copies(own_tensors(unwrap(self.model), ()))

    def not_finite(
        self, new: Mapping[str, Tensor], values: Mapping[str, Tensor] | None
    ) -> list[str]:
        """Return the names of tensors in which a task has learnt NaN or infinity.

        What was not finite at first, such as a mask of -inf that is added to scores, may stay so.

        Args:
            new: bool tensors by name: the shared weights that the task has learnt.
            values: of all tensors; None: those of the model.
        """
        tensors = own_tensors(unwrap(self.model), ()) if values is None else values
        odd = []
        for name, value in tensors.items():
            first = self.fresh.own.get(name)
            bad = ~value.detach().isfinite().cpu()
            if name in new:
                bad &= new[name]
            elif first is not None and first.shape == bad.shape:
                bad &= first.isfinite()
            if bad.any():
                odd.append(name)
        return odd

    def show_first(self) -> None:
        """Show the network as it was before the first task, with its own head."""
        weight = self.first_head[f"{self.head_name}.weight"]
        values = {**self.store, **self.fresh.own, **self.first_head}
        self.show_values(values, new_head(self.head, len(weight)))
        for parameter in unwrap(self.model).parameters():
            parameter.grad = None

    def make_head(self, task: int, outputs: int) -> nn.Linear:
        """Make a task's head; the first task keeps the model's own if it fits."""
        if task == 0 and outputs == self.head.out_features:
            return self.head
        head = new_head(self.head, outputs)
        with torch.no_grad():
            for name, value in head.named_parameters():
                full = f"{self.head_name}.{name}"
                value.copy_(self.fresh.draw(full, tuple(value.shape), task))
        return head

    def begin(self, task: int, head: nn.Linear, used: Mapping[str, Tensor], *, reuse: bool) -> None:
        """Show a task that is yet to be learnt; the first keeps the model's own weights.

        Args:
            task: its number.
            head: its head.
            used: bool tensors by name: weights of earlier tasks; the others are drawn anew.
            reuse: whether these have their values, or are zero.
        """
        fresh = self.store
        if task:
            fresh = {n: self.fresh.draw(n, shape, task) for n, shape in self.shapes.items()}
        self.show_values({**fresh, **self.fresh.own}, head)
        self.show_shared(used, reuse=reuse)
        for parameter in unwrap(self.model).parameters():
            parameter.grad = None

    @torch.no_grad()
    def show_shared(self, used: Mapping[str, Tensor], *, reuse: bool) -> None:
        """Write earlier tasks' weights, or zeros; arguments as for :meth:`begin`."""
        for name, mask in used.items():
            weight = unwrap(self.model).get_parameter(name)
            earlier = self.store[name] if reuse else torch.zeros_like(self.store[name])
            weight.copy_(torch.where(mask.to(weight.device), earlier.to(weight), weight))

    def show(self, task: Task) -> None:
        """Show a learnt task."""
        masks = {name: unpack(task.masks[name], shape) for name, shape in self.shapes.items()}
        shared = {name: torch.where(mask, self.store[name], 0) for name, mask in masks.items()}
        self.show_values(shared | task.own, new_head(self.head, len(task.classes)))

    @torch.no_grad()
    def show_values(self, values: Mapping[str, Tensor], head: nn.Linear) -> None:
        """Set a head into the model, and write parameters and buffers in place, by name."""
        inner = unwrap(self.model)
        inner.set_submodule(self.head_name, head.to(self.head.weight.device))
        tensors = own_tensors(inner, ())
        for name, value in values.items():
            tensors[name].copy_(value)

    def learn(self, new: Mapping[str, Tensor]) -> None:
        """Take weights of the model over into the store; bool tensors by name."""
        inner = unwrap(self.model)
        for name, mask in new.items():
            value = inner.get_parameter(name).detach().to(self.store[name])
            self.store[name] = torch.where(mask, value, self.store[name])

    def load(
        self, store: Mapping[str, Tensor], own: Mapping[str, Tensor], samples: Mapping[str, Tensor]
    ) -> None:
        """Take over a saved store and first values."""
        self.store = copies(store)
        self.fresh = replace(self.fresh, own=copies(own), samples=copies(samples))


def find_head(model: nn.Module, name: str | None) -> str:
    """Return the name of the linear layer that gives the logits.

    Args:
        model: any module.
        name: as the caller gives it; None: the last linear layer.

    Raises:
        ValueError: there is no such layer, or it is the whole model.

    Example:
        >>> find_head(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), None)
        '2'
    """
    linear = [n for n, module in model.named_modules() if type(module) is nn.Linear]
    if name is None and linear:
        name = linear[-1]
    if name not in linear:
        raise ValueError(
            f"head={name!r}: the name of the nn.Linear that gives the logits is needed; those of "
            f"the model are {', '.join(map(repr, linear)) or 'none'}"
        )
    if not name:
        raise ValueError("head: the model is nothing but its head, so tasks would share no weight")
    return name


def new_head(like: nn.Linear, outputs: int) -> nn.Linear:
    """Make a head like another, with this many outputs; its values are yet to be written.

    Example:
        >>> new_head(nn.Linear(8, 2), 5)
        Linear(in_features=8, out_features=5, bias=True)
    """
    weight, bias = like.weight, like.bias is not None
    head = nn.Linear(like.in_features, outputs, bias, device="meta", dtype=weight.dtype)
    return head.to_empty(device=weight.device).train(like.training)


def own_tensors(model: nn.Module, shared: Collection[str]) -> dict[str, Tensor]:
    """Return every parameter and buffer that is not shared, by name: these belong to one task.

    Example:
        >>> list(own_tensors(nn.BatchNorm1d(2), shared=["weight"]))
        ['bias', 'running_mean', 'running_var', 'num_batches_tracked']
    """
    tensors: dict[str, Tensor] = dict(model.named_parameters()) | dict(model.named_buffers())
    return {name: tensor for name, tensor in tensors.items() if name not in shared}


def _same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a, b)
