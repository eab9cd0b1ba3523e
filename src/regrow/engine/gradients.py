"""Dense gradients: read for an update, hidden from a step, kept aside.

An update wants gradients of weights that are not there, and three things come in its way: it may
take the step's place, so the optimizer must not see them; another sparsifier of the same optimizer
may have hidden them already; and the user may have masked them in order to clip.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer

from regrow.engine.layer import MaskedLayer
from regrow.engine.sharding import local
from regrow.engine.topology import Topology, check_finite

__all__ = ["Gradients"]


class Gradients:
    """What one sparsifier does with gradients.

    Args:
        topology: the layers whose gradients are read.
        optimizer: the optimizer whose parameters they are among.
    """

    def __init__(self, topology: Topology, optimizer: Optimizer) -> None:
        self.topology = topology
        self.optimizer = optimizer
        self.hidden: dict[Tensor, Tensor] = {}
        self._aside: dict[str, tuple[Tensor, Tensor]] = {}

    def dense(
        self, wanted: Iterable[str] | None = None, sharing: Iterable[Gradients] = ()
    ) -> dict[str, Tensor]:
        """Return the dense gradients of layers; those that took no part in the step have none.

        Args:
            wanted: the layers an update will read, which must be finite, and at least one of which
                must have a gradient; None takes all layers as they are.
            sharing: those of all sparsifiers of the same optimizer.

        Raises:
            RuntimeError: no wanted layer has a gradient.
            FloatingPointError: a wanted gradient is NaN or infinite.
        """
        hidden = {weight: g for other in sharing for weight, g in other.hidden.items()}
        gradients = {}
        for layer, weight in self.topology.pairs():
            _, aside = self._aside.get(layer.name, (None, None))
            gradient = aside if aside is not None else hidden.get(weight, weight.grad)
            if gradient is not None and (wanted is None or layer.name in wanted):
                gradients[layer.name] = gradient.detach()
        if wanted is None:
            return gradients
        if not gradients:
            raise RuntimeError(
                "the method reads gradients, but no sparse weight has one at this update: "
                "call backward() before the step and zero_grad() after it"
            )
        check_finite(gradients, "gradient")
        return gradients

    def hide(self) -> None:
        """Take all gradients away, so that the optimizer's step changes nothing."""
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self.hidden[parameter] = parameter.grad
                    parameter.grad = None

    def restore(self) -> None:
        """Give back what was hidden."""
        for parameter, gradient in self.hidden.items():
            parameter.grad = gradient
        self.hidden = {}

    @torch.no_grad()
    def mask_(self, *, keep_dense: bool) -> None:
        """Set the gradients of inactive weights to zero, in place.

        Args:
            keep_dense: whether an update will want the dense ones. What a former call took from the
                same gradient, to which more was accumulated since, is added again.
        """
        for layer, weight in self.topology.pairs():
            if weight.grad is None or not isinstance(layer, MaskedLayer):
                continue
            if keep_dense:
                source, before = self._aside.get(layer.name, (None, None))
                dense = weight.grad.clone()
                if source is weight.grad and before is not None:
                    dense += before * (1 - layer.learns)
                self._aside[layer.name] = (weight.grad, dense)
            local(weight.grad).mul_(local(layer.learns))

    def forget(self) -> None:
        """Drop what was kept aside: the step is over."""
        self._aside = {}
