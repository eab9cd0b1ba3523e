"""Finds the k largest entries of a dense gradient without ever storing it whole.

The gradient is formed some rows at a time. A few rows, spread over all, are looked at first: they
give a bound that a little more than k entries pass, so that what is kept aside stays small. Should
the bound prove too high, all rows are gone through again without it: the result is exact.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from regrow.engine.selection import top_k

__all__ = ["highest", "require_finite"]

_TILE = 1 << 20  # numbers in a tile
_SLICES, _SLICE = 8, 8  # how many slices of how many rows, at most, are looked at first

Values = npt.NDArray[np.float32]
Positions = npt.NDArray[np.integer[Any]]


def highest(
    worth: Callable[[int, int], Values],
    shape: tuple[int, int],
    k: int,
    taken: Positions,
    each: int = 1,
) -> Tensor:
    """Return the k highest of all values but those taken, ascending; ties to the lower position.

    Args:
        worth: makes the values of rows first..end-1, at least 0; shape (end - first, columns).
        shape: rows and columns.
        k: how many, at most those not taken.
        taken: ascending flat positions that cannot be chosen.
        each: how many numbers of the gradient one value is made of.

    Returns:
        Int64 tensor of flat positions, ascending.

    Raises:
        FloatingPointError: a value is NaN or infinite.

    Example:
        >>> values = np.array([[1.0, 5.0], [4.0, 3.0]], dtype=np.float32)
        >>> highest(lambda first, end: values[first:end].copy(), (2, 2), 2, np.array([1])).tolist()
        [2, 3]
    """
    rows, columns = shape

    def without_taken(first: int, end: int) -> Values:
        values = worth(first, end).reshape(-1)
        # max() passes NaN on, so that one pass finds both NaN and infinity.
        require_finite(torch.tensor(values.max(), device="cpu"))
        low, high = np.searchsorted(taken, [first * columns, end * columns])
        # Lower than any magnitude, so that they are never chosen.
        values[taken[low:high] - first * columns] = -1.0
        return values

    step = max(1, _TILE // (columns * each))
    bound, few = -0.5, min(_SLICE, step)
    if rows >= 4 * _SLICES * few:
        starts = np.linspace(0, rows - few, _SLICES).astype(int).tolist()
        sample = np.concatenate([without_taken(first, first + few) for first in starts])
        # A fifth more than the share of k, and a few for small samples: a bound slightly too low
        # costs memory, one too high a second pass.
        rank = int(1.2 * k * sample.size / (rows * columns)) + 32
        if rank < sample.size:
            bound = max(bound, float(np.partition(sample, -rank)[-rank]))
    # The second time without the sampled bound, should too few values have passed it.
    for lowest in (bound, -0.5):
        best = _Best(k, lowest)
        for first in range(0, rows, step):
            best.offer(without_taken(first, min(first + step, rows)), first * columns)
        positions = best.positions()
        if len(positions) == k:
            break
    return positions


def require_finite(largest: Tensor) -> None:
    """Raise FloatingPointError unless the largest of some magnitudes, NaN if one is, is finite."""
    if not bool(largest.isfinite()):
        raise FloatingPointError(
            "topology update: a dense gradient holds NaN or infinite values; nothing was "
            "changed. Lower the learning rate, or skip such steps (as GradScaler does)"
        )


class _Best:
    """The k highest of values that come in pieces; among equal ones the first."""

    def __init__(self, k: int, bound: float) -> None:
        self.k = k
        self.bound = bound
        self.values: list[Values] = []
        self.places: list[Positions] = []
        self.n = 0

    def offer(self, values: Values, base: int) -> None:
        """Take in the values above the bound; the first has the position ``base``."""
        # Once k are held, a later value has to be higher: equal ones come first by position.
        better = np.flatnonzero(values > self.bound)
        self.values.append(values[better])
        self.places.append(better + base)
        self.n += better.size
        if self.n > 2 * self.k + _TILE:
            self._forget()

    def _forget(self) -> None:
        """Keep the k highest only."""
        values, places = np.concatenate(self.values), np.concatenate(self.places)
        if values.size > self.k:
            chosen = top_k(torch.from_numpy(values), self.k).numpy()
            values, places = values[chosen], places[chosen]
            self.bound = float(values.min())
        self.values, self.places, self.n = [values], [places], values.size

    def positions(self) -> Tensor:
        """Return where the k highest are, ascending."""
        self._forget()
        return torch.from_numpy(self.places[0].astype(np.int64))
