"""Cuts an order of samples into batches: of a size, or of similar lengths under a budget."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["Batches", "by_length", "by_size"]

Positions = npt.NDArray[np.int64]
Integers = npt.NDArray[np.integer]
Floats = npt.NDArray[np.floating]

_FEW = 64  # buckets that are looked for one by one
_PART = 1 << 16  # as a list of Python's numbers, millions would take hundreds of megabytes


@dataclass(frozen=True)
class Batches:
    """Batches of one rank, each cut when its turn comes: millions of arrays would take gigabytes.

    Args:
        positions: of samples.
        edges: int64, shape (batches, 2): where in the positions each begins and ends.

    Example:
        >>> [b.tolist() for b in Batches(np.array([5, 3, 4]), np.array([[1, 3], [0, 1]]))]
        [[3, 4], [5]]
    """

    positions: Integers
    edges: Positions

    def __len__(self) -> int:
        return len(self.edges)

    def __iter__(self) -> Iterator[Integers]:
        for begin, end in self.edges:
            yield self.positions[begin:end]

    @property
    def samples(self) -> int:
        """How many samples they have in all."""
        return int((self.edges[:, 1] - self.edges[:, 0]).sum())


def by_size(
    order: Integers, size: int, rank: int = 0, ranks: int = 1, *, drop_last: bool = False
) -> Batches:
    """Cut an order into batches and return this rank's, as many and as large as any other's.

    If the last batch is kept, up to ranks - 1 samples of it are left out.

    Args:
        order: positions of samples.
        size: of a batch of one rank.
        rank: which process this is, counted from 0.
        ranks: how many processes train one model.
        drop_last: leave out a last batch that is smaller.

    Example:
        >>> [b.tolist() for b in by_size(np.arange(7), 2, rank=1, ranks=2)]
        [[1, 3], [5]]
    """
    whole = size * ranks
    end = len(order) // whole * whole if drop_last else len(order) // ranks * ranks
    own = order[rank:end:ranks]
    begins = np.arange(0, len(own), size)
    return Batches(own, np.stack([begins, np.minimum(begins + size, len(own))], axis=1))


def by_length(
    order: Integers,
    lengths: Floats,
    budget: float,
    size: int | None,
    ranks: int,
    buckets: int,
    generator: torch.Generator,
) -> tuple[Integers, Positions]:
    """Cut an order into batches of samples of similar lengths, padded to at most a budget.

    Samples are sorted into buckets of equally many by their length, keep their order inside, and
    are cut where number × longest would pass the budget. Where the number of batches is no multiple
    of the ranks, the largest are halved. What the ranks learn at the same time comes from
    neighbouring lengths.

    Args:
        order: positions of samples.
        lengths: of all samples, by position, each at most the budget.
        budget: of one rank's batch: number of samples × length of the longest.
        size: the most samples in a batch; None: any number.
        ranks: how many processes train one model.
        buckets: how many buckets there are.
        generator: for the order of batches.

    Returns:
        The positions, sorted into buckets; and edges, int64, shape (steps, ranks + 1): in a step,
        rank r learns those from edge r to edge r + 1.

    Example:
        >>> order, lengths = np.arange(4), np.array([1.0, 9.0, 1.0, 8.0])
        >>> positions, edges = by_length(order, lengths, 18, None, 1, 2, torch.Generator())
        >>> positions.tolist(), sorted(edges.tolist())
        ([0, 2, 1, 3], [[0, 2], [2, 4]])
    """
    buckets = min(buckets, max(len(order), 1))
    places, ends = _sorted_into(lengths[order], buckets)
    positions, cuts = order[places], array("q")
    del places
    for begin, end in zip([0, *ends[:-1]], ends, strict=True):
        _cut(_fitting(lengths[positions[begin:end]], budget, size), begin, cuts)
    cuts.append(len(order))
    edges = _halved(np.frombuffer(cuts, dtype=np.int64), ranks)
    steps = torch.randperm((len(edges) - 1) // ranks, generator=generator).numpy()
    return positions, edges[steps[:, None] * ranks + np.arange(ranks + 1)]


def _sorted_into(lengths: Floats, buckets: int) -> tuple[Positions, list[int]]:
    """Sort lengths into buckets of equally many; of equal ones the first go to the lower bucket.

    Returns:
        Their places, bucket after bucket, ascending inside; and where each bucket ends.
    """
    whole, more = divmod(len(lengths), buckets)
    ends = [whole * (i + 1) + min(i + 1, more) for i in range(buckets)]
    number = np.zeros(len(lengths), np.min_scalar_type(buckets))
    if buckets > _FEW:
        number[lengths.argsort(kind="stable")] = np.arange(buckets).repeat(np.diff(ends, prepend=0))
    else:
        ordered = np.sort(lengths)  # without places: many times faster
        lowest = ordered[ends[:-1]]
        below = ends[:-1] - ordered.searchsorted(lowest)
        del ordered
        for length, equal in zip(lowest, below, strict=True):
            beyond = lengths >= length
            if equal:
                beyond[np.flatnonzero(lengths == length)[:equal]] = False
            number += beyond
    # Integers of 16 bits and fewer are sorted by counting.
    return number.argsort(kind="stable"), ends


def _fitting(lengths: Floats, budget: float, size: int | None) -> Positions:
    """Return of each sample how many fit where it is the longest, at least 1: int64."""
    most = len(lengths) if size is None else min(size, len(lengths))
    with np.errstate(divide="ignore", over="ignore"):
        fits: Floats = np.floor(np.minimum(budget / lengths, most))
    # A quotient is rounded, and it is the product that counts.
    fits += (fits + 1) * lengths <= budget
    fits -= fits * lengths > budget
    return np.clip(fits, 1, most).astype(np.int64)


def _cut(fits: Positions, begin: int, cuts: array[int]) -> None:
    """Append where batches begin, each of as many as fit by the longest in it."""
    fewest, count = 0, 0
    parts = (fits[at : at + _PART].tolist() for at in range(0, len(fits), _PART))
    for at, fit in enumerate(chain.from_iterable(parts), begin):
        count += 1
        if fit < fewest:  # noqa: PLR1730 a call of min() costs as much as all the rest
            fewest = fit
        if count > fewest:
            cuts.append(at)
            fewest, count = fit, 1


def _halved(edges: Positions, ranks: int) -> Positions:
    """Halve the largest batches until they are a multiple of the ranks, where that is possible."""
    for _ in range((1 - len(edges)) % ranks):
        sizes = np.diff(edges)
        at = int(sizes.argmax())
        if sizes[at] > 1:
            edges = np.insert(edges, at + 1, edges[at] + sizes[at] // 2)
    return edges
