"""The trial: numbers are learnt, such as prices, by the squared error."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from regrow.studies.supervised.classify import Classifier, Classify
from regrow.studies.supervised.source import LabelledSource
from regrow.training.batch import Batch
from regrow.training.run import RunLike

__all__ = ["Regress", "errors"]


@dataclass(frozen=True, kw_only=True)
class Regress(Classify):
    """Train a network on a number a sample, and test it once, after the last epoch.

    What is trained on is standardized: a loss of 1 is that of the mean of all. What is reported is
    in the numbers' own unit. Arguments are those of
    :class:`~regrow.studies.supervised.classify.Classify`; the data are tables, or images, of one's
    own.

    Raises:
        ValueError: labels are to be smoothed, data are not one's own, and as of ``Classify``.
    """

    regression: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.label_smoothing:
            raise ValueError(
                f"label_smoothing={self.label_smoothing} is of classes, and numbers are learnt: "
                "leave it out"
            )
        if not self.digest:
            raise ValueError(
                f"data={self.data!r} is of classes: numbers are learnt of data of your own"
            )

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Compute the mean squared error of standardized numbers.

        Args:
            outputs: shape (n, 1).
            batch: with numbers as targets, shape (n,).
        """
        return mse_loss(outputs.squeeze(1).float(), batch.targets)

    def counts(self, outputs: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        """Count nothing: the loss says it."""
        return {}

    def validate(self, trainer: Classifier) -> Mapping[str, float]:
        """Return ``r2`` and ``rmse`` on what was kept for validation, if anything was."""
        return errors(trainer, trainer.source.validation()) if self.validation else {}

    def test(self, trainer: Classifier, run: RunLike) -> Mapping[str, Any]:
        """Return ``r2`` and ``rmse`` on the test part."""
        return errors(trainer, trainer.source.test())

    def describe(self, source: LabelledSource) -> str:
        """Name model, shape of inputs and the span of the numbers."""
        shape = "×".join(map(str, source.shape))
        numbers = f"numbers of {source.scale[0]:.4g} ± {source.scale[1]:.4g}"
        about = f" ({source.about})" if source.about else ""
        return f"{self.model} for inputs of {shape} and {numbers}{about}"


def errors(trainer: Classifier, pairs: Iterable[tuple[Tensor, Tensor]]) -> dict[str, float]:
    """Return how far a network is from numbers.

    R² = 1 - Σ(y - ŷ)² / Σ(y - ȳ)², ȳ the mean of these numbers: 1 at best, 0 for their mean, below
    for what is worse; NaN where all are the same. RMSE = √(Σ(y - ŷ)² / n), in their unit.

    Args:
        trainer: whose model is tested, in evaluation mode.
        pairs: inputs and standardized numbers, batch by batch, as from ``trainer.source.test()``.

    Returns:
        ``r2`` and ``rmse``.
    """
    told: list[Tensor] = []
    true: list[Tensor] = []
    for inputs, targets in pairs:
        told.append(trainer.outputs(trainer.source.ready(inputs)).squeeze(1).double().cpu())
        true.append(targets.double().cpu())
    y, predicted = torch.cat(true), torch.cat(told)
    squares = float((y - predicted).square().sum())
    spread = float((y - y.mean()).square().sum())
    rmse = math.sqrt(squares / len(y)) * trainer.source.scale[1]
    return {"r2": 1 - squares / spread if spread else math.nan, "rmse": rmse}
