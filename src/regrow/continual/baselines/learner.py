"""What every learner of a stream can do, and what it is made with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from regrow.continual.baselines.training import Setup, Tell
from regrow.continual.streams.task import Part, TaskData
from regrow.engine.selection import seeded_generator

__all__ = ["Learner", "accuracy", "hash_seed"]


class Learner(ABC):
    """Learns tasks one after another, and answers each when it is told which it is.

    Args:
        setup: what it shares with others.
    """

    def __init__(self, setup: Setup) -> None:
        self.setup = setup

    @property
    @abstractmethod
    def learnt(self) -> int:
        """How many tasks it has learnt."""

    @abstractmethod
    def learn(self, task: TaskData, tell: Tell = lambda _: None) -> None:
        """Learn the next task.

        Args:
            task: the next one; it may have any number of classes.
            tell: is told the share of the task that is done.

        Raises:
            ValueError: the task has no samples.
            FloatingPointError: the loss is no longer a number.
        """

    @abstractmethod
    def predict(self, task: int, inputs: Tensor) -> Tensor:
        """Return a task's own logits, in evaluation mode.

        Args:
            task: its number, from 0.
            inputs: shape (n, ...); what is said of one does not depend on the others.

        Returns:
            float32, shape (n, classes of the task).

        Raises:
            ValueError: the task was never learnt.
        """

    @property
    @abstractmethod
    def weights_used(self) -> int:
        """How many weights answer all tasks so far, those of heads left out."""

    @property
    def masks(self) -> Sequence[Mapping[str, Tensor]]:
        """The active weights of each task, on the CPU; empty if tasks have none of their own."""
        return ()

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return what it has learnt: tensors, numbers, strings and containers of them."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken; for a learner made alike that is new."""

    def _check(self, task: int) -> None:
        if not 0 <= task < self.learnt:
            raise ValueError(f"task={task}: was never learnt; {self.learnt} tasks were")

    def _seed(self, what: str) -> int:
        """Return a seed for something that is drawn once a task."""
        return hash_seed(self.setup.seed, what, self.learnt)


def hash_seed(*key: int | str) -> int:
    """Return a number that depends on the key alone."""
    return seeded_generator(*key).initial_seed() % 2**31


def accuracy(learner: Learner, task: int, part: Part) -> float:
    """Return the share of a task's samples that the task's own logits classify right.

    Args:
        learner: which has learnt the task.
        task: its number, from 0.
        part: samples, as a rule those of ``TaskData.test``.

    Raises:
        ValueError: the task was never learnt, or there is no sample.
    """
    if not len(part):
        raise ValueError(f"task={task}: there is no sample to test on")
    found = learner.predict(task, part.inputs).argmax(1)
    return int((found == part.targets).sum()) / len(part)
