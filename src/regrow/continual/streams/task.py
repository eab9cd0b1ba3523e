"""The data of one task, and of a stream of tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, overload

from torch import Tensor

from regrow.engine.selection import sample, seeded_generator

__all__ = ["Arrays", "Part", "Stream", "TaskData", "check_arrays"]


class Arrays(Protocol):
    """A data set in memory, as ``regrow.vision.data.load_data`` returns it.

    Inputs have shape (n, ...), labels are int64 of shape (n,) in 0..classes - 1.
    """

    @property
    def train_inputs(self) -> Tensor:
        """Inputs to train on."""

    @property
    def train_labels(self) -> Tensor:
        """Labels to train on."""

    @property
    def test_inputs(self) -> Tensor:
        """Inputs to test on."""

    @property
    def test_labels(self) -> Tensor:
        """Labels to test on."""

    @property
    def classes(self) -> int:
        """How many labels there are."""


@dataclass(frozen=True)
class Part:
    """Samples of one task.

    Args:
        inputs: shape (n, ...).
        targets: int64, shape (n,), counted from 0 within the task.
    """

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def some(self, n: int, *key: int | str) -> Part:
        """Return n of the samples, drawn at random by a key, in their old order.

        Args:
            n: how many; all are returned where there are no more.
            key: of the drawing; the same key draws the same samples.

        Raises:
            ValueError: n is below 1.

        Example:
            >>> import torch
            >>> part = Part(torch.arange(4.0), torch.tensor([0, 1, 0, 1]))
            >>> len(part.some(3, "seed", 0))
            3
        """
        if n < 1:
            raise ValueError(f"n={n}: at least one sample is needed")
        if n >= len(self):
            return self
        index = sample(len(self), n, seeded_generator(*key)).to(self.targets.device)
        return Part(self.inputs[index], self.targets[index])


@dataclass(frozen=True)
class TaskData:
    """One task: what is learnt before the next one comes, and what it is tested on.

    Args:
        name: for readers.
        labels: the data set's labels that the targets 0, 1, ... stand for.
        train: samples to learn from.
        test: samples to be tested on.
    """

    name: str
    labels: tuple[int, ...]
    train: Part
    test: Part

    @property
    def classes(self) -> int:
        """How many classes it has."""
        return len(self.labels)

    def prepared(self, change: Callable[[Tensor], Tensor]) -> TaskData:
        """Return it with all inputs changed, such as standardized.

        Args:
            change: of a batch of inputs; must not depend on the other inputs in it.
        """
        train, test = (replace(p, inputs=change(p.inputs)) for p in (self.train, self.test))
        return replace(self, train=train, test=test)


class Stream(Sequence[TaskData]):
    """Tasks in the order in which they are learnt; each is made when it is asked for.

    Args:
        name: for readers.
        make: makes the task of an index in 0..length - 1, the same one each time.
        length: how many tasks there are, at least 1.

    Raises:
        ValueError: there is no task.
    """

    def __init__(self, name: str, make: Callable[[int], TaskData], length: int) -> None:
        if length < 1:
            raise ValueError(f"length={length}: a stream has at least one task")
        self.name, self._make, self._length = name, make, length

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> TaskData: ...

    @overload
    def __getitem__(self, index: slice) -> Stream: ...

    def __getitem__(self, index: int | slice) -> TaskData | Stream:
        if isinstance(index, slice):
            chosen = range(self._length)[index]
            return Stream(self.name, lambda i: self._make(chosen[i]), len(chosen))
        return self._make(range(self._length)[index])

    def prepared(self, change: Callable[[Tensor], Tensor]) -> Stream:
        """Return the stream with all inputs changed, see :meth:`TaskData.prepared`.

        Args:
            change: of a batch of inputs.
        """
        return Stream(self.name, lambda i: self._make(i).prepared(change), self._length)


def check_arrays(data: Arrays) -> None:
    """Refuse arrays that are no data set.

    Raises:
        ValueError: lengths differ, or a label is outside 0..classes - 1; the message says which.
    """
    for part in ("train", "test"):
        inputs: Tensor = getattr(data, f"{part}_inputs")
        labels: Tensor = getattr(data, f"{part}_labels")
        if len(inputs) != len(labels):
            raise ValueError(f"{part}: {len(labels)} labels for {len(inputs)} inputs: one each")
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < data.classes:
            raise ValueError(
                f"{part}_labels lie in {int(labels.min())}..{int(labels.max())}: must lie in "
                f"0..{data.classes - 1}"
            )
