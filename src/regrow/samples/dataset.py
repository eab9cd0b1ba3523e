"""A data set whose items come with their ids."""

from __future__ import annotations

from operator import index
from typing import Any

from torch.utils.data import Dataset

from regrow.samples.ids import Ids

__all__ = ["WithIds"]


class WithIds(Dataset[Any]):
    """Gives each item of a data set its id: a dict gets a key, anything else becomes (item, id).

    Args:
        dataset: with a length, and items by position; it is not changed.
        ids: of its items.
        key: under which a dict holds its id.

    Raises:
        ValueError: there are not as many items as ids; or (when read) a dict has such a key.

    Example:
        >>> WithIds(["tea", "salt"], Ids(["x", "y"]))[1]
        ('salt', 'y')
        >>> WithIds([{"text": "tea"}], Ids(1))[0]
        {'text': 'tea', 'ids': 0}
    """

    def __init__(self, dataset: Any, ids: Ids, key: str = "ids") -> None:
        if len(dataset) != len(ids):
            raise ValueError(f"dataset has {len(dataset)} items, and there are {len(ids)} samples")
        self.dataset, self.ids, self.key = dataset, ids, key
        if hasattr(dataset, "__getitems__"):  # only then: loaders look for it
            self.__getitems__ = self._items

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, position: int) -> Any:
        position = index(position)  # of a slice there would be no id
        return self._named(range(len(self))[position], self.dataset[position])

    def _items(self, positions: list[int]) -> list[Any]:
        found = self.dataset.__getitems__(positions)
        return [self._named(p, item) for p, item in zip(positions, found, strict=True)]

    def _named(self, position: int, item: Any) -> Any:
        name = self.ids.at(position)
        if not isinstance(item, dict):
            return item, name
        if self.key in item:
            raise ValueError(f"an item has a key {self.key!r} already: choose another key")
        return {**item, self.key: name}
