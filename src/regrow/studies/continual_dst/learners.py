"""The learners that are compared: what decides them, and how each is made."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import nn

import regrow
from regrow.continual.baselines import (
    EWC,
    FineTuning,
    Independent,
    Joint,
    Learner,
    NISPALike,
    PackNet,
    Replay,
    Setup,
    SpaceNetLike,
    SubNetworks,
)
from regrow.continual.streams import Stream
from regrow.engine.allocation import ERK, Allocation, Uniform
from regrow.engine.schedules import Cosine
from regrow.engine.scores import Gradient, Magnitude, Momentum, Random, Score, Unfired

__all__ = [
    "ALLOCATIONS",
    "GROWTH",
    "Consolidated",
    "FineTuned",
    "Joined",
    "Kind",
    "Packed",
    "Place",
    "Rehearsed",
    "Separate",
    "SpaceReserved",
    "Stabilised",
    "Subnetworks",
]

ALLOCATIONS: dict[str, Allocation] = {"ERK": ERK(), "uniform": Uniform()}
GROWTH: dict[str, Score] = {
    "random": Random(),
    "unfired": Unfired(),
    "gradient": Gradient(),
    "momentum": Momentum(),
}
_FRACTION = Cosine(0.5, 0.005)


@dataclass(frozen=True)
class Place:
    """Where a learner is made.

    Args:
        setup: network, training, seed.
        stream: the tasks to come.
        narrow: makes what builds a network of a share of the weights.
        steps: optimizer steps of a task.
    """

    setup: Setup
    stream: Stream
    narrow: Callable[[float], Callable[[], nn.Module]]
    steps: int


class Kind(ABC):
    """What decides a learner: a frozen dataclass, part of a trial."""

    @abstractmethod
    def make(self, place: Place) -> Learner:
        """Make the learner."""


@dataclass(frozen=True)
class Subnetworks(Kind):
    """A sparse network a task in one store, found by dynamic sparse training.

    Args:
        density: of a task's network, a fraction of all weights.
        allocation: of :data:`ALLOCATIONS`.
        growth: of :data:`GROWTH`; "static" keeps the first topology.
        updates: of the topology, within a task.
    """

    density: float
    allocation: str = "uniform"
    growth: str = "random"
    updates: int = 20

    def __post_init__(self) -> None:
        for name, known in (("allocation", ALLOCATIONS), ("growth", (*GROWTH, "static"))):
            if (value := getattr(self, name)) not in known:
                raise ValueError(f"{name}={value!r}: must be one of {', '.join(known)}")

    def make(self, place: Place) -> Learner:
        """Make the learner."""
        return SubNetworks(place.setup, self.method(place.steps))

    def method(self, steps: int) -> regrow.Method:
        """Make what finds the network of a task of so many steps."""
        allocation = ALLOCATIONS[self.allocation]
        if self.growth == "static":
            return regrow.Static(density=self.density, allocation=allocation)
        return regrow.Dynamic(
            density=self.density,
            allocation=allocation,
            drop=Magnitude(),
            grow=GROWTH[self.growth],
            drop_fraction=_FRACTION,
            update_every=max(steps // self.updates, 1),
            stop_at=1.0,
        )


@dataclass(frozen=True)
class FineTuned(Kind):
    """One network, trained on each task in turn."""

    def make(self, place: Place) -> Learner:
        """Make the learner."""
        return FineTuning(place.setup)


@dataclass(frozen=True)
class Joined(Kind):
    """One network, trained on all tasks so far at once."""

    def make(self, place: Place) -> Learner:
        """Make the learner."""
        return Joint(place.setup, place.stream)


@dataclass(frozen=True)
class Separate(Kind):
    """A network a task.

    Args:
        density: below 1 each is sparse, by growing at random with uniform allocation.
        same_total: each is a narrower dense network of a T-th of the weights.
        updates: of a sparse network's topology, within a task.
    """

    density: float = 1.0
    same_total: bool = False
    updates: int = 20

    def make(self, place: Place) -> Learner:
        """Make the learner."""
        if self.same_total:
            build = place.narrow(1 / len(place.stream))
            return Independent(replace(place.setup, build=build))
        if self.density == 1:
            return Independent(place.setup)
        return Independent(
            place.setup, Subnetworks(self.density, updates=self.updates).method(place.steps)
        )


@dataclass(frozen=True)
class Packed(Kind):
    """PackNet.

    Args:
        density: the share of the free weights that a task keeps.
    """

    density: float

    def make(self, place: Place) -> Learner:
        """Make the learner."""
        return PackNet(place.setup, self.density)


@dataclass(frozen=True)
class SpaceReserved(Kind):
    """Units reserved in the manner of SpaceNet.

    Args:
        density: of a task's own weights.
        updates: of the topology, within a task.
    """

    density: float
    updates: int = 20

    def make(self, place: Place) -> Learner:
        """Make the learner."""
        return SpaceNetLike(place.setup, self.density, updates=self.updates)


@dataclass(frozen=True)
class Stabilised(Kind):
    """Units made stable in the manner of NISPA.

    Args:
        density: of a task's own weights, before units are chosen.
        updates: of the topology, within a task.
    """

    density: float
    updates: int = 20

    def make(self, place: Place) -> Learner:
        """Make the learner."""
        return NISPALike(place.setup, self.density, updates=self.updates)


@dataclass(frozen=True)
class Consolidated(Kind):
    """EWC.

    Args:
        strength: λ.
    """

    strength: float = 1000.0

    def make(self, place: Place) -> Learner:
        """Make the learner."""
        return EWC(place.setup, self.strength)


@dataclass(frozen=True)
class Rehearsed(Kind):
    """Experience replay.

    Args:
        capacity: samples kept.
    """

    capacity: int = 500

    def make(self, place: Place) -> Learner:
        """Make the learner."""
        return Replay(place.setup, self.capacity)
