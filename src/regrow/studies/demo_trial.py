"""The trials of the demo: a classifier whose connections are watched, and times of steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from regrow.lab.run import Run
from regrow.lab.trial import Trial
from regrow.measure.movement import distance
from regrow.measure.timing import interleaved
from regrow.studies.vision.classify import Classifier, Classify
from regrow.training.train import train

__all__ = ["StepTimes", "WatchedClassify"]


@dataclass(frozen=True, kw_only=True)
class WatchedClassify(Classify):
    """Train a classifier, and watch where its connections are."""

    def run(self, run: Run) -> Mapping[str, Any]:
        """Train and test; add what the topology was before, and what it became.

        Returns:
            What :class:`Classify` finds; ``active_parameters``, those that are not masked;
            ``first_densities`` by layer; and for a fully connected first layer ``inputs``: the
            connections of each input before and after.
        """
        trainer = self.start(run)
        first = trainer.sparse.masks
        found = train(self, trainer, run)
        last = trainer.sparse.masks
        masked = sum(int((~mask).sum()) for mask in last.values())
        found["active_parameters"] = found["parameters"] - masked
        found["first_densities"] = {
            name: float(mask.float().mean()) for name, mask in first.items()
        }
        name = next(iter(first), None)
        if name is not None and first[name].ndim == 2:
            ends = {"before": first[name], "after": last[name]}
            found["inputs"] = {when: mask.sum(0).tolist() for when, mask in ends.items()}
        return found

    def watch(self, trainer: Classifier, first: Mapping[str, Tensor]) -> Mapping[str, float]:
        """Return ``still_active``, the share of connections that the first topology had."""
        return {"still_active": 1 - distance(first, trainer.sparse.masks)["total"]}


@dataclass(frozen=True, kw_only=True)
class StepTimes(Trial):
    """Time training steps of several networks in turn, so that a busy machine slows all alike.

    Args:
        networks: by name; none must end before the last round.
        epochs: of each network in a round, so many that every round holds updates.
        rounds: how many times the turn goes round.
    """

    networks: Mapping[str, Classify]
    epochs: int
    rounds: int = 15

    def run(self, run: Run) -> Mapping[str, Any]:
        """Return ``step_seconds``: by network, seconds a step, one number a round."""
        trainers = {name: network.start(run) for name, network in self.networks.items()}
        turns = {name: partial(_turn, trainer, self.epochs) for name, trainer in trainers.items()}
        times = interleaved(turns, seconds=0.0, warmup=1, least=self.rounds, most=self.rounds)
        steps = {n: self.epochs * len(trainer.source.batches) for n, trainer in trainers.items()}
        return {"step_seconds": {n: [s / steps[n] for s in t.seconds] for n, t in times.items()}}


def _turn(trainer: Classifier, epochs: int) -> None:
    for _ in range(epochs):
        trainer.run_epoch()
