"""What is run: criteria, growth, densities, update periods, overlaps, few samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import regrow
from regrow.engine.schedules import Cosine
from regrow.studies.pruning_criteria.criteria import CRITERIA, GROWTH, PAPER
from regrow.studies.pruning_criteria.overlaps import Overlaps
from regrow.studies.vision.classify import Classify

__all__ = ["Setup", "few_samples", "grid", "overlaps", "periods"]

_UPDATES = 44  # in a run: what 100 epochs of CIFAR-10 with 800 steps between updates come to
_FRACTION = Cosine(0.5, 0.005)


@dataclass(frozen=True)
class Setup:
    """How a model learns a data set, whatever the method.

    Args:
        base: all of the trial but method and seed.
        steps: optimizer steps of a run.
    """

    base: Classify
    steps: int

    @classmethod
    def of(cls, train: int, **setting: Any) -> Setup:
        """Make one for so many samples to train on, with fields of :class:`Classify`."""
        base = Classify(seed=0, method=regrow.Dense(), **setting)
        return cls(base, base.epochs * (train // base.batch))

    def trial(self, seed: int, method: regrow.Method, **changes: Any) -> Classify:
        """Make the trial of a method."""
        return replace(self.base, seed=seed, method=method, **changes)

    def moving(
        self, criterion: str, growth: str, density: float, period: int | None = None
    ) -> regrow.Dynamic:
        """Make the method that drops and grows so, to the end of training, as the study did."""
        return regrow.Dynamic(
            density=density,
            drop=CRITERIA[criterion],
            grow=GROWTH[growth],
            drop_fraction=_FRACTION,
            update_every=period or max(self.steps // _UPDATES, 1),
            stop_at=1.0,
        )


def grid(
    setup: Setup,
    seeds: int,
    densities: Sequence[float],
    criteria: Sequence[str] = (*PAPER, "random"),
) -> Iterator[Classify]:
    """Question 1: every criterion and growth at every density, with all controls.

    Controls: dense; dense with as many parameters; static random topology; dropping at random; the
    rule that public code ships as SET's, with random growth, which it was made for.
    """
    for seed in range(seeds):
        yield setup.trial(seed, regrow.Dense())
        for density in densities:
            yield setup.trial(seed, regrow.Dense(), narrow=density)
            yield setup.trial(seed, regrow.Static(density=density))
            yield setup.trial(seed, setup.moving("SET as shipped", "random", density))
            for criterion in criteria:
                for growth in GROWTH:
                    yield setup.trial(seed, setup.moving(criterion, growth, density))


def periods(
    setup: Setup,
    seeds: int,
    lengths: Sequence[int],
    densities: Sequence[float],
    criteria: Sequence[str] = ("magnitude", "SNIP", "random"),
) -> Iterator[Classify]:
    """Question 2: steps between updates."""
    for seed in range(seeds):
        for density in densities:
            yield setup.trial(seed, regrow.Static(density=density))
            for criterion in criteria:
                for growth in GROWTH:
                    for period in lengths:
                        method = setup.moving(criterion, growth, density, period)
                        yield setup.trial(seed, method)


def overlaps(setup: Setup, seeds: int, density: float, every: int = 4) -> Iterator[Overlaps]:
    """Question 3: what criteria would drop from one state, now and again during training."""
    kept = {field.name: getattr(setup.base, field.name) for field in fields(setup.base)}
    for seed in range(seeds):
        method = setup.moving("magnitude", "gradient", density)
        yield Overlaps(**{**kept, "seed": seed, "method": method}, every=every)


def few_samples(
    setup: Setup, seeds: int, densities: Sequence[float], dropouts: Sequence[float]
) -> Iterator[Classify]:
    """Question 4: dynamic sparse training as a regulariser, beside dropout."""
    for seed in range(seeds):
        yield setup.trial(seed, regrow.Dense())
        for dropout in dropouts:
            yield setup.trial(seed, regrow.Dense(), dropout=dropout)
        for density in densities:
            yield setup.trial(seed, regrow.Static(density=density))
            for growth in GROWTH:
                yield setup.trial(seed, setup.moving("magnitude", growth, density))
