"""Prepares tables for networks: standardised, clipped, centred; in batches, live columns only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["ROUNDED", "Inputs", "Scaling", "pieces", "scaling", "unit_of", "units"]

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

# How many numbers (float64) are worked on at once: a megabyte, which stays in the cache. And from
# how many on (float32) a table is read where it lies instead of being kept prepared.
_CHUNK = 1 << 17
_PREPARED = 1 << 25
# Magnitudes whose squares, sums and quotients are far from where float64 ends.
_ORDINARY = (1e-100, 1e100)
ROUNDED = 4 * np.finfo(np.float64).eps  # of a magnitude: what its float64 may be wrong by
_HUGE = 1e290  # from where on a difference of two may have no float64


class Scaling(NamedTuple):
    """What standardises, clips and centres each column.

    Args:
        mean: of each column, shape (d,).
        std: standard deviations; 1 where a column is constant.
        shift: what is left of the mean after clipping.
        constant: bool, columns that never change by more than float64 rounds.
    """

    mean: Floats
    std: Floats
    shift: Floats
    constant: npt.NDArray[np.bool_]


def scaling(table: Any, weights: Floats, clip: float | None) -> Scaling:
    """Measure a table: x ↦ clip((x - mean)/std, ±c) - shift has mean zero in every column.

    After clipping columns are not rescaled: one that is nearly always the same (a rare word) keeps
    a small variance, and with it a small say.

    Args:
        table: array or CSR of shape (n, d); may lie in a memory-mapped file. It is read in pieces.
        weights: of the rows, shape (n,), not all zero.
        clip: c, in standard deviations; None does not clip.

    Example:
        >>> measured = scaling(np.array([[0.0, 5.0], [2.0, 5.0]]), np.ones(2), clip=3.0)
        >>> measured.mean.tolist(), measured.std.tolist(), measured.constant.tolist()
        ([1.0, 5.0], [1.0, 1.0], [False, True])
    """
    measure = _measure_sparse if hasattr(table, "tocsr") else _measure_dense
    weights = weights * unit_of(weights)
    return measure(table, weights / weights.sum(), np.inf if clip is None else clip)


def units(largest: Floats) -> Floats:
    """Return 1 for ordinary magnitudes, else the power of 2 that makes one of them.

    Powers of 2 change no digit of what they multiply.

    Example:
        >>> units(np.array([0.0, 5.0, 3e-200])).tolist()[:2]
        [1.0, 1.0]
    """
    extreme = (largest > 0) & ((largest < _ORDINARY[0]) | (largest > _ORDINARY[1]))
    exponents = np.where(extreme, np.frexp(largest)[1], 0).clip(min=-1000)
    return np.asarray(np.ldexp(1.0, -exponents))


def unit_of(weights: Floats) -> float:
    """Return the power of 2 that brings the largest weight to about 1, for float32 to hold them.

    Example:
        >>> 1e-36 * unit_of(np.array([1e-36, 0.0])) > 0.5
        True
    """
    return float(np.ldexp(1.0, -max(int(np.frexp(weights.max())[1]), -1000)))


class Inputs:
    """Rows of a table as the network sees them, in the columns that are still live.

    A small table is prepared once. A large one stays where it is, and batches are prepared when
    they are asked for; so does a CSR table until columns have been dropped.

    Args:
        table: array or CSR of shape (n, d).
        scales: the table's :func:`scaling`.
        clip: as given to :func:`scaling`.

    Attributes:
        live: ascending indices of the columns in use; constant columns never are.

    Example:
        >>> table = np.array([[0.0, 5.0, 1.0], [2.0, 5.0, 0.0]])
        >>> inputs = Inputs(table, scaling(table, np.ones(2), 3.0), 3.0)
        >>> inputs.live.tolist(), inputs.batch(torch.tensor([1])).tolist()
        ([0, 2], [[1.0, -1.0]])
        >>> inputs.keep_(torch.tensor([1]))
        >>> inputs.live.tolist(), inputs.batch(torch.tensor([1])).tolist()
        ([2], [[-1.0]])
    """

    def __init__(self, table: Any, scales: Scaling, clip: float | None) -> None:
        self._table, self._scales = table, scales
        self._clip = np.inf if clip is None else clip
        self._prepared: Tensor | None = None
        self.live: Indices = np.flatnonzero(~scales.constant)
        if not len(self.live):
            raise ValueError("No feature in X varies: all columns are constant")
        if not hasattr(table, "tocsr"):
            self._prepare_()

    def __len__(self) -> int:
        return int(self._table.shape[0])

    def batch(self, rows: Tensor) -> Tensor:
        """Return some rows as float32, shape (len(rows), live)."""
        if self._prepared is not None:
            return self._prepared.index_select(0, rows)
        return self._scaled(self._table[rows.numpy()])

    def keep_(self, places: Tensor) -> None:
        """Drop all live columns but these, which are ascending places among the live ones."""
        self.live = self.live[places.numpy()]
        if self._prepared is None:
            self._prepare_()
        else:
            self._prepared = self._prepared.index_select(1, places)

    def _prepare_(self) -> None:
        if len(self) * len(self.live) > _PREPARED:
            return
        self._prepared = torch.empty(len(self), len(self.live), device="cpu")
        for rows in pieces(*self._table.shape):
            self._prepared[rows] = self._scaled(self._table[rows])

    def _scaled(self, rows: Any) -> Tensor:
        values = _dense(rows[:, self.live])
        mean, std = self._scales.mean[self.live], self._scales.std[self.live]
        if huge := bool(np.any(np.maximum(np.abs(mean), std) > _HUGE)):
            mean, std = mean / 2, std / 2
        values = ((values / 2 if huge else values) - mean) / std
        values = values.clip(-self._clip, self._clip) - self._scales.shift[self.live]
        return torch.from_numpy(values.astype(np.float32))


def pieces(n: int, d: int, numbers: int | None = None) -> Iterator[slice]:
    """Return the parts in which n rows of d columns are read: of so many numbers, or one row.

    Example:
        >>> list(pieces(5, 10, 30))
        [slice(0, 3, None), slice(3, 6, None)]
    """
    size = max((numbers or _CHUNK) // max(d, 1), 1)
    return (slice(start, start + size) for start in range(0, n, size))


def _dense(rows: Any) -> Floats:
    values = rows.toarray() if hasattr(rows, "tocsr") else rows
    return np.asarray(values, dtype=np.float64)


def _measure_dense(table: Any, share: Floats, clip: float) -> Scaling:
    low, high = _ends(table, share)
    unit = units(np.maximum(np.abs(low), np.abs(high)))
    plain = bool((unit == 1).all())

    def total(term: Callable[[Floats], Floats]) -> Floats:
        sums = np.zeros(table.shape[1])
        for rows in pieces(*table.shape):
            values = _dense(table[rows])
            sums += share[rows] @ term(values if plain else values * unit)
        return sums

    mean = total(lambda x: x)
    std, constant = _deviation(mean, total(lambda x: (x - mean) ** 2), low, high)
    shift = total(lambda x: ((x - mean) / std).clip(-clip, clip))
    return _scaling(mean, std, shift, constant, low, unit)


def _measure_sparse(table: Any, share: Floats, clip: float) -> Scaling:
    """Measure what is stored, and add what the zeros contribute."""
    low, high = _ends(table, share)
    unit = units(np.maximum(np.abs(low), np.abs(high)))
    columns, d = table.indices, table.shape[1]
    values = table.data.astype(np.float64) * unit[columns]
    row = np.repeat(share, np.diff(table.indptr))
    full = np.bincount(columns[row > 0], minlength=d) == np.count_nonzero(share)

    def total(terms: Floats) -> Floats:
        return np.bincount(columns, weights=terms, minlength=d).astype(np.float64)

    zeros = np.where(full, 0.0, (1 - total(row)).clip(min=0))
    mean = total(row * values)
    square = total(row * (values - mean[columns]) ** 2) + zeros * mean**2
    std, constant = _deviation(mean, square, low, high)
    scaled = ((values - mean[columns]) / std[columns]).clip(-clip, clip)
    shift = total(row * scaled) + zeros * (-mean / std).clip(-clip, clip)
    return _scaling(mean, std, shift, constant, low, unit)


def _ends(table: Any, share: Floats) -> tuple[Floats, Floats]:
    """Return the least and the largest value of each column, of the rows that count."""
    counts = share > 0
    if hasattr(table, "tocsr"):
        some = table if counts.all() else table[np.flatnonzero(counts)]
        found = [some.min(axis=0), some.max(axis=0)]
        low, high = (np.asarray(end.toarray(), dtype=np.float64).reshape(-1) for end in found)
        return low, high
    low, high = np.full(table.shape[1], np.inf), np.full(table.shape[1], -np.inf)
    for rows in pieces(*table.shape):
        inside = counts[rows]
        values = table[rows] if inside.all() else table[rows][inside]
        if len(values):
            np.minimum(low, values.min(0), out=low)
            np.maximum(high, values.max(0), out=high)
    return low, high


def _deviation(
    mean: Floats, square: Floats, low: Floats, high: Floats
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Return standard deviations; what float64 loses by rounding is no deviation."""
    std = np.sqrt(square)
    constant = (low == high) | (std <= ROUNDED * np.abs(mean))
    return np.where(constant, 1.0, std), constant


def _scaling(
    mean: Floats,
    std: Floats,
    shift: Floats,
    constant: npt.NDArray[np.bool_],
    low: Floats,
    unit: Floats,
) -> Scaling:
    """Take units out again; a constant column's mean is its value, without a rounding error."""
    mean = np.where(constant, low, mean / unit)
    least = np.finfo(np.float64).smallest_subnormal
    std = np.maximum(np.where(constant, unit, std) / unit, least)
    return Scaling(mean, std, np.where(constant, 0.0, shift), constant)
