"""The learners that are compared: what decides them, and how each is made."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from torch import nn

import regrow
from regrow.continual.baselines import (
    EWC,
    FineTuning,
    Independent,
    Joint,
    Learner,
    PackNet,
    Replay,
    Setup,
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

    @property
    def name(self) -> str:
        """What a reader calls it; its density apart."""
        return type(self).__name__


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
    allocation: Literal["ERK", "uniform"] = "uniform"
    growth: Literal["random", "unfired", "gradient", "momentum", "static"] = "random"
    updates: int = 20

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
    """

    density: float = 1.0
    same_total: bool = False

    def make(self, place: Place) -> Learner:
        """Make the learner."""
        if self.same_total:
            build = place.narrow(1 / len(place.stream))
            return Independent(replace(place.setup, build=build))
        if self.density == 1:
            return Independent(place.setup)
        return Independent(place.setup, Subnetworks(self.density).method(place.steps))


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
