"""Which samples come when: shares for validation, and batches that a run can come back to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from regrow.engine.selection import seeded_generator

__all__ = ["Order", "quotas", "split_off"]


def split_off(labels: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Split samples in two at random, class by class, as for training and validation.

    Together the second part holds round(share · n) samples, and of each class its share, rounded
    down or up: up where the fraction lost is largest, then for the lower label.

    Args:
        labels: integers of at least 0, shape (n,).
        share: of the second part, between 0 and 1.
        seed: another one, another split.

    Returns:
        The samples that stay and those split off: ascending int64 indices on the labels' device.

    Raises:
        ValueError: the share is not between 0 and 1, leaves a part empty, or labels are no classes.

    Example:
        >>> labels = torch.tensor([0, 1, 0, 1, 0, 0])
        >>> stay, off = split_off(labels, 0.5, seed=0)
        >>> labels[off].bincount().tolist()
        [2, 1]
    """
    if not 0 < share < 1:
        raise ValueError(f"share={share}: must lie between 0 and 1, without them")
    host = labels.cpu()
    if host.ndim != 1 or host.is_floating_point() or (host < 0).any():
        raise ValueError(
            f"labels of shape {tuple(labels.shape)}, {labels.dtype}: must be one dimension of "
            "integers of at least 0"
        )
    n, total = len(host), round(share * len(host))
    if not 0 < total < n:
        raise ValueError(f"share={share} of {n} samples leaves a part empty: choose another")
    chosen = _rank_in_class(host, seed) < quotas(host.bincount(), share, total)[host]
    chosen = chosen.to(labels.device)
    return (~chosen).nonzero().squeeze(1), chosen.nonzero().squeeze(1)


def quotas(counts: Tensor, share: float, total: int) -> Tensor:
    """Share out a total among classes: of each its share, rounded down or up.

    Up where the fraction lost is largest, then for the lower label.

    Args:
        counts: samples of each class, int64.
        share: of each class.
        total: what the quotas sum to: round(share · samples).

    Example:
        >>> quotas(torch.tensor([3, 3, 2]), 0.5, 4).tolist()
        [2, 1, 1]
    """
    exact = counts.double() * share
    quotas = exact.floor().long()
    missing = total - int(quotas.sum())
    quotas[(quotas - exact).argsort(stable=True)[:missing]] += 1
    return quotas


def _rank_in_class(labels: Tensor, seed: int) -> Tensor:
    """Return each sample's place among those of its class, in random order."""
    shuffled = torch.randperm(len(labels), generator=seeded_generator(seed, "split"))
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    counts = labels.bincount()
    first = (counts.cumsum(0) - counts)[labels[by_class]]
    return torch.empty_like(by_class).scatter_(0, by_class, torch.arange(len(labels)) - first)


@dataclass(frozen=True)
class Order:
    """The order of samples: a function of seed and epoch alone, shared out evenly over the ranks.

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
