"""Prepares tables for networks: standardised, clipped, centred; in batches, live columns only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["Inputs", "Scaling", "scaling"]

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

# How many numbers are in memory at once while statistics are taken (float64), and from how many on
# (float32) a table is read where it lies instead of being kept prepared.
_CHUNK = 1 << 22
_PREPARED = 1 << 25


class Scaling(NamedTuple):
    """What standardises, clips and centres each column.

    Args:
        mean: of each column, shape (d,).
        std: standard deviations; 1 where a column is constant.
        shift: what is left of the mean after clipping.
        constant: bool, columns that never change.
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
    return measure(table, weights / weights.sum(), np.inf if clip is None else clip)


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
            return self._prepared[rows]
        return self._scaled(self._table[rows.numpy()])

    def keep_(self, places: Tensor) -> None:
        """Drop all live columns but these, which are ascending places among the live ones."""
        self.live = self.live[places.numpy()]
        if self._prepared is None:
            self._prepare_()
        else:
            self._prepared = self._prepared[:, places]

    def _prepare_(self) -> None:
        if len(self) * len(self.live) > _PREPARED:
            return
        self._prepared = torch.empty(len(self), len(self.live), device="cpu")
        for rows in _pieces(*self._table.shape):
            self._prepared[rows] = self._scaled(self._table[rows])

    def _scaled(self, rows: Any) -> Tensor:
        values = _dense(rows[:, self.live])
        values = (values - self._scales.mean[self.live]) / self._scales.std[self.live]
        values = values.clip(-self._clip, self._clip) - self._scales.shift[self.live]
        return torch.from_numpy(values.astype(np.float32))


def _pieces(n: int, d: int) -> Iterator[slice]:
    size = max(_CHUNK // max(d, 1), 1)
    return (slice(start, start + size) for start in range(0, n, size))


def _dense(rows: Any) -> Floats:
    values = rows.toarray() if hasattr(rows, "tocsr") else rows
    return np.asarray(values, dtype=np.float64)


def _measure_dense(table: Any, share: Floats, clip: float) -> Scaling:
    def total(term: Callable[[Floats], Floats]) -> Floats:
        sums = np.zeros(table.shape[1])
        for rows in _pieces(*table.shape):
            sums += share[rows] @ term(_dense(table[rows]))
        return sums

    mean = total(lambda x: x)
    std, constant = _deviation(mean, total(lambda x: (x - mean) ** 2))
    shift = total(lambda x: ((x - mean) / std).clip(-clip, clip))
    return Scaling(mean, std, np.where(constant, 0.0, shift), constant)


def _measure_sparse(table: Any, share: Floats, clip: float) -> Scaling:
    """Measure what is stored, and add what the zeros contribute."""
    columns, d = table.indices, table.shape[1]
    values = table.data.astype(np.float64)
    row = np.repeat(share, np.diff(table.indptr))

    def total(terms: Floats) -> Floats:
        return np.bincount(columns, weights=terms, minlength=d).astype(np.float64)

    zeros = (1 - total(row)).clip(min=0)
    mean = total(row * values)
    square = total(row * (values - mean[columns]) ** 2) + zeros * mean**2
    std, constant = _deviation(mean, square)
    scaled = ((values - mean[columns]) / std[columns]).clip(-clip, clip)
    shift = total(row * scaled) + zeros * (-mean / std).clip(-clip, clip)
    return Scaling(mean, std, np.where(constant, 0.0, shift), constant)


def _deviation(mean: Floats, square: Floats) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Return standard deviations; what is left of a constant column by rounding is no deviation."""
    std = np.sqrt(square)
    constant = std <= 1e-7 * np.abs(mean) + np.finfo(np.float64).tiny
    return np.where(constant, 1.0, std), constant
