"""What is run: every cell of the method, every control, in one setting."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from regrow.continual.baselines import Training
from regrow.studies.continual_dst.learners import (
    ALLOCATIONS,
    GROWTH,
    Consolidated,
    FineTuned,
    Joined,
    Kind,
    Packed,
    Rehearsed,
    Separate,
    SpaceReserved,
    Stabilised,
    Subnetworks,
)
from regrow.studies.continual_dst.trial import LearnStream

__all__ = ["Setting", "controls", "grid"]


@dataclass(frozen=True)
class Setting:
    """A network that learns a stream, whoever the learner.

    Args:
        stream: its name.
        model: its name.
        training: how each task is trained.
        samples: training images used.
        tests: test images used.
        augment: whether to change training images.
        updates: of a topology within a task.
        buffer: samples that replay keeps.
    """

    stream: str
    model: str
    training: Training
    samples: int | None = None
    tests: int | None = None
    augment: bool = False
    updates: int = 20
    buffer: int = 500

    def trial(self, seed: int, learner: Kind) -> LearnStream:
        """Make the trial of a learner."""
        return LearnStream(
            seed=seed,
            stream=self.stream,
            model=self.model,
            learner=learner,
            training=self.training,
            samples=self.samples,
            tests=self.tests,
            augment=self.augment,
        )


def grid(
    setting: Setting,
    seeds: int,
    densities: Sequence[float],
    growth: Sequence[str] = (*GROWTH, "static"),
) -> Iterator[LearnStream]:
    """The paper's questions: every allocation with every growth rule, and static topologies."""
    for seed in range(seeds):
        for density in densities:
            for allocation in ALLOCATIONS:
                for rule in growth:
                    cell = Subnetworks(density, allocation, rule, setting.updates)
                    yield setting.trial(seed, cell)


def controls(setting: Setting, seeds: int, densities: Sequence[float]) -> Iterator[LearnStream]:
    """Everything else: what has no density once, the others at each density."""
    once: list[Kind] = [
        FineTuned(),
        Joined(),
        Separate(),
        Separate(same_total=True),
        Consolidated(),
        Rehearsed(setting.buffer),
    ]
    for density in densities:
        once += [
            Separate(density, updates=setting.updates),
            Packed(density),
            SpaceReserved(density, setting.updates),
            Stabilised(density, setting.updates),
        ]
    for seed in range(seeds):
        for learner in once:
            yield setting.trial(seed, learner)
