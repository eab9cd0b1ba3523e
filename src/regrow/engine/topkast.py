"""Top-KAST: the largest weights compute, some more receive gradients, all others are stored."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from regrow.engine.allocation import check_density
from regrow.engine.checks import check_number
from regrow.engine.dynamic import Dynamic
from regrow.engine.layer import MaskedLayer
from regrow.engine.moments import OnGrow
from regrow.engine.patterns import Element
from regrow.engine.planned import PlannedLayer
from regrow.engine.saved import check_tensor
from regrow.engine.schedules import Schedule
from regrow.engine.scores import Magnitude, Score
from regrow.engine.selection import top_k
from regrow.engine.sparse_layer import SparseLayer

__all__ = ["ReservingLayer", "TopKAST"]


class ReservingLayer(MaskedLayer):
    """A mask whose dropped weights are kept aside, and go on learning if they are large enough.

    Between steps the model holds the active weights only. For the optimizer's step all weights are
    put back, gradients outside the backward set are set to zero, and afterwards what lies outside
    the active set is put aside again.

    Args:
        backward_density: the fraction of weights that receive gradients.
        penalty: weight of the exploration penalty.
        planned: as for :class:`regrow.engine.layer.MaskedLayer`, like all other arguments.
        weight: see there.
        generator: see there.
    """

    def __init__(
        self,
        backward_density: float,
        penalty: float,
        planned: PlannedLayer,
        weight: Tensor,
        generator: torch.Generator,
    ) -> None:
        units = top_k(weight.detach().abs(), planned.initial)
        super().__init__(planned, Element(), weight, generator, units)
        self.penalty = penalty
        self.n_backward = max(Element().kept(backward_density, planned.shape), self.active)
        self.reserve = weight.detach() * (1 - self.mask)
        self.backward = self._largest(weight.detach())
        self._together = False  # whether the weight holds the reserve as well just now

    plain = False

    @property
    def learns(self) -> Tensor:
        """The backward set."""
        return self.backward

    def freeze_(self, where: Tensor, weight: Tensor) -> None:
        """Refuse: weights kept aside come back by themselves."""
        SparseLayer.freeze_(self, where, weight)

    def values(self, weight: Tensor) -> Tensor:
        """Return all weights, those kept aside included."""
        return weight if self._together else weight + self.reserve

    @torch.no_grad()
    def before_step_(self, weight: Tensor, scale: Tensor | None) -> None:
        """Put all weights back and keep gradients from those outside the backward set."""
        # Weights of the backward set learn without being active: the optimizer must see them, and
        # the forward pass must not.
        if not self._together:
            weight.add_(self.reserve)
            self._together = True
        if weight.grad is None:
            return
        weight.grad.mul_(self.backward)
        if self.penalty:
            share = self.mask + (self.backward - self.mask) / self.mask.mean()
            weight.grad.add_(self.penalty * weight * share * (1 if scale is None else scale))

    def apply_(self, weight: Tensor, active: Tensor | None = None) -> None:
        """Put aside what is not active; weights outside the backward set as they were before."""
        if self._together:
            # Only the backward set learns. What momentum and decay did to all others is undone.
            outside = (self.backward - self.mask) > 0
            self.reserve = torch.where(outside, weight, self.reserve)
            self._together = False
        weight.mul_(self.mask)

    def strays(self, weight: Tensor) -> Tensor | None:
        """Count weights outside the mask, unless they were put back for a step."""
        return None if self._together else super().strays(weight)

    def committing(
        self, units: Tensor, weight: Tensor, slots: dict[str, Tensor], on_grow: OnGrow
    ) -> Callable[[], None]:
        """Return a function that takes over new active units; all weights keep their values."""
        values = self.values(weight)
        mask = self.expanded(units).to(values.dtype)
        active, reserve, backward = values * mask, values * (1 - mask), self._largest(values)
        commit = super().committing(units, weight, slots, on_grow)

        def commit_all() -> None:
            commit()
            weight.copy_(active)
            self.reserve, self.backward = reserve, backward

        return commit_all

    def follow_(self, weight: Tensor) -> None:
        """Move to the weight's device and dtype."""
        super().follow_(weight)
        self.reserve = self.reserve.to(weight.device, weight.dtype)
        self.backward = self.backward.to(weight.device, weight.dtype)

    def state_dict(self) -> dict[str, Any]:
        """Return all that moves, and the weights kept aside."""
        return super().state_dict() | {"reserve": self.reserve, "backward": self.backward > 0}

    def check_state(self, state: dict[str, Any]) -> Tensor:
        """Return the mask of a saved state, or raise ValueError if the state does not fit."""
        mask = super().check_state(state)
        for part in ("reserve", "backward"):
            check_tensor(self.name, part, state[part], self.planned.shape)
        return mask

    def loading(self, state: dict[str, Any], mask: Tensor, weight: Tensor) -> Callable[[], None]:
        """Return a function that takes over a checked state; changes nothing yet."""
        reserve = state["reserve"].to(weight.device, weight.dtype)
        backward = state["backward"].to(weight.device, weight.dtype)
        load = super().loading(state, mask, weight)

        def load_all() -> None:
            self._together = False
            self.reserve, self.backward = reserve, backward
            load()

        return load_all

    def topology_bytes(self) -> int:
        """Count the bytes of the mask, the backward set and the weights kept aside."""
        return super().topology_bytes() + self.backward.nbytes + self.reserve.nbytes

    def _largest(self, values: Tensor) -> Tensor:
        return top_k(values.abs(), self.n_backward).to(values.dtype)


@dataclass(frozen=True, kw_only=True)
class TopKAST(Dynamic):
    """Top-k always sparse training: forward with the largest weights, backward with some more.

    The forward pass uses the largest ``density`` of all weights; gradients reach the largest
    ``backward_density``, so that weights outside can come back. Weights that receive no gradient
    stay as they are. An exploration penalty adds λ·w to the gradient of forward weights and
    λ·w/density to those that only gradients reach.

    Source: Jayakumar et al. 2020 (NeurIPS; arXiv 2106.03517). From memory: the formulas could not
    be checked against the paper's text.

    Differs: the largest weights are found layer by layer; the others are kept beside the model,
    not on the host, so that training saves no memory.

    Args:
        backward_density: the fraction of weights that receive gradients, at least ``density``.
        penalty: λ, at least 0.

    Example:
        >>> TopKAST(density=0.1).backward_density
        0.5
    """

    drop: Score = field(default=Magnitude(), init=False)
    grow: Score = field(default=Magnitude(), init=False)
    drop_fraction: Schedule | float = field(default=1.0, init=False)
    update_every: int = 1
    stop_at: int | float = 1.0
    regrow_dropped: bool = field(default=True, init=False)
    on_grow: OnGrow = "keep"
    backward_density: float = 0.5
    penalty: float = 1e-4

    @property
    def reserves(self) -> bool:
        """Dropped weights are kept aside."""
        return True

    def __post_init__(self) -> None:
        super().__post_init__()
        backward = check_density(self.backward_density, "backward_density")
        object.__setattr__(self, "backward_density", backward)
        if isinstance(self.density, float | int) and self.backward_density < self.density:
            raise ValueError(
                f"backward_density={self.backward_density}: must be at least density={self.density}"
            )
        check_number(self.penalty, "penalty", "1e-4")
        if not 0 <= self.penalty < math.inf:
            raise ValueError(f"penalty={self.penalty}: must be at least 0, and finite")
        if type(self.pattern) is not Element:  # FanIn() is one, and asks for more
            raise ValueError(f"pattern={self.pattern}: Top-KAST works on single weights, Element()")
        if self.start is not None:
            raise ValueError(f"start={self.start!r}: Top-KAST starts with the largest weights")

    def gradient_share(self, density: float) -> float:
        """Return the backward density."""
        return max(density, self.backward_density)

    def layer(
        self,
        planned: PlannedLayer,
        weight: Tensor,
        generator: torch.Generator,
        units: Tensor | None = None,
        available: Tensor | None = None,
    ) -> MaskedLayer:
        """Make the mask of one weight, with its reserve."""
        if available is not None:
            raise ValueError(f"available: {planned.name} cannot hold weights under Top-KAST")
        if hasattr(weight, "full_tensor"):
            raise ValueError(f"{planned.name} is sharded: Top-KAST is not made for FSDP")
        return ReservingLayer(self.backward_density, self.penalty, planned, weight, generator)
