"""A problem to learn: its data, model, loss and test."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Generic

from torch import Tensor, nn

from regrow.training.batch import Batch, SourceT
from regrow.training.run import RunLike
from regrow.training.setting import Setting
from regrow.training.trainer import Trainer

__all__ = ["Problem"]


class Problem(ABC, Generic[SourceT]):
    """Defines what is learnt. A domain makes a subclass, often a frozen dataclass.

    :func:`regrow.training.train.train` learns it.
    """

    @abstractmethod
    def open(self, setting: Setting, run: RunLike) -> SourceT:
        """Open the data.

        Args:
            setting: whose batch size and seed are used.
            run: whose options say where data lie and on which device batches are wanted.
        """

    @abstractmethod
    def build(self, source: SourceT) -> nn.Module:
        """Build the model; its first weights are drawn from torch's global generator."""

    @abstractmethod
    def loss(self, outputs: Any, batch: Batch) -> Tensor:
        """Compute the loss of a batch.

        Args:
            outputs: of the model, in training mode.
            batch: on the model's device; ``batch.ids`` tell which samples these are.

        Returns:
            One value, or one a sample, shape (n,): their mean is minimised.
        """

    def counts(self, outputs: Any, batch: Batch) -> Mapping[str, Tensor]:
        """Return sums over the samples of a batch, such as how many were right, by name.

        An epoch reports each divided by its number of samples, as ``train_`` and the name.
        """
        return {}

    def validate(self, trainer: Trainer[SourceT]) -> Mapping[str, float]:
        """Measure the model after an epoch, on samples it is neither trained nor tested on.

        An epoch reports each value as ``validation_`` and the name.
        """
        return {}

    def watch(self, trainer: Trainer[SourceT], first: Mapping[str, Tensor]) -> Mapping[str, float]:
        """Measure anything else after an epoch, such as where the topology is, by name.

        What it returns is logged with the epoch's metrics, and is no part of the result.

        Args:
            trainer: of the run.
            first: the masks it started with.
        """
        return {}

    @abstractmethod
    def test(self, trainer: Trainer[SourceT], run: RunLike) -> Mapping[str, Any]:
        """Test the trained model: numbers, strings, and lists and dicts of them, by name.

        Names must not be those of metrics (``loss``, ``train_...``) and costs, which replace them.
        """

    def describe(self, source: SourceT) -> str:
        """Name model and data in a few words, for a line before training."""
        return type(self).__name__
