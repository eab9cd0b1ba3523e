"""Batches of samples, whatever they are, and the data that they come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from torch import Tensor
from torch.utils._pytree import tree_map_only

__all__ = ["Batch", "Batches", "Memory", "Source", "SourceT", "arguments", "map_tensors"]


@dataclass(frozen=True)
class Batch:
    """Samples that are learnt together.

    Args:
        inputs: what the model is called with: a tensor, or several in a tuple, list or dict.
        targets: what the loss compares its outputs with, in the same forms.
        ids: int64, shape (n,): the number of each sample among those that are trained on.

    Example:
        >>> import torch
        >>> sound = torch.zeros(2, 80, 300), torch.tensor([300, 250])
        >>> len(Batch(sound, torch.tensor([4, 1]), torch.tensor([17, 3])))
        2
    """

    inputs: Any
    targets: Any
    ids: Tensor

    def __len__(self) -> int:
        return len(self.ids)


class Batches(Protocol):
    """Batches for training, epoch by epoch."""

    def __len__(self) -> int:
        """Return how many batches an epoch has."""

    def epoch(self, number: int, /) -> Iterator[Batch]:
        """Yield the batches of an epoch, in an order that follows from its number."""


class Memory(Protocol):
    """Remembers losses of samples, and may weigh them: what chooses samples by their losses."""

    def update(self, ids: Tensor, losses: Tensor, /) -> None:
        """Take in the losses of a batch's samples, shape (n,), without a graph."""

    def weights(self, ids: Tensor, /) -> Tensor | None:
        """Return what the losses of samples are multiplied with; None: nothing."""

    def state_dict(self) -> dict[str, Any]:
        """Return all that a run needs to go on: tensors, numbers, strings and containers.

        It is called on all ranks.
        """

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Go on where :meth:`state_dict` was taken."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Data, opened for training. A domain adds what its tests need.

    Args:
        batches: for training, epoch by epoch.
        example: makes inputs of so many samples, such as zeros, to count operations and to time
            and capture passes with.
        ready: turns inputs of a batch into what the model takes.
        steps: batches of the whole run, where epochs differ in length; None: all are equally long.
        memory: is told the losses of samples, may weigh them, and is saved with the model.
    """

    batches: Batches
    example: Callable[[int], Any]
    ready: Callable[[Any], Any] = lambda inputs: inputs
    steps: int | None = None
    memory: Memory | None = None


SourceT = TypeVar("SourceT", bound=Source)


def arguments(inputs: Any) -> tuple[Any, ...]:
    """Return the positional arguments that a model takes: a tuple is several, all else is one.

    Example:
        >>> arguments((1, 2)), arguments({"a": 1})
        ((1, 2), ({'a': 1},))
    """
    return inputs if isinstance(inputs, tuple) else (inputs,)


def map_tensors(function: Callable[[Tensor], Tensor], values: Any) -> Any:
    """Apply a function to each tensor in nested tuples, lists and dicts.

    Example:
        >>> import torch
        >>> map_tensors(lambda x: x + 1, {"a": torch.zeros(1), "b": (torch.ones(1), "word")})
        {'a': tensor([1.]), 'b': (tensor([2.]), 'word')}
    """
    if isinstance(values, Tensor):  # the usual case, and walking a tree costs 15 µs
        return function(values)
    return tree_map_only(Tensor, function, values)
