"""The topology of a 2:4 layer: a mask, which the module that computes the layer sees, too."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from regrow.engine.layer import MaskedLayer
from regrow.engine.patterns import Pattern
from regrow.engine.planned import PlannedLayer
from regrow.execution.two_four.linear import TwoFourLinear

__all__ = ["TwoFourLayer"]


class TwoFourLayer(MaskedLayer):
    """The mask of one 2:4 weight.

    Args:
        planned: the layer's row of the plan.
        pattern: NM(2, 4).
        module: holds the weight; is made to compute by the mask.
        generator: draws the first mask.
        units: the first active units; None: they are drawn.
    """

    def __init__(
        self,
        planned: PlannedLayer,
        pattern: Pattern,
        module: nn.Linear,
        generator: torch.Generator,
        units: Tensor | None = None,
    ) -> None:
        super().__init__(planned, pattern, module.weight, generator, units)
        self.module = TwoFourLinear.made_of_(module, self.mask)

    @property
    def kernels(self) -> str:
        """What computes the layer."""
        return self.module.computed_by()

    def follow_(self, weight: Tensor) -> None:
        """Take the weight's device, dtype and memory format; so does the module's mask."""
        super().follow_(weight)
        if self.module.mask is not None:
            self.module.follow_(self.mask)

    def hold_(self, *, held: bool) -> None:
        """Let the module compute by the mask, or as the dense layer that it is without one."""
        self.module.follow_(self.mask if held else None)
