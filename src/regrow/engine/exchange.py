"""The units of one layer while an update goes on: who is left, who may still come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from regrow.engine.patterns import Element
from regrow.engine.scores import Random, Score, Signals
from regrow.engine.selection import nth_allowed, sample, top_per_group

if TYPE_CHECKING:
    from regrow.engine.sparse_layer import SparseLayer

__all__ = ["Exchange", "Role"]

Role = Literal["drop", "grow"]


class Exchange:
    """The units one layer keeps as an update goes on, and their exact number.

    Args:
        layer: is not changed.
        active: its active units before the update.
        signals: makes the layer's signals for a drop or grow score, given the units kept so far.

    Attributes:
        kept: the units kept so far; bool tensor on the grid.
        n: how many they are.
    """

    def __init__(
        self, layer: SparseLayer, active: Tensor, signals: Callable[[Role, Tensor], Signals]
    ) -> None:
        self.layer = layer
        self.active = active
        self.kept = active
        self.n = layer.active
        self.signals = signals
        self._listed: Tensor | None = None

    def room(self, *, regrow_dropped: bool) -> int:
        """Return how many units could be grown now."""
        return self.layer.n_free - (self.n if regrow_dropped else self.layer.active)

    def drop(self, score: Score, k: int, generator: torch.Generator) -> int:
        """Drop the k lowest units; return how many went, should the score be inexact."""
        if k == 0:
            return 0
        kept, signals = self.kept, self.signals("drop", self.kept)
        if score.elementwise and self.listable:
            positions = self._positions(kept)
            among = torch.ones_like(positions, dtype=torch.bool)
            few = replace(signals, mask=None, fired=None).at(positions)  # both true of all of them
            chosen = score.lowest(score(few), k, among, self.n, generator)
            self.kept = kept.clone()
            self.kept.view(-1)[positions[chosen]] = False
        else:
            chosen = score.lowest(score.worth(signals), k, kept, self.n, generator)
            self.kept = kept & ~chosen
        gone = k if score.exact else int(torch.count_nonzero(chosen))
        self.n -= gone
        return gone

    @property
    def listable(self) -> bool:
        """Whether to go by a list of the active weights, which are few; on a GPU it would wait."""
        return isinstance(self.layer.pattern, Element) and self.active.device.type == "cpu"

    def _positions(self, units: Tensor) -> Tensor:
        """Return the flat positions of units; those active before are listed once."""
        if units is not self.active:
            return torch.from_numpy(np.flatnonzero(units.numpy()))
        if self._listed is None:
            self._listed = torch.from_numpy(np.flatnonzero(units.numpy()))
        return self._listed

    def worth(self, score: Score) -> tuple[Tensor, Tensor]:
        """Return what units are worth to a drop score, and which are there; 1-D tensors."""
        worth = score.worth(self.signals("drop", self.kept))
        return worth.reshape(-1), self.kept.reshape(-1)

    def strike(self, chosen: Tensor, k: int) -> None:
        """Drop k units chosen among those that :meth:`worth` returned."""
        self.kept = self.kept & ~chosen.reshape(self.kept.shape)
        self.n -= k

    def grow(
        self, score: Score, k: int, generator: torch.Generator, *, regrow_dropped: bool
    ) -> None:
        """Grow the k highest units among those that may be grown."""
        if k == 0:
            return
        excluded = self.kept if regrow_dropped else self.active
        if type(score) is Random and self.listable and self.layer.free is None:
            ranks = sample(self.room(regrow_dropped=regrow_dropped), k, generator)
            self.kept = self.kept.clone()
            self.kept.view(-1)[nth_allowed(ranks, self._positions(excluded).numpy())] = True
            self.n += k
            return
        candidates = ~excluded
        if self.layer.free is not None:
            candidates &= self.layer.free
        worth = score.worth(self.signals("grow", self.kept))
        group = self.layer.pattern.group(self.layer.planned.shape)
        if group is None:
            n = self.room(regrow_dropped=regrow_dropped)
            grown = score.highest(worth, k, candidates, n, generator)
        else:
            missing = (self.active & ~self.kept).reshape(-1, group).sum(1)
            keys = score.keys(worth, generator).reshape(-1, group)
            grown = top_per_group(keys, missing, candidates.reshape(-1, group))
            grown = grown.reshape(self.kept.shape)
        self.kept = self.kept | grown
        self.n += k

    def strength(self, signal: Literal["momentum", "gradient"]) -> Tensor:
        """Return the mean magnitude of a signal over the weights active before; 0-d tensor."""
        signals = self.signals("grow", self.active)
        values = signals.momentum if signal == "momentum" else signals.gradient
        assert values is not None and signals.mask is not None
        return torch.where(signals.mask, values.abs(), 0).sum() / signals.mask.sum().clamp(min=1)
