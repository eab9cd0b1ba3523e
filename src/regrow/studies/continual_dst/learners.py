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
    "BuildContext",
    "Consolidated",
    "FineTuned",
    "Joined",
    "LearnerSpec",
    "Packed",
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
class BuildContext:
    """What a learner is built from.

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


class LearnerSpec(ABC):
    """Says which learner to build: a frozen dataclass, part of a trial."""

    @abstractmethod
    def make(self, context: BuildContext) -> Learner:
        """Make the learner."""


@dataclass(frozen=True)
class Subnetworks(LearnerSpec):
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

    def make(self, context: BuildContext) -> Learner:
        """Make the learner."""
        return SubNetworks(context.setup, self.method(context.steps))

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
class FineTuned(LearnerSpec):
    """One network, trained on each task in turn."""

    def make(self, context: BuildContext) -> Learner:
        """Make the learner."""
        return FineTuning(context.setup)


@dataclass(frozen=True)
class Joined(LearnerSpec):
    """One network, trained on all tasks so far at once."""

    def make(self, context: BuildContext) -> Learner:
        """Make the learner."""
        return Joint(context.setup, context.stream)


@dataclass(frozen=True)
class Separate(LearnerSpec):
    """A network a task.

    Args:
        density: below 1 each is sparse, by growing at random with uniform allocation.
        same_total: each is a narrower dense network of a T-th of the weights.
        updates: of a sparse network's topology, within a task.
    """

    density: float = 1.0
    same_total: bool = False
    updates: int = 20

    def make(self, context: BuildContext) -> Learner:
        """Make the learner."""
        if self.same_total:
            build = context.narrow(1 / len(context.stream))
            return Independent(replace(context.setup, build=build))
        if self.density == 1:
            return Independent(context.setup)
        return Independent(
            context.setup, Subnetworks(self.density, updates=self.updates).method(context.steps)
        )


@dataclass(frozen=True)
class Packed(LearnerSpec):
    """PackNet.

    Args:
        density: the share of the free weights that a task keeps.
    """

    density: float

    def make(self, context: BuildContext) -> Learner:
        """Make the learner."""
        return PackNet(context.setup, self.density)


@dataclass(frozen=True)
class SpaceReserved(LearnerSpec):
    """Units reserved in the manner of SpaceNet.

    Args:
        density: of a task's own weights.
        updates: of the topology, within a task.
    """

    density: float
    updates: int = 20

    def make(self, context: BuildContext) -> Learner:
        """Make the learner."""
        return SpaceNetLike(context.setup, self.density, updates=self.updates)


@dataclass(frozen=True)
class Stabilised(LearnerSpec):
    """Units made stable in the manner of NISPA.

    Args:
        density: of a task's own weights, before units are chosen.
        updates: of the topology, within a task.
    """

    density: float
    updates: int = 20

    def make(self, context: BuildContext) -> Learner:
        """Make the learner."""
        return NISPALike(context.setup, self.density, updates=self.updates)


@dataclass(frozen=True)
class Consolidated(LearnerSpec):
    """EWC.

    Args:
        strength: λ.
    """

    strength: float = 1000.0

    def make(self, context: BuildContext) -> Learner:
        """Make the learner."""
        return EWC(context.setup, self.strength)


@dataclass(frozen=True)
class Rehearsed(LearnerSpec):
    """Experience replay.

    Args:
        capacity: samples kept.
    """

    capacity: int = 500

    def make(self, context: BuildContext) -> Learner:
        """Make the learner."""
        return Replay(context.setup, self.capacity)
