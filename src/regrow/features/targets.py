"""What is to be predicted: classes, or numbers; its loss and that loss's gradient."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Targets"]


@dataclass(frozen=True)
class Targets:
    """The targets of all rows: cross-entropy for classes, half the squared error for numbers.

    Args:
        values: int64 classes of shape (n,), or float32 numbers of shape (n, C).
        outputs: C, what a network has to put out.

    Example:
        >>> targets = Targets(torch.tensor([0, 1]), outputs=2)
        >>> targets.error(torch.zeros(1, 2, 2), torch.tensor([0, 1])).tolist()
        [[[-0.5, 0.5], [0.5, -0.5]]]
        >>> round(float(targets.loss(torch.zeros(2, 2), torch.tensor([0, 1])).mean()), 4)
        0.6931
    """

    values: Tensor
    outputs: int

    @property
    def classes(self) -> bool:
        """Whether classes are predicted."""
        return not self.values.is_floating_point()

    def error(self, outputs: Tensor, rows: Tensor) -> Tensor:
        """Return the gradient of each row's loss, for outputs of shape (…, B, C)."""
        wanted = self.values[rows]
        if self.classes:
            return outputs.softmax(-1).sub_(F.one_hot(wanted, self.outputs))
        return outputs - wanted

    def loss(self, outputs: Tensor, rows: Tensor) -> Tensor:
        """Return each row's loss, shape (B,), for outputs of shape (B, C)."""
        wanted = self.values[rows]
        if self.classes:
            return F.cross_entropy(outputs, wanted, reduction="none")
        return (outputs - wanted).square().sum(1) / 2
