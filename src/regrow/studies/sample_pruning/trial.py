"""The trial: a classifier is trained on the samples that a criterion chooses, epoch by epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from regrow.engine.checks import check_choice
from regrow.engine.ranks import rank_and_ranks
from regrow.lab.run import Run
from regrow.samples import Criterion, Samples
from regrow.studies.sample_pruning.batches import (
    COPIED,
    ChosenBatches,
    Condition,
    changed_index,
    wrong_labels,
)
from regrow.studies.supervised.classify import Classifier, Classify, open_for
from regrow.studies.supervised.source import LabelledSource
from regrow.training.batch import Batch
from regrow.training.problem import Problem
from regrow.training.run import RunLike
from regrow.training.setting import Setting
from regrow.training.train import start, train
from regrow.vision.data import Batches

__all__ = ["PruneSamples"]


@dataclass(frozen=True, kw_only=True)
class PruneSamples(Classify):
    """Train on a share of the samples, chosen anew in every epoch, and test.

    Args:
        criterion: chooses.
        keep: the share that an epoch keeps, in (0, 1]; epochs are that much shorter.
        every: epochs from one choice to the next; None: chosen once, before the first.
        condition: what the training data are: "clean", with "copies", "imbalanced", with "wrong"
            labels (see :func:`~regrow.studies.sample_pruning.batches.changed_index`). Test data
            are as they were.
        spared: wrong labels and copies are left out: what a choice that knew them would do.

    Raises:
        ValueError: a choice is unknown or a number out of its range.
    """

    criterion: Criterion
    keep: float
    every: int | None = 1
    condition: Condition = "clean"
    spared: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.condition, ("clean", "copies", "imbalanced", "wrong"), "condition")
        if not 0 < self.keep <= 1:
            raise ValueError(f"keep={self.keep}: must be above 0 and at most 1")

    def run(self, run: Run) -> Mapping[str, Any]:
        """Train and test.

        Returns:
            What :class:`~regrow.studies.supervised.classify.Classify` does; and ``train_samples``,
            ``steps``, ``never_seen`` (a share), ``choosing_seconds``, ``drift`` of classes in the
            last choice; with wrong labels or copies ``visits``, how often one was learnt, relative
            to the mean of all samples.
        """
        problem = self._problem(run)
        return train(problem, start(self, problem, run, problem.source), run)

    def start(self, run: Run) -> Classifier:
        """Open the data, change them, and build what is trained."""
        problem = self._problem(run)
        return start(self, problem, run, problem.source)

    def _problem(self, run: RunLike) -> _Chosen:
        source = open_for(self, run, keep=self._keep)
        batches = source.batches
        assert isinstance(batches, Batches)
        labels, odd = self._labels(batches.labels, source.classes)
        left = 1 - float(odd.double().mean()) if self.spared else 1.0
        samples = Samples(
            len(labels),
            self.criterion,
            min(self.keep / left, 1.0),  # of fewer samples a larger share: as many steps
            epochs=self.epochs,
            every=self.every,
            strata={"class": labels, "odd": odd},
            seed=self.seed,
        )
        if self.spared:
            samples.exclude(odd.nonzero().squeeze(1))
        rank, ranks = rank_and_ranks()
        chosen = ChosenBatches(
            batches.inputs,
            labels.to(batches.labels.device),
            samples,
            self.batch,
            seed=self.seed,
            augment=batches.augment,
            rank=rank,
            ranks=ranks,
        )
        opened = replace(source, batches=chosen, memory=chosen)
        return _Chosen(self, opened, chosen, odd)

    def _keep(self, labels: Tensor, index: Tensor) -> Tensor:
        return index[changed_index(labels.cpu(), self.condition, self.seed).to(index.device)]

    def _labels(self, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
        """Return the labels that are learnt, and which samples are wrong or copies."""
        labels = labels.cpu()
        odd = torch.zeros(len(labels), dtype=torch.bool)
        if self.condition == "wrong":
            return wrong_labels(labels, classes, self.seed)
        if self.condition == "copies":  # they come last
            odd[len(labels) - round(COPIED * len(labels)) :] = True
        return labels, odd


@dataclass(frozen=True)
class _Chosen(Problem[LabelledSource]):
    """The trial as a problem with one loss a sample.

    Args:
        trial: what is asked.
        source: the data.
        batches: those of the source.
        odd: which samples are wrong or copies.
    """

    trial: PruneSamples
    source: LabelledSource
    batches: ChosenBatches
    odd: Tensor

    def open(self, setting: Setting, run: RunLike) -> LabelledSource:
        return self.source

    def build(self, source: LabelledSource) -> nn.Module:
        return self.trial.build(source)

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        smoothing = self.trial.label_smoothing
        return cross_entropy(outputs, batch.targets, reduction="none", label_smoothing=smoothing)

    def counts(self, outputs: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        return self.trial.counts(outputs, batch)

    def validate(self, trainer: Classifier) -> Mapping[str, float]:
        return self.trial.validate(trainer)

    def watch(self, trainer: Classifier, first: Mapping[str, Tensor]) -> Mapping[str, float]:
        return self.batches.samples.metrics()

    def describe(self, source: LabelledSource) -> str:
        return f"{self.trial.describe(source)}, {self.trial.criterion!r} keeps {self.trial.keep:g}"

    def test(self, trainer: Classifier, run: RunLike) -> Mapping[str, Any]:
        samples = self.batches.samples
        seen, told = samples.scores["seen"].double(), samples.metrics()
        found = dict(self.trial.test(trainer, run)) | {
            "train_samples": len(samples),
            "steps": trainer.steps,
            "never_seen": told["samples/never_seen"] / len(samples),
            "choosing_seconds": self.batches.seconds,
            "drift": told["samples/drift/class"],
        }
        if bool(self.odd.any()):
            found["visits"] = float(seen[self.odd].mean() / seen.mean())
        return found
