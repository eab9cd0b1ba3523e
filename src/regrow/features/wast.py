"""The drop and grow scores of WAST: links between neurons that matter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from regrow.engine.scores import Score, Signals

__all__ = ["LinkImportance", "NeuronProduct"]


@dataclass(frozen=True)
class LinkImportance(Score):
    """|w_ij| · I_i · I_j: a link is kept if it is strong and its two neurons are.

    I is a neuron's strength within the layer, Σ|w| over its links there.

    Source: WAST (Sokar et al. 2022, NeurIPS).

    Differs from the paper: neurons count by their strength alone, without the sensitivity of the
    loss, which a layer does not know of.

    Example:
        >>> LinkImportance()(Signals(torch.tensor([[1.0, 0.0], [1.0, 2.0]]))).tolist()
        [[2.0, 0.0], [6.0, 12.0]]
    """

    elementwise: ClassVar[bool] = False
    grows: ClassVar[bool] = False

    def __call__(self, signals: Signals) -> Tensor:
        """Return |w| times the strengths of both neurons."""
        return signals.weight.abs() * _product(signals.weight)


@dataclass(frozen=True)
class NeuronProduct(Score):
    """I_i · I_j: a link is grown where both neurons are strong; I as in :class:`LinkImportance`.

    Source: WAST (Sokar et al. 2022, NeurIPS); differs from it as :class:`LinkImportance` does.

    Example:
        >>> NeuronProduct()(Signals(torch.tensor([[1.0, 0.0], [1.0, 2.0]]))).tolist()
        [[2.0, 2.0], [6.0, 6.0]]
    """

    elementwise: ClassVar[bool] = False
    drops: ClassVar[bool] = False

    def __call__(self, signals: Signals) -> Tensor:
        """Return the product of the strengths of both neurons."""
        return _product(signals.weight)


def _product(weight: Tensor) -> Tensor:
    size = weight.abs()
    return torch.outer(size.sum(1), size.sum(0))
