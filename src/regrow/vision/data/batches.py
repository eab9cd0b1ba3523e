"""Mini-batches of a data set in memory, on the CPU or a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from regrow.data.order import Order
from regrow.engine.selection import seeded_generator
from regrow.training.batch import Batch

__all__ = ["Augment", "Batches", "augmented"]

Augment = Callable[[Tensor, torch.Generator], Tensor]
"""Changes a batch of inputs at random: takes them and a CPU generator."""


class Batches:
    """Mini-batches in an order that depends on seed and epoch alone.

    So a run can be resumed at any epoch. Over ranks the batches of one process are shared out:
    each takes its part of every batch, none takes a sample twice (see :class:`Order`). What is
    random in ``augment`` depends on seed, epoch, step and rank.

    Args:
        inputs: shape (n, ...), on any device; batches are there, too.
        labels: shape (n, ...), on the same device.
        size: of a batch, all ranks together; a multiple of ``ranks``.
        seed: another one, another order.
        augment: changes a batch of inputs: takes them and a generator.
        rank: which process this is, counted from 0.
        ranks: how many processes train one model.
        drop_last: leave out a last batch that is smaller than ``size``; else up to ranks - 1
            samples of it are left out, so that all ranks have equally many.

    Raises:
        ValueError: an argument is out of range, lengths or devices differ, or there is no batch.

    Example:
        >>> batches = Batches(torch.arange(6.0), torch.arange(6), 4, seed=0, drop_last=False)
        >>> [len(batch) for batch in batches.epoch(0)]
        [4, 2]
    """

    def __init__(
        self,
        inputs: Tensor,
        labels: Tensor,
        size: int,
        *,
        seed: int,
        augment: Augment | None = None,
        rank: int = 0,
        ranks: int = 1,
        drop_last: bool = True,
    ) -> None:
        if len(inputs) != len(labels):
            raise ValueError(f"{len(labels)} labels for {len(inputs)} inputs: must be one each")
        if inputs.device != labels.device:
            raise ValueError(
                f"labels are on {labels.device}, inputs on {inputs.device}: move them together"
            )
        self.inputs, self.labels, self.augment = inputs, labels, augment
        self.order = Order(len(inputs), size, seed, rank, ranks, drop_last)

    def __len__(self) -> int:
        """Return how many batches an epoch has."""
        return len(self.order)

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield the batches of this rank; ids are places in ``inputs``.

        Args:
            number: of the epoch, at least 0; no earlier one need have been asked for.

        Raises:
            ValueError: the number is negative.
        """
        indices = self.order.epoch(number)
        return (self._batch(number, step, index) for step, index in enumerate(indices))

    def _batch(self, epoch: int, step: int, index: Tensor) -> Batch:
        index = index.to(self.inputs.device)
        inputs = augmented(self.inputs[index], self.augment, self.order, epoch, step)
        return Batch(inputs, self.labels[index], index)


def augmented(
    inputs: Tensor, augment: Augment | None, order: Order, epoch: int, step: int
) -> Tensor:
    """Augment a batch by random numbers that are its own.

    Args:
        inputs: the batch.
        augment: what to do; None: nothing.
        order: whose seed and rank count.
        epoch: its number.
        step: of the batch in the epoch.

    Example:
        >>> noise = lambda x, generator: x + torch.rand(len(x), generator=generator)
        >>> a, b = (augmented(torch.zeros(2), noise, Order(4, 2, 0), 0, step) for step in (0, 1))
        >>> a.equal(b)
        False
    """
    if augment is None:
        return inputs
    return augment(inputs, seeded_generator(order.seed, "augment", epoch, step, order.rank))
