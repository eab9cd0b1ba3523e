"""Reads the dense gradients that an update needs, and hides them from an optimizer's step.

An update wants gradients of weights that are not there, and three things come in its way: it may
take the step's place, so the optimizer must not see them; another sparsifier of the same optimizer
may have hidden them already; and the user may have masked them in order to clip.
"""

from __future__ import annotations

import weakref
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from regrow.engine.finite import check_finite
from regrow.engine.layer import MaskedLayer
from regrow.engine.sharding import local
from regrow.engine.topology import Topology

__all__ = ["LIVE", "Gradients"]

# The gradients of every sparsifier whose hooks are on an optimizer. Two of them may share one, and
# what one hides from a step, the other still has to read.
LIVE: weakref.WeakSet[Gradients] = weakref.WeakSet()


@dataclass(frozen=True)
class _Aside:
    """A gradient that was masked, and a dense copy of it from before, if one was kept."""

    source: Tensor
    dense: Tensor | None


class Gradients:
    """Reads, hides and masks the gradients of one sparsifier's layers.

    Args:
        topology: the layers whose gradients are read.
        optimizer: the optimizer whose parameters they are among.

    Attributes:
        hidden: gradients that the optimizer is not to see just now, by parameter.
        replaced: whether they were hidden from the step now going on, or just made.
    """

    def __init__(self, topology: Topology, optimizer: Optimizer) -> None:
        self.topology = topology
        self.optimizer = optimizer
        # Keyed by the parameter, not its name: also what is not sparse has to be hidden.
        self.hidden: dict[Tensor, Tensor] = {}
        self.replaced = False
        self._aside: dict[str, _Aside] = {}
        self._watches: dict[str, Any] = {}

    # ------------------------------------------------------------------ read

    def current(self) -> dict[str, Tensor]:
        """Return the gradients of the weights that take part in this step, hidden or not.

        A weight that is frozen, or through which no backward pass went, takes no part.
        """
        # Two sparsifiers may share an optimizer (a backbone and a head, say). The one whose hook
        # runs first may have hidden the gradients that the other is to read.
        hidden = {weight: g for other in self._sharing() for weight, g in other.hidden.items()}
        gradients = {
            layer.name: hidden.get(weight, weight.grad)
            for layer, weight in self.topology.pairs()
            if weight.requires_grad
        }
        return {name: gradient for name, gradient in gradients.items() if gradient is not None}

    def dense(self, wanted: Collection[str] | None = None) -> dict[str, Tensor]:
        """Return the dense gradients of layers; those that took no part in the step have none.

        Args:
            wanted: the layers an update will read, which must be finite, and at least one of which
                must have a gradient; None takes all layers as they are.

        Raises:
            RuntimeError: no wanted layer has a gradient, or a wanted one was masked and not kept.
            FloatingPointError: a wanted gradient is NaN or infinite.
        """
        gradients, lost = self.current(), []
        # A gradient that the user masked for clipping is exchanged for the dense one kept aside.
        for name, gradient in gradients.items():
            if (aside := self._aside_of(name, gradient)) is not None:
                gradients[name] = gradient if aside.dense is None else aside.dense
                lost += [name] if aside.dense is None else []
        gradients = {n: g.detach() for n, g in gradients.items() if wanted is None or n in wanted}
        if wanted is not None:
            _require_dense(gradients, [name for name in lost if name in wanted])
            check_finite(gradients, "gradient")
        return gradients

    def replaced_by_any(self) -> bool:
        """Whether any sparsifier of the same optimizer has hidden gradients from this step."""
        return any(other.replaced for other in self._sharing())

    def _sharing(self) -> list[Gradients]:
        return [other for other in LIVE if other.optimizer is self.optimizer]

    # ------------------------------------------------------------------ hidden from a step

    def begin(self) -> None:
        """Start a step, whatever a former one that failed has left."""
        self.restore()
        self.replaced = False

    def hide(self) -> None:
        """Take all gradients away, so that the optimizer's step changes nothing."""
        self.replaced = True
        # All parameters, dense ones too: the update takes the place of the whole step. A gradient
        # of None is the one thing that every optimizer skips without touching its state.
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

    # ------------------------------------------------------------------ masked, and kept aside

    @torch.no_grad()
    def mask_(self, *, keep_dense: bool) -> None:
        """Set the gradients of inactive weights to zero, in place.

        Args:
            keep_dense: whether an update will want the dense ones. What a former call took from the
                same gradient, to which more was accumulated since, is added again.

        Raises:
            TypeError: a gradient is of a sparse layout.
        """
        pairs = [pair for pair in self.topology.pairs() if pair[1].grad is not None]
        _require_strided({layer.name: weight.grad for layer, weight in pairs})
        for layer, weight in pairs:
            if weight.grad is None or not isinstance(layer, MaskedLayer):
                continue
            if weight.requires_grad:
                self._watch(layer.name, weight)
                self._put_aside(layer, weight.grad, keep_dense)
            # Minus zero: what is plus zero throughout was cleared since, not masked.
            local(weight.grad).masked_fill_(local(layer.learns) == 0, -0.0)

    def forget(self) -> None:
        """Drop what was kept aside: the step is over."""
        self._aside = {}
        for watch in self._watches.values():
            watch.remove()
        self._watches = {}

    def _put_aside(self, layer: MaskedLayer, gradient: Tensor, keep_dense: bool) -> None:
        # A clone costs as much memory as the weight: it is made only where an update is near.
        dense = gradient.clone() if keep_dense else None
        before = self._aside_of(layer.name, gradient)
        # An earlier part of this accumulated gradient was masked without a copy: the sum can no
        # longer be known, and to guess it would be silently wrong.
        if before is not None and before.dense is None:
            dense = None
        elif dense is not None and before is not None and before.dense is not None:
            # Inside the mask the gradient holds the whole sum already; outside it was zeroed after
            # the first part, so that the parts have to be added.
            learns, part = local(layer.learns) > 0, local(dense)
            part.copy_(torch.where(learns, part, part + local(before.dense)))
        self._aside[layer.name] = _Aside(gradient, dense)

    def _aside_of(self, name: str, gradient: Tensor) -> _Aside | None:
        """Return what was put aside of this very gradient; nothing of it, if it was cleared."""
        aside = self._aside.get(name)
        # zero_grad(set_to_none=True) makes a new gradient: what was kept belongs to a batch that is
        # gone.
        if aside is None or aside.source is not gradient:
            return None
        if aside.dense is not None:
            part, now = local(aside.dense), local(gradient)
            # zero_grad(set_to_none=False) clears the same tensor in place: then the copy has to be
            # cleared, too. Decided on the device, so that the host does not wait.
            part.copy_(torch.where(_touched(now), part, now))
        return aside

    def _watch(self, name: str, weight: Tensor) -> None:
        """Notice a batch that is thrown away: its gradient is cleared before the next one's comes.

        Whether a gradient was cleared in place can be told before something is added to it only.
        """

        def look(_: Tensor) -> None:
            aside = self._aside.get(name)
            if aside is not None and (
                weight.grad is not aside.source or not bool(_touched(local(weight.grad)))
            ):
                del self._aside[name]

        # One hook for all parts of an accumulated gradient; forget() removes it after the step.
        if name not in self._watches:
            self._watches[name] = weight.register_hook(look)

    def __getstate__(self) -> dict[str, Any]:
        """Leave behind what belongs to one step: copies of weights have no gradient."""
        return self.__dict__ | {"hidden": {}, "_aside": {}, "_watches": {}}


def _touched(gradient: Tensor) -> Tensor:
    """Return whether a gradient is anything but plus zero; 0-d bool tensor."""
    # Masking writes minus zero, clearing plus zero: the sign tells a masked gradient without a
    # single nonzero from a cleared one.
    return gradient.any() | gradient.signbit().any()


def _require_dense(gradients: dict[str, Tensor], lost: list[str]) -> None:
    """Raise unless there are gradients to read, whole and strided."""
    if not gradients:
        raise RuntimeError(
            "the method reads gradients, but no sparse weight has one at this update: "
            "call backward() before the step and zero_grad() after it"
        )
    if lost:
        raise RuntimeError(
            f"topology update: the gradient of {', '.join(lost)} was masked while no update was "
            "due, so that nothing is known of inactive weights: call update_() before "
            "mask_gradients_()"
        )
    _require_strided(gradients)


def _require_strided(gradients: Mapping[str, Tensor | None]) -> None:
    if bad := [n for n, g in gradients.items() if g is not None and g.layout != torch.strided]:
        raise TypeError(
            f"the gradient of {', '.join(bad)} has a sparse layout, which gives no gradient to "
            "inactive weights: make its layer without sparse=True"
        )
