"""Samplers for a DataLoader: the samples of an epoch that are still to be learnt."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Sampler

from regrow.engine.checks import check_integer, check_number
from regrow.engine.ranks import rank_and_ranks
from regrow.samples.batches import Batches, by_length, by_size
from regrow.samples.shares import batches_of

__all__ = ["BatchSampler", "Epochs", "IndexSampler"]

Integers = npt.NDArray[Any]

_CHUNK = 4096


class Epochs(Protocol):
    """What samplers ask of the samples."""

    @property
    def epoch(self) -> int:
        """The number of the epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next."""

    def next_epoch(self) -> None:
        """Go on to the next epoch, unless its number is told from outside."""

    def order(self) -> Integers:
        """Return the positions of the epoch's samples, in order."""

    def learnt(self, positions: Integers) -> npt.NDArray[np.bool_]:
        """Return which of them were learnt in this epoch."""

    def begin(self, samples: int, left: int) -> None:
        """Note that an epoch is under way.

        Args:
            samples: of this rank in the epoch.
            left: how many of them are still to be learnt.
        """

    def generator(self, name: str) -> torch.Generator:
        """Make a generator that depends on the seed, the epoch and a name."""


class _Epoch:
    """What both samplers do: find what is left of an epoch, begin it, end it."""

    def __init__(self, samples: Epochs, rank: int | None, ranks: int | None) -> None:
        own = rank_and_ranks()
        self.samples = samples
        self.rank = own[0] if rank is None and ranks is None else check_integer(rank or 0, "rank")
        self.ranks = own[1] if ranks is None else check_integer(ranks, "ranks", 1)
        if not 0 <= self.rank < self.ranks:
            raise ValueError(f"rank={self.rank}: must lie in 0..{self.ranks - 1} (ranks - 1)")
        self._ended: int | None = None

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next. Without it, each pass over the sampler is the next one.

        Args:
            epoch: counted from 0; not one before the present one.
        """
        self.samples.set_epoch(epoch)

    def _batches(self, *, left: bool) -> Batches:
        """Return this rank's batches of the epoch: all, or those still to be learnt."""
        raise NotImplementedError

    def _left(self) -> Integers:
        order = self.samples.order()
        learnt = self.samples.learnt(order)
        return order[~learnt] if learnt.any() else order

    def _begin(self) -> Batches:
        if self._ended == self.samples.epoch:
            self.samples.next_epoch()
        batches = self._batches(left=True)
        if not batches and (whole := self._batches(left=False)):
            self.samples.next_epoch()
            batches = self._batches(left=True)
        if not batches:
            raise ValueError(
                f"epoch {self.samples.epoch} has {len(self.samples.order())} samples, which make "
                f"no batch for each of {self.ranks} ranks: keep more, or make batches smaller"
            )
        whole = self._batches(left=False)
        self.samples.begin(whole.samples, batches.samples)
        return batches

    def _end(self) -> None:
        self._ended = self.samples.epoch


class IndexSampler(_Epoch, Sampler[int]):
    """Yields the positions of the samples of an epoch: ``DataLoader(..., sampler=...)``.

    Every rank has equally many; up to ranks - 1 samples of an epoch are left out.

    Args:
        samples: whose.
        rank: which process this is; None: found from torch.distributed.
        ranks: how many train one model; None: likewise. 1 if somebody else shares batches out, as
            Accelerate and the transformers Trainer do.
    """

    def __iter__(self) -> Iterator[int]:
        for batch in self._begin():
            yield from batch.tolist()
        self._end()

    def __len__(self) -> int:
        """Return how many samples this rank has in the whole epoch."""
        return len(self.samples.order()) // self.ranks

    def _batches(self, *, left: bool) -> Batches:
        order = self._left() if left else self.samples.order()
        return by_size(order, _CHUNK, self.rank, self.ranks)


class BatchSampler(_Epoch, Sampler[list[int]]):
    """Yields batches of positions: ``DataLoader(..., batch_sampler=...)``.

    Every rank has equally many batches.

    Args:
        samples: whose.
        batch_size: samples in a batch of one rank; None: as many as the budget allows.
        max_length: the budget of a batch of one rank: number of samples × length of the longest,
            which is what it takes up when padded; None: no budget. Batches then have samples of
            similar lengths.
        lengths: of all samples.
        buckets: lengths are sorted into so many; more: less padding, less variety.
        drop_last: leave out a last batch that is smaller than batch_size.
        rank: as for :class:`IndexSampler`.
        ranks: likewise.

    Raises:
        ValueError: an argument is out of range, or a sample is longer than the budget.
    """

    def __init__(
        self,
        samples: Epochs,
        batch_size: int | None,
        max_length: float | None,
        lengths: npt.NDArray[np.float64] | None,
        buckets: int,
        drop_last: bool,
        rank: int | None,
        ranks: int | None,
    ) -> None:
        _Epoch.__init__(self, samples, rank, ranks)
        _check(batch_size, max_length, lengths, buckets, drop_last)
        self.batch_size, self.max_length, self.drop_last = batch_size, max_length, drop_last
        self.lengths, self.buckets = lengths, buckets
        self._cut: tuple[int, tuple[Integers, Integers]] | None = None

    @property
    def sampler(self) -> BatchSampler:
        """Itself: loaders look here for ``set_epoch``."""
        return self

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self._begin():
            yield batch.tolist()
        self._end()

    def __len__(self) -> int:
        """Return how many batches each rank has in the whole epoch."""
        order = self.samples.order()
        if self.max_length is not None:
            return len(self._steps(order)[1])
        assert self.batch_size is not None
        # Loops ask in every step.
        return batches_of(len(order), self.batch_size, self.ranks, drop_last=self.drop_last)

    def _batches(self, *, left: bool) -> Batches:
        order = self.samples.order()
        if self.max_length is not None:
            positions, edges = self._steps(order)
            if left and (learnt := self.samples.learnt(positions)).any():
                before = np.append(0, np.cumsum(~learnt))  # how many are left before each
                edges = edges[before[edges[:, -1]] > before[edges[:, 0]]]
            return Batches(positions, edges[:, self.rank : self.rank + 2])
        assert self.batch_size is not None
        order = self._left() if left else order
        return by_size(order, self.batch_size, self.rank, self.ranks, drop_last=self.drop_last)

    def _steps(self, order: Integers) -> tuple[Integers, Integers]:
        if self._cut is None or self._cut[0] != self.samples.epoch:
            assert self.lengths is not None and self.max_length is not None
            budget, generator = self.max_length, self.samples.generator("batches")
            how = self.batch_size, self.ranks, self.buckets, generator
            self._cut = self.samples.epoch, by_length(order, self.lengths, budget, *how)
        return self._cut[1]


def _check(
    batch_size: int | None,
    max_length: float | None,
    lengths: npt.NDArray[np.float64] | None,
    buckets: int,
    drop_last: bool,
) -> None:
    if batch_size is None and max_length is None:
        raise ValueError("batch_size=None: give the samples of a batch, or max_length, or both")
    if batch_size is not None:
        check_integer(batch_size, "batch_size", 1)
    check_integer(buckets, "buckets", 1)
    if max_length is None:
        return
    check_number(max_length, "max_length", "16000")
    if lengths is None:
        raise ValueError(f"max_length={max_length}: needs Samples(lengths=...), one a sample")
    if drop_last:
        raise ValueError("drop_last=True: with max_length no batch is smaller by chance; leave out")
    if len(long := np.flatnonzero(~(lengths <= max_length))):
        raise ValueError(
            f"max_length={max_length}: {len(long)} samples are longer, up to {lengths.max():g}: "
            "raise it, or leave these samples out"
        )
