"""What one task has learnt, kept with packed masks; packed masks counted and joined."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import index
from typing import Any, SupportsIndex

import torch
from torch import Tensor

__all__ = ["Prototypes", "Task", "check_classes", "count", "union", "warn_if_shared"]

logger = logging.getLogger(__name__)

_BITS = torch.tensor([byte.bit_count() for byte in range(256)])


@dataclass(frozen=True)
class Prototypes:
    """The mean features of a task's classes.

    Args:
        means: (classes, features).
        spread: the mean squared distance of a sample to its class's mean.
    """

    means: Tensor
    spread: float


@dataclass
class Task:
    """One task of a network.

    Args:
        name: it can be called by.
        classes: its labels, in the order of its logits.
        masks: by layer, the weights that take part in its forward pass, one bit a weight; empty
            until it is learnt.
        own: its own tensors by name, the head's among them; empty until it is learnt.
        prototypes: should they have been measured.
    """

    name: str
    classes: tuple[int | str, ...]
    masks: dict[str, Tensor] = field(default_factory=dict)
    own: dict[str, Tensor] = field(default_factory=dict)
    prototypes: Prototypes | None = None

    @property
    def learnt(self) -> bool:
        """Whether it is finished and frozen."""
        return bool(self.masks)

    def state_dict(self) -> dict[str, Any]:
        """Return it as tensors, numbers, lists and dicts."""
        means = self.prototypes and self.prototypes.means
        return {
            "name": self.name,
            "classes": list(self.classes),
            "masks": dict(self.masks),
            "own": dict(self.own),
            "means": means,
            "spread": self.prototypes and self.prototypes.spread,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Task:
        """Undo :meth:`state_dict`."""
        means, spread = state["means"], state["spread"]
        return cls(
            str(state["name"]),
            tuple(state["classes"]),
            dict(state["masks"]),
            dict(state["own"]),
            None if means is None else Prototypes(means, float(spread)),
        )


def check_classes(classes: int | Sequence[int | str]) -> tuple[int | str, ...]:
    """Return a task's labels; a number n stands for 0..n-1.

    Raises:
        TypeError: it is neither a number nor a sequence of integers or strings.
        ValueError: there is none, or one comes twice.

    Example:
        >>> check_classes(3), check_classes(["cat", "dog"])
        ((0, 1, 2), ('cat', 'dog'))
    """
    if isinstance(classes, bool | str):
        raise TypeError(f"classes={classes!r}: a number of classes or a list of labels is needed")
    if isinstance(classes, SupportsIndex):
        classes = range(index(classes))
    labels = tuple(one if isinstance(one, str) else index(one) for one in classes)
    if not labels:
        raise ValueError(f"classes={classes!r}: a task needs at least one class")
    if len(set(labels)) != len(labels):
        raise ValueError(f"classes={labels}: a label comes twice")
    return labels


def warn_if_shared(
    labels: Sequence[int | str], earlier: Iterable[Task], classes: int | Sequence[int | str]
) -> None:
    """Warn of labels that an earlier task has, too, beside others: often one was added twice.

    Tasks with all labels alike are meant so (the same classes, seen otherwise), and a number of
    classes says nothing of what they are.

    Args:
        labels: of the new task.
        earlier: the tasks before it.
        classes: as the caller gave them.
    """
    if isinstance(classes, SupportsIndex):
        return
    for task in earlier:
        if (shared := {*labels} & {*task.classes}) and {*labels} != {*task.classes}:
            logger.warning(
                "classes %s are those of task %s, too: each has its own output, and a prediction "
                "without the task's number cannot tell them apart",
                sorted(shared, key=str),
                task.name,
            )


def count(packed: Tensor) -> int:
    """Count the entries of a packed mask that are True.

    Example:
        >>> count(torch.tensor([5, 255], dtype=torch.uint8))
        10
    """
    return int(_BITS[packed.int()].sum())


def union(masks: Iterable[Tensor]) -> Tensor:
    """Return the packed mask of what any of several holds.

    Example:
        >>> union([torch.tensor([5], dtype=torch.uint8), torch.tensor([2], dtype=torch.uint8)])
        tensor([7], dtype=torch.uint8)
    """
    return reduce(torch.bitwise_or, masks)
