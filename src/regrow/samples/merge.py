"""Batches that were learnt: of several ranks in one order, and several put together as one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np

from regrow.samples.arrivals import Arrived
from regrow.samples.ranks import gather, several

__all__ = ["joined", "merged"]


def merged(held: Sequence[Arrived]) -> Iterator[Arrived]:
    """Yield the batches of all ranks: the first of each rank, then the second of each, and so on.

    Each rank has to ask, perhaps with nothing of its own.

    Args:
        held: the batches of this rank, in order.

    Example:
        >>> batch = Arrived(np.array([3]), np.ones(1, dtype=np.float32), None, 0)
        >>> [one.at.tolist() for one in merged([batch])]
        [[3]]
    """
    if not several():
        yield from held
        return
    ranks = [_unpack(*parts) for parts in zip(*map(gather, _pack(held)), strict=True)]
    for number in range(max(map(len, ranks))):
        yield from (batches[number] for batches in ranks if number < len(batches))


def joined(batches: Sequence[Arrived]) -> Iterator[tuple[Arrived, int]]:
    """Put batches together that follow each other in one epoch, and yield how many each is made of.

    Where a sample is there twice, the order of its losses counts, and batches stay as they are.

    Args:
        batches: in order.

    Example:
        >>> a, b = (Arrived(np.array([i]), np.ones(1, dtype=np.float32), None, 0) for i in (3, 1))
        >>> [(one.at.tolist(), count) for one, count in joined([a, b])]
        [([3, 1], 2)]
        >>> [count for _, count in joined([a, a])]
        [1, 1]
    """
    for (epoch, _), group in groupby(batches, key=lambda one: (one.epoch, one.correct is None)):
        parts = list(group)
        at = np.concatenate([part.at for part in parts])
        ordered = np.sort(at)
        if np.count_nonzero(ordered[1:] == ordered[:-1]):
            yield from ((part, 1) for part in parts)
            continue
        right = [part.correct for part in parts if part.correct is not None]
        losses = np.concatenate([part.losses for part in parts])
        yield Arrived(at, losses, np.concatenate(right) if right else None, epoch), len(parts)


def _pack(held: Sequence[Arrived]) -> list[np.typing.NDArray[np.generic]]:
    """Return sizes and epochs of batches, whether they say what was right, and what is in them."""
    heads = np.array([(len(b.at), b.epoch, b.correct is not None) for b in held], dtype=np.int64)
    at = np.concatenate([np.zeros(0, np.int64), *(b.at for b in held)])
    losses = np.concatenate([np.zeros(0, np.float32), *(b.losses for b in held)])
    right = [np.zeros(len(b.at), np.bool_) if b.correct is None else b.correct for b in held]
    return [heads.reshape(-1), at, losses, np.concatenate([np.zeros(0, np.bool_), *right])]


def _unpack(
    heads: np.typing.NDArray[np.int64],
    at: np.typing.NDArray[np.int64],
    losses: np.typing.NDArray[np.float32],
    right: np.typing.NDArray[np.bool_],
) -> list[Arrived]:
    sizes, epochs, told = heads.reshape(-1, 3).T
    ends = np.cumsum(sizes)
    return [
        Arrived(at[a:b], losses[a:b], right[a:b] if known else None, int(epoch))
        for a, b, epoch, known in zip(ends - sizes, ends, epochs, told, strict=True)
    ]
