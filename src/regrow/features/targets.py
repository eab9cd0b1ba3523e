"""What is to be predicted: classes, numbers, or the table itself; the loss and its gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from regrow.features.inputs import Inputs

__all__ = ["Reconstruction", "Targets", "Values"]


class Targets(Protocol):
    """What a network learns to put out."""

    @property
    def outputs(self) -> int:
        """How many numbers a network puts out for a row."""

    @property
    def classes(self) -> bool:
        """Whether these are classes, for which outputs count only relative to each other."""

    def error(self, outputs: Tensor, rows: Tensor) -> Tensor:
        """Return the gradient of each row's loss, for outputs of shape (…, C, B)."""

    def loss(self, outputs: Tensor, rows: Tensor) -> Tensor:
        """Return each row's loss, shape (B,), for outputs of shape (B, C)."""


@dataclass(frozen=True)
class Values:
    """Targets of all rows: cross-entropy for classes, half the squared error for numbers.

    Args:
        values: int64 classes of shape (n,), or float32 numbers of shape (n, C).
        outputs: C.
        smoothing: s: (1 - s) · one-hot + s/C is learned of a class, so that there is something to
            learn of a row after it is told right.

    Example:
        >>> targets = Values(torch.tensor([0, 1]), outputs=2)
        >>> targets.error(torch.zeros(1, 2, 2), torch.tensor([0, 1])).tolist()
        [[[-0.5, 0.5], [0.5, -0.5]]]
        >>> round(float(targets.loss(torch.zeros(2, 2), torch.tensor([0, 1])).mean()), 4)
        0.6931
    """

    values: Tensor
    outputs: int
    smoothing: float = 0.0

    @property
    def classes(self) -> bool:
        """Whether classes are predicted."""
        return not self.values.is_floating_point()

    @cached_property
    def _wanted(self) -> Tensor:
        """What is learned of each class, one a column."""
        smooth = torch.eye(self.outputs, device="cpu") * (1 - self.smoothing)
        return smooth + self.smoothing / self.outputs

    def error(self, outputs: Tensor, rows: Tensor) -> Tensor:
        """Return the gradient of each row's loss, for outputs of shape (…, C, B)."""
        wanted = self.values[rows]
        if self.classes:  # classes first: a softmax along the last, short axis is many times slower
            return outputs.softmax(-2).sub_(self._wanted[:, wanted])
        return outputs - wanted.T

    def loss(self, outputs: Tensor, rows: Tensor) -> Tensor:
        """Return each row's loss, shape (B,), for outputs of shape (B, C)."""
        wanted = self.values[rows]
        if self.classes:
            return F.cross_entropy(
                outputs, wanted, reduction="none", label_smoothing=self.smoothing
            )
        return (outputs - wanted).square().sum(1) / 2


class Reconstruction:
    """The rows themselves: half the squared error of all columns, or of a random sketch of them.

    A sketch x R with R ~ N(0, 1/r) of shape (d, r) keeps distances on average, so that r outputs
    stand for any number of columns (Johnson & Lindenstrauss 1984).

    Args:
        inputs: the table with all its columns; nothing may be dropped from it.
        sketch: r, the most outputs; None: all columns.
        generator: draws R.
        mean: divide the error by the number of outputs.

    Example:
        >>> import numpy as np
        >>> from regrow.features.inputs import Inputs, scaling
        >>> table = np.array([[0.0, 1.0], [2.0, 0.0]])
        >>> inputs = Inputs(table, scaling(table, np.ones(2), None), None)
        >>> target = Reconstruction(inputs, None, torch.Generator())
        >>> target.error(torch.zeros(2, 2), torch.tensor([0, 1])).tolist()
        [[1.0, -1.0], [-1.0, 1.0]]
    """

    def __init__(
        self,
        inputs: Inputs,
        sketch: int | None,
        generator: torch.Generator,
        *,
        mean: bool = False,
    ) -> None:
        d = len(inputs.live)
        self._inputs, self._sketch = inputs, None
        if sketch is not None and d > sketch:
            self._sketch = torch.randn(d, sketch, generator=generator) / math.sqrt(sketch)
        self.outputs = d if self._sketch is None else self._sketch.shape[1]
        self.classes = False
        self._scale = 1 / self.outputs if mean else 1.0

    def error(self, outputs: Tensor, rows: Tensor) -> Tensor:
        """Return the gradient of each row's loss, for outputs of shape (…, C, B)."""
        return (outputs - self._wanted(rows).T).mul_(self._scale)

    def loss(self, outputs: Tensor, rows: Tensor) -> Tensor:
        """Return each row's loss, shape (B,), for outputs of shape (B, C)."""
        return (outputs - self._wanted(rows)).square().sum(1) * (self._scale / 2)

    def _wanted(self, rows: Tensor) -> Tensor:
        x = self._inputs.batch(rows)
        return x if self._sketch is None else x @ self._sketch
