"""Tells which columns of a table are exact copies of others."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.features.inputs import Floats, pieces

__all__ = ["alike", "best_of_copies", "joined"]

Groups = npt.NDArray[np.int64]
_LOOKED_AT = 64  # rows that tell most columns apart
_READ = 1 << 22  # numbers at once: each part is a call for each column


def alike(table: Any) -> Groups:
    """Return a number for each column, the same for columns that are equal in every row.

    Args:
        table: array or CSR of shape (n, d); may lie in a memory-mapped file. It is read in pieces.

    Example:
        >>> alike(np.array([[1.0, 2.0, 1.0], [0.0, 0.0, 0.0]])).tolist()
        [0, 1, 0]
    """
    if hasattr(table, "tocsr"):
        columns = table.tocsc()
        columns.eliminate_zeros()
        parts = zip(columns.indptr[:-1], columns.indptr[1:], strict=True)
        return _numbered(
            [columns.indices[a:b].tobytes() + columns.data[a:b].tobytes() for a, b in parts]
        )
    rows = np.linspace(0, len(table) - 1, min(_LOOKED_AT, len(table))).astype(int)
    some = np.ascontiguousarray(np.asarray(table[rows]).T + 0.0)  # + 0.0: no -0.0
    groups = _numbered([column.tobytes() for column in some])
    doubtful = np.flatnonzero(np.bincount(groups)[groups] > 1)
    hashes = {int(column): blake2b(digest_size=16) for column in doubtful}
    for part in pieces(len(table), table.shape[1], _READ) if len(doubtful) else ():
        for column, values in zip(doubtful, np.asarray(table[part][:, doubtful]).T, strict=True):
            hashes[int(column)].update(np.ascontiguousarray(values + 0.0).tobytes())
    digests = [hashes[i].digest() if i in hashes else b"" for i in range(len(groups))]
    return joined(groups, _numbered(digests))


def joined(one: Groups, other: Groups) -> Groups:
    """Return the groups of columns that are alike in both of two groupings.

    Example:
        >>> joined(np.array([0, 0, 0]), np.array([5, 7, 5])).tolist()
        [0, 1, 0]
    """
    return _numbered(list(zip(one.tolist(), other.tolist(), strict=True)))


def best_of_copies(scores: Floats, groups: Groups) -> npt.NDArray[np.bool_]:
    """Return one column of each group: that of the highest score, among equals the lowest index.

    Example:
        >>> best_of_copies(np.array([1.0, 3.0, 2.0]), np.array([0, 1, 0])).tolist()
        [False, True, True]
    """
    order = np.argsort(-scores, kind="stable")
    first = np.unique(groups[order], return_index=True)[1]
    best = np.zeros(len(scores), dtype=np.bool_)
    best[order[first]] = True
    return best


def _numbered(keys: list[Any]) -> Groups:
    numbers: dict[Any, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)
