"""Cuts an order of samples into batches: of a size, or of similar lengths under a budget."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["by_length", "by_size"]

Positions = npt.NDArray[np.int64]
Integers = npt.NDArray[np.integer]
Floats = npt.NDArray[np.floating]


def by_size(
    order: Integers, size: int, rank: int = 0, ranks: int = 1, *, drop_last: bool = False
) -> list[Integers]:
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
    return [order[at : min(at + whole, end)][rank::ranks] for at in range(0, end, whole)]


def by_length(
    order: Integers,
    lengths: Floats,
    budget: float,
    size: int | None,
    ranks: int,
    buckets: int,
    generator: torch.Generator,
) -> list[list[Integers]]:
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
        One entry a step: the batches of all ranks.

    Example:
        >>> order, lengths = np.arange(4), np.array([1.0, 9.0, 1.0, 8.0])
        >>> steps = by_length(order, lengths, 18, None, 1, 2, torch.Generator())
        >>> sorted(batch.tolist() for step in steps for batch in step)
        [[0, 2], [1, 3]]
    """
    batches: list[Integers] = []
    by_rank = np.argsort(lengths[order], kind="stable")
    for part in np.array_split(by_rank, min(buckets, max(len(order), 1))):
        bucket = order[np.sort(part)]
        batches += _cut(bucket, lengths[bucket], budget, size)
    _halve(batches, ranks)
    steps = [batches[at : at + ranks] for at in range(0, len(batches) // ranks * ranks, ranks)]
    return [steps[at] for at in torch.randperm(len(steps), generator=generator).tolist()]


def _cut(bucket: Integers, lengths: Floats, budget: float, size: int | None) -> list[Integers]:
    starts, longest, count = [0], 0.0, 0
    most = len(bucket) if size is None else size
    for at, length in enumerate(lengths.tolist()):
        count += 1
        if length > longest:  # noqa: PLR1730 a call of max() costs as much as all the rest
            longest = length
        if count > 1 and (count * longest > budget or count > most):
            starts.append(at)
            longest, count = length, 1
    return [batch for batch in np.split(bucket, starts[1:]) if len(batch)]


def _halve(batches: list[Integers], ranks: int) -> None:
    """Halve the largest batches until they are a multiple of the ranks, where that is possible."""
    for _ in range(-len(batches) % ranks):
        at = max(range(len(batches)), key=lambda i: len(batches[i]))
        if len(batches[at]) > 1:
            half = len(batches[at]) // 2
            batches[at : at + 1] = [batches[at][:half], batches[at][half:]]
