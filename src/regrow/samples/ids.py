"""Ids of samples: integers or texts, each of which has a position among the samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from regrow.engine.checks import check_integer

__all__ = ["IdLike", "Ids"]

Positions = npt.NDArray[np.int64]
IdLike = Tensor | npt.NDArray[Any] | Sequence[int] | Sequence[str]
"""Ids: a tensor or array of integers, or a sequence of integers or texts."""


class Ids:
    """The ids of n samples, and where each is.

    Integers are kept as int64 and never cast; texts in a dictionary, which takes about 100 bytes a
    sample.

    Args:
        ids: how many samples there are, and ids are 0..n-1; or the id of each sample.

    Raises:
        TypeError: ids are neither integers nor texts.
        ValueError: there is none, or one is there twice.

    Example:
        >>> Ids(["b", "a"]).positions(("a", "b")).tolist()
        [1, 0]
        >>> Ids([2**60, 5]).positions(torch.tensor([5])).tolist()
        [1]
    """

    def __init__(self, ids: int | IdLike) -> None:
        self._ids: Positions | list[str] | None = None  # None: 0..n-1
        self._order: npt.NDArray[np.int32] | npt.NDArray[np.int64] | None = None
        self._places: Mapping[str, int] = {}
        if isinstance(ids, int | np.integer) and not isinstance(ids, bool):
            self._n = check_integer(ids, "ids")
        elif (texts := _texts(ids)) is not None:
            self._ids, self._n = texts, len(texts)
            self._places = {text: place for place, text in enumerate(texts)}
            if len(self._places) < self._n:
                raise ValueError(f"ids: {_first_twice(texts)!r} is there twice")
        else:
            self._sort(np.array(_integers(ids, "ids")))
        if self._n < 1:
            raise ValueError("ids: there is no sample; at least one is needed")

    def _sort(self, ids: Positions) -> None:
        self._ids, self._n = ids, len(ids)
        if np.array_equal(ids, np.arange(self._n)):
            self._ids = None
            return
        ascending = ids
        if not bool(np.all(ids[1:] > ids[:-1])):
            order = np.argsort(ids, kind="stable")
            self._order = order.astype(np.int32) if self._n < 1 << 31 else order
            ascending = ids[order]
        if len(same := np.flatnonzero(ascending[1:] == ascending[:-1])):
            raise ValueError(f"ids: {int(ascending[same[0]])} is there twice")

    def __len__(self) -> int:
        return self._n

    @property
    def are_positions(self) -> bool:
        """Whether the ids are 0..n-1."""
        return self._ids is None

    def at(self, position: int) -> int | str:
        """Return the id of a position."""
        if self._ids is None:
            return position
        found = self._ids[position]
        return found if isinstance(found, str) else int(found)

    def positions(self, ids: IdLike) -> Positions:
        """Return the positions of ids.

        Raises:
            TypeError: they are of another kind than those that are known.
            ValueError: one is not known.
        """
        if isinstance(self._ids, list):
            texts = _texts(ids)
            if texts is None:
                raise TypeError(f"ids={ids!r}: texts are needed, such as {self._ids[0]!r}")
            try:
                return np.array([self._places[text] for text in texts], dtype=np.int64)
            except KeyError as error:
                raise self._unknown(error.args[0]) from None
        wanted = _integers(ids, "ids")
        if self._ids is None:
            if wanted.size and (wanted.min() < 0 or wanted.max() >= self._n):
                raise self._unknown(int(wanted[(wanted < 0) | (wanted >= self._n)][0]))
            return wanted
        place = np.searchsorted(self._ids, wanted, sorter=self._order).clip(max=self._n - 1)
        found = place if self._order is None else self._order[place].astype(np.int64)
        if len(wrong := np.flatnonzero(self._ids[found] != wanted)):
            raise self._unknown(int(wanted[wrong[0]]))
        return found

    def common(self, others: Ids) -> tuple[Positions, Positions]:
        """Return the positions, here and there, of the ids that both have."""
        if isinstance(self._ids, list) or isinstance(others._ids, list):
            mine = [p for p in range(self._n) if self.at(p) in others._places]
            theirs = [others._places[str(self.at(p))] for p in mine]
            return np.array(mine, dtype=np.int64), np.array(theirs, dtype=np.int64)
        known = np.isin(own := self._all(), others._all())
        return np.flatnonzero(known), others.positions(own[known])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Ids) or len(self) != len(other):
            return False
        if isinstance(self._ids, list) or isinstance(other._ids, list):
            return self._ids == other._ids
        return (self._ids is None and other._ids is None) or np.array_equal(
            self._all(), other._all()
        )

    __hash__ = None  # type: ignore[assignment]

    def _all(self) -> Positions:
        assert not isinstance(self._ids, list)
        return np.arange(self._n) if self._ids is None else self._ids

    def _unknown(self, wanted: int | str) -> ValueError:
        have = f"{self._n:,} ids such as {self.at(0)!r} and {self.at(self._n - 1)!r}"
        return ValueError(
            f"ids: {wanted!r} is not known; there are {have}: give the ids of the samples, as the "
            "loader gave them"
        )

    def state(self) -> int | Tensor | list[str]:
        """Return what the ids can be made of again."""
        if self._ids is None:
            return self._n
        return list(self._ids) if isinstance(self._ids, list) else torch.tensor(self._ids)


def _texts(ids: Any) -> list[str] | None:
    """Return texts as a list; None if they are something else."""
    if isinstance(ids, np.ndarray) and ids.dtype.kind in "UO":
        ids = ids.tolist()
    if isinstance(ids, Tensor | np.ndarray | str) or not isinstance(ids, Iterable):
        return None
    listed = ids if isinstance(ids, list) else list(ids)
    if not listed or not all(isinstance(text, str) for text in listed):
        return None
    return [str(text) for text in listed]


def _integers(ids: Any, argument: str) -> Positions:
    """Return integers as int64, one dimension; floats are refused, for they may have been cut."""
    if isinstance(ids, Tensor):
        if ids.is_floating_point() or ids.dtype == torch.bool:
            raise TypeError(
                f"{argument} of {ids.dtype}: integers are needed; floats cannot hold large ones"
            )
        array = ids.detach().cpu().numpy()
    else:
        array = np.asarray(ids)
        if array.size == 0 and not isinstance(ids, np.ndarray):
            array = array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise TypeError(
            f"{argument} of {array.dtype}: integers or texts are needed, such as [0, 1] or ['a']"
        )
    if array.ndim != 1:
        raise ValueError(f"{argument} of shape {array.shape}: must be one dimension, one a sample")
    if array.dtype == np.uint64 and array.size and int(array.max()) >= 1 << 63:
        raise ValueError(f"{argument}: {int(array.max())} does not fit int64")
    return array.astype(np.int64, copy=False)


def _first_twice(texts: list[str]) -> str:
    seen: set[str] = set()
    return next(text for text in texts if text in seen or seen.add(text))  # type: ignore[func-returns-value]
