"""One sparse layer as the topology sees it, however it stores its weights; moving its units."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from regrow.engine.moments import OnGrow
from regrow.engine.patterns import Element, Pattern
from regrow.engine.planned import PlannedLayer
from regrow.engine.ranks import Ranks
from regrow.engine.scores import Random, Role, Score, Signals
from regrow.engine.selection import nth_allowed, sample, top_per_group
from regrow.engine.sharding import device_of, like, local

__all__ = ["Exchange", "SparseLayer"]


class Exchange:
    """The units that one layer keeps while an update goes on, counted exactly.

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
        # Never written in place: it is the caller's tensor until the first drop makes a new one.
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
        # Active weights are few: to score and rank them alone costs less than a pass over the
        # weight.
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
        # Counting costs a pass, and on a GPU a wait: only inexact scores are counted.
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
        # Public codes differ in this: a unit just dropped may come back at once, with its weight.
        excluded = self.kept if regrow_dropped else self.active
        group = self.layer.pattern.group(self.layer.planned.shape)
        # type() and not isinstance(): a subclass may choose in another way.
        anywhere = group is None and self.layer.free is None
        if type(score) is Random and self.listable and anywhere:
            ranks = sample(self.room(regrow_dropped=regrow_dropped), k, generator)
            self.kept = self.kept.clone()
            self.kept.view(-1)[nth_allowed(ranks, self._positions(excluded).numpy())] = True
            self.n += k
            return
        worth, candidates = self.growing(score, regrow_dropped=regrow_dropped)
        if group is None:
            n = self.room(regrow_dropped=regrow_dropped)
            grown = score.highest(worth, k, candidates, n, generator)
        else:
            # Every group grows as many as it lost, so that n of m, or the fan-in, holds at every
            # update.
            missing = (self.active & ~self.kept).reshape(-1, group).sum(1)
            keys = score.keys(worth, generator).reshape(-1, group)
            grown = top_per_group(keys, missing, candidates.reshape(-1, group))
            grown = grown.reshape(self.kept.shape)
        self.add(grown, k)

    @property
    def anywhere(self) -> bool:
        """Whether units may move anywhere in the layer, and not in their group only."""
        return self.layer.pattern.group(self.layer.planned.shape) is None

    def growing(self, score: Score, *, regrow_dropped: bool) -> tuple[Tensor, Tensor]:
        """Return what units are worth to a grow score, and which may be grown; on the grid."""
        candidates = ~(self.kept if regrow_dropped else self.active)
        if self.layer.free is not None:
            candidates &= self.layer.free
        return score.worth(self.signals("grow", self.kept)), candidates

    def add(self, grown: Tensor, k: int) -> None:
        """Grow k units chosen among those that :meth:`growing` returned."""
        self.kept = self.kept | grown
        self.n += k

    def strength(self, signal: Literal["momentum", "gradient"]) -> Tensor:
        """Return the mean magnitude of a signal over the weights active before; 0-d tensor."""
        signals = self.signals("grow", self.active)
        values = signals.momentum if signal == "momentum" else signals.gradient
        assert values is not None and signals.mask is not None
        # Not values[mask]: the host would have to wait to learn how many entries that has.
        return torch.where(signals.mask, values.abs(), 0).sum() / signals.mask.sum().clamp(min=1)


class SparseLayer(ABC):
    """One sparse weight: which units are active, and how that changes.

    *Units* are what a layer says they are: a bool tensor on the grid for weights under a mask,
    ascending positions on the grid for weights that are stored without the zeros. Only the layer
    and its :class:`Exchange` look inside.

    Attributes:
        planned: the layer's row of the plan.
        pattern: what a unit is.
        active: how many units are active.
        n_free: how many units this topology may use.
        free: those units, bool tensor on the grid; None if it may use all.
        held: values of the weights it may not use; None if there are none.
        frozen: values of the weights it may use but no optimizer may move; None if there are none.
        running: running averages of the scores that follow one, by role.
    """

    plain: ClassVar[bool] = True  # a multiply by the mask is all that a step needs
    stored: ClassVar[bool] = False  # a module holds active weights only, and where they are
    exchange: ClassVar[type[Exchange]] = Exchange  # how its units are moved

    def __init__(self, planned: PlannedLayer, pattern: Pattern) -> None:
        self.planned = planned
        self.pattern = pattern
        self.active = planned.initial
        self.n_free = planned.units
        self.free: Tensor | None = None
        self.held: Tensor | None = None
        self.frozen: Tensor | None = None
        self.running: dict[str, Tensor] = {}

    @property
    def name(self) -> str:
        """The parameter's name."""
        return self.planned.name

    @property
    def shape(self) -> tuple[int, ...] | None:
        """The shape that the model's parameter must have; None if that moves."""
        return None

    def strays(self, weight: Tensor) -> Tensor | None:
        """Count the weights outside the mask that are not what they are to be; 0-d tensor.

        None: there can be none.
        """
        return None

    @property
    def multiplied(self) -> bool:
        """Whether all that a step asks of the weight is a multiply by the mask."""
        return self.plain and self.held is None and self.frozen is None

    @abstractmethod
    def units(self) -> Any:
        """Return the active units."""

    @abstractmethod
    def expanded(self, units: Any) -> Tensor:
        """Return the weights that units hold; bool tensor of the dense weight's shape."""

    @abstractmethod
    def ever(self) -> Tensor:
        """Return the weights that are active or ever were; bool tensor of the dense shape."""

    @abstractmethod
    def counts(self, before: Any, after: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Count the units of two topologies, and those they share; 0-d tensors on one device."""

    @abstractmethod
    def signals(self, seen: Signals, role: Role, kept: Any) -> Signals:
        """Return what a drop or grow score may look at, given the units kept so far.

        Args:
            seen: the weight as the model holds it, its gradient and momentum, and the progress.
            role: of the score.
            kept: units.
        """

    @abstractmethod
    def committing(
        self, units: Any, weight: Tensor, slots: dict[str, Tensor], on_grow: OnGrow
    ) -> Callable[[], None]:
        """Return a function that takes over new active units; changes nothing yet.

        The function writes the weight and the optimizer's slots, too. What may fail is done before,
        and it may be called again if it was interrupted: see :func:`regrow.engine.whole.finish`.
        """

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return all that moves, masks at one bit a weight."""

    @abstractmethod
    def check_state(self, state: dict[str, Any]) -> Tensor:
        """Return the mask of a saved state, or raise ValueError if the state does not fit."""

    @abstractmethod
    def loading(self, state: dict[str, Any], mask: Tensor, weight: Tensor) -> Callable[[], None]:
        """Return a function that takes over a checked state; changes nothing yet.

        It applies the state to the weight, and may be called again if it was interrupted.
        """

    @abstractmethod
    def topology_bytes(self) -> int:
        """Count the bytes that say where the active weights are."""

    @abstractmethod
    def rescale_(self, weight: Tensor, factor: float) -> None:
        """Multiply the active weights."""

    # ------------------------------------------------------------------ most have nothing to add

    @property
    def kernels(self) -> str | None:
        """What computes the layer, where that is not torch's own dense layers."""
        return None

    def kept(self) -> Tensor:
        """Return the weights that take part in the forward pass; bool tensor of the dense shape."""
        return self.expanded(self.units())

    def n_kept(self) -> int:
        """Count the weights that take part in the forward pass."""
        return int(torch.count_nonzero(self.kept()))

    def values(self, weight: Tensor) -> Tensor:
        """Return the weights that scores look at."""
        return weight

    def follow_(self, weight: Tensor) -> None:  # noqa: B027
        """Move to the weight's device and dtype, should the model have been moved."""

    def hold_(self, *, held: bool) -> None:  # noqa: B027
        """Learn whether the topology drives the weight, or has left it free to move."""

    def apply_(self, weight: Tensor) -> None:  # noqa: B027
        """Set dropped weights to zero and held weights to their own value."""

    def apply_to_(self, module: nn.Module, weight: Tensor) -> None:
        """Set dropped weights of another model's layer to zero.

        Args:
            module: the layer that holds the weight.
            weight: dense, of the same shape; it may be sharded, or on another device.

        Raises:
            ValueError: it is of another shape.
        """
        if tuple(weight.shape) != self.planned.shape:
            raise ValueError(
                f"{self.name} has shape {tuple(weight.shape)} in this module, and the mask "
                f"{tuple(self.planned.shape)}: pass a copy or an average of the model itself"
            )
        kept = like(self.kept().to(device_of(weight)), weight)
        local(weight).mul_(local(kept))

    def freeze_(self, where: Tensor, weight: Tensor) -> None:
        """Keep weights at their present value whenever they are active."""
        raise ValueError(
            f"frozen: {self.name} is a {type(self).__name__}, which cannot freeze weights; use a "
            "method that masks them, and execution='masked'"
        )

    def before_step_(self, weight: Tensor, scale: Tensor | None) -> None:  # noqa: B027
        """Prepare the weight for the optimizer's step; called for layers that are not plain."""

    def check_loaded(self, weight: Tensor) -> None:  # noqa: B027
        """Raise RuntimeError if a loaded state wants values of the weight that are gone."""

    def expect_(self, *, dense_gradients: bool) -> None:  # noqa: B027
        """Learn whether the next step's update will read gradients of inactive weights."""

    def join_(self, ranks: Ranks) -> None:  # noqa: B027
        """Learn which ranks train the weight, before an update."""

    @property
    def displaced(self) -> bool:
        """Whether a loaded state has put weights elsewhere, and their optimizer state not yet."""
        return False

    def settle_(self, state: dict[str, Any] | None) -> None:  # noqa: B027
        """Let optimizer state follow weights that a loaded state has put elsewhere.

        Args:
            state: of the weight; None: it was loaded as well, and belongs to them already.
        """

    def observe_(self, role: str, score: Score, signals: Signals) -> None:
        """Take one more step of the running average of a score that drops or grows."""
        self.running[role] = score.average(self.running.get(role), signals)
