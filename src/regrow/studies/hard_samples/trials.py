"""What is run: methods at densities, condition by condition."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import regrow
from regrow.studies.hard_samples.attacks import Attack
from regrow.studies.hard_samples.conditions import Condition
from regrow.studies.hard_samples.methods import CORE, METHODS, UPDATES, WHOLE
from regrow.studies.hard_samples.ranking import Ranking
from regrow.studies.hard_samples.trial import HardSamples

__all__ = ["Setup", "cells"]


@dataclass(frozen=True)
class Setup:
    """How a model learns a data set, whatever the method and the condition.

    Args:
        base: all of the trial but method, condition and seed; its epochs are those on all samples.
        train: how many samples there are to train on.
        ranking: how they are scored.
        attack: of adversarial training.
        equal_steps: on a share of the samples train for as many steps as on all; else for as many
            epochs.
    """

    base: HardSamples
    train: int
    ranking: Ranking
    attack: Attack
    equal_steps: bool

    @classmethod
    def of(
        cls,
        train: int,
        *,
        ranking: Ranking | None = None,
        attack: Attack | None = None,
        equal_steps: bool = False,
        **setting: Any,
    ) -> Setup:
        """Make one with fields of :class:`~regrow.studies.hard_samples.trial.HardSamples`."""
        base = HardSamples(seed=0, method=regrow.Dense(), **setting)
        return cls(base, train, ranking or Ranking(), attack or Attack(), equal_steps)

    def trial(self, seed: int, name: str, density: float, condition: Condition) -> HardSamples:
        """Make the trial of a method under a condition.

        Args:
            seed: of the trial.
            name: of :data:`~regrow.studies.hard_samples.methods.METHODS`.
            density: of the method, if it has one.
            condition: what is learnt.
        """
        base, share = self.base, condition.share
        epochs = round(base.epochs / share) if self.equal_steps else base.epochs
        steps = epochs * (max(round(share * self.train), 1) // base.batch)
        ranking = None
        if condition.score:
            ranking = replace(self.ranking, score=condition.score)
        return replace(
            base,
            seed=seed,
            epochs=epochs,
            warmup=base.warmup * epochs / base.epochs,
            share=share,
            pick=condition.pick,
            ranking=ranking,
            severity=condition.severity,
            attack=self.attack if condition.attacked else None,
            **METHODS[name](density, max(steps // UPDATES, 1)),
        )


def cells(
    setup: Setup,
    seeds: int,
    conditions: Sequence[Condition],
    densities: Sequence[float],
    methods: Sequence[str] = CORE,
) -> Iterator[HardSamples]:
    """Run every method at every density under every condition, with all seeds.

    Args:
        setup: the model and the data.
        seeds: how many, from 0.
        conditions: what is learnt.
        densities: of the sparse methods and the small dense networks.
        methods: names; those without a density are run once a seed.
    """
    for condition in conditions:
        for seed in range(seeds):
            for name in methods:
                for density in (1.0,) if name in WHOLE else densities:
                    yield setup.trial(seed, name, density, condition)
