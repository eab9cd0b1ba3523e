"""The order of samples in an epoch: a function of seed and epoch, shared out over ranks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from regrow.engine.checks import check_integer
from regrow.engine.selection import seeded_generator

__all__ = ["Order"]


@dataclass(frozen=True)
class Order:
    """The order of samples in every epoch, shared out evenly over the ranks.

    Every rank has equally many batches of equally many samples, and no sample comes twice in an
    epoch. So if the last batch is kept, up to ranks - 1 samples of it are left out.

    Args:
        samples: how many there are.
        size: of a batch, all ranks together; a multiple of ``ranks``.
        seed: another one, another order.
        rank: which process this is, counted from 0.
        ranks: how many processes train one model.
        drop_last: leave out a last batch that is smaller than ``size``.

    Raises:
        ValueError: an argument is out of range, or there is no batch at all.

    Example:
        >>> halves = [Order(6, 4, seed=0, rank=rank, ranks=2) for rank in (0, 1)]
        >>> whole = next(Order(6, 4, seed=0).epoch(3))
        >>> torch.cat([next(half.epoch(3)) for half in halves]).equal(whole)
        True
    """

    samples: int
    size: int
    seed: int
    rank: int = 0
    ranks: int = 1
    drop_last: bool = True

    def __post_init__(self) -> None:
        """Check the arguments."""
        check_integer(self.seed, "seed")
        if self.ranks < 1 or not 0 <= self.rank < self.ranks:
            raise ValueError(f"rank={self.rank}: must lie in 0..{self.ranks - 1} (ranks - 1)")
        if self.size < 1 or self.size % self.ranks:
            raise ValueError(
                f"size={self.size}: must be a positive multiple of ranks={self.ranks}, for it is "
                "that of all ranks together"
            )
        if len(self) == 0:
            raise ValueError(
                f"{self.samples} samples make no batch of size={self.size}: choose a smaller one"
                + (" or drop_last=False" if self.drop_last else "")
            )

    def __len__(self) -> int:
        """Return how many batches an epoch has."""
        rest = 0 if self.drop_last else self.samples % self.size
        return self.samples // self.size + (rest >= self.ranks)

    def epoch(self, number: int) -> Iterator[Tensor]:
        """Yield the indices of this rank's samples, batch by batch.

        Args:
            number: of the epoch, at least 0; no earlier one need have been asked for.

        Raises:
            ValueError: the number is negative.
        """
        if number < 0:
            raise ValueError(f"epoch {number}: must be at least 0")
        order = torch.randperm(self.samples, generator=seeded_generator(self.seed, "order", number))
        return (self._share(batch) for batch in order.split(self.size)[: len(self)])

    def _share(self, batch: Tensor) -> Tensor:
        share = len(batch) // self.ranks
        return batch[self.rank * share : (self.rank + 1) * share]
