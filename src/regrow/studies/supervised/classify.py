"""The trial: a classifier is trained from scratch and tested once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import regrow
from regrow.engine.ranks import rank_and_ranks
from regrow.lab.run import Run
from regrow.lab.trial import Trial
from regrow.studies.supervised.source import Change, Keep, LabelledSource, open_source
from regrow.training.batch import Batch
from regrow.training.problem import Problem
from regrow.training.run import RunLike, device_of
from regrow.training.setting import Setting
from regrow.training.train import start, train
from regrow.training.trainer import Trainer
from regrow.vision.data import Own
from regrow.vision.models import build_model, narrowed

__all__ = ["Classifier", "Classify", "accuracy", "open_for"]

Classifier = Trainer[LabelledSource]
"""Trains a classifier."""


@dataclass(frozen=True, kw_only=True)
class Classify(Setting, Problem[LabelledSource], Trial):
    """Train a classifier and test it once, after the last epoch.

    Args:
        data: a data set: digits, fashion-mnist, cifar10, cifar100, tiny-imagenet, higgs; clips of
            moving-fashion; wordnet, glosses by the kind of thing; spoken-digits, whose speakers
            take turns by seed in being tested on; imagenet, a folder of images by class in train
            and val; ucf101; or a path of your own: a folder of images by class, a CSV or Parquet
            file, a folder of those, a data set of Hugging Face.
        model: a model: mlp-300-100 with any widths, conv-net, small-conv, lenet5, resnet20 (32, 44,
            56), resnet18 (34, 50), vgg16, efficientnet-b0, deit-tiny (small, base); for clips
            small-conv3d, resnet3d-50, i3d.
        label_smoothing: from 0 to 1.
        dropout: of a perceptron's hidden units.
        narrow: below 1: all widths are scaled down until the model has no more parameters than one
            of this density: the control of equal size. Goes with the dense method.
        augment: change training images at random, as is usual for the data set.
        samples: train on so many samples only, the same share of each class; None is all.
        validation: the share of them kept for validation.
        target: of tables of your own: the column with the classes, or numbers; empty: the one that
            is called class, label, target or y.
        leave_out: of tables of your own: columns that are not looked at.
        pixels: of images of your own: side of the squares that they become; None: they stay as they
            are, all of one size.
        digest: of data of your own, which a run finds by its option ``path``.

    Raises:
        ValueError: a choice is unknown or a number out of its range; the message says which.
    """

    data: str
    model: str
    label_smoothing: float = 0.0
    dropout: float = 0.0
    narrow: float = 1.0
    augment: bool = True
    samples: int | None = None
    validation: float = 0.0
    target: str = field(default="", metadata={"later": True})
    leave_out: tuple[str, ...] = field(default=(), metadata={"later": True})
    pixels: int | None = field(default=None, metadata={"later": True})
    digest: str = field(default="", metadata={"later": True})

    regression: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("dropout", "label_smoothing", "validation"):
            if not 0 <= (value := getattr(self, name)) < 1:
                raise ValueError(f"{name}={value}: must be at least 0 and below 1")
        if self.samples is not None and self.samples < 1:
            raise ValueError(f"samples={self.samples}: must be at least 1, or None for all")
        if self.narrow < 1 and not isinstance(self.method, regrow.Dense):
            raise ValueError(f"narrow={self.narrow} is a dense control: give method=Dense()")
        for name in ("target", "leave_out", "pixels"):
            if (value := getattr(self, name)) and not self.digest:
                raise ValueError(
                    f"{name}={value!r} is of data of your own, and {self.data!r} is not"
                )

    def run(self, run: Run) -> Mapping[str, Any]:
        """Train, resuming from the run's checkpoint if there is one, and test.

        Options of the run: ``data_dir``, ``path`` of data of one's own, ``device``, ``execution``,
        ``keep_weights``, ``graphs``.
        """
        return train(self, self.start(run), run)

    def start(self, run: Run) -> Classifier:
        """Open the data and build what is trained; a trial that begins otherwise does it here."""
        return start(self, self, run)

    def open(self, setting: Setting, run: RunLike) -> LabelledSource:
        """Open the data set."""
        return open_for(self, run)

    def build(self, source: LabelledSource) -> nn.Module:
        """Build the model for the data's shape and classes."""
        shape, classes = source.shape, source.classes
        scale = 1.0 if self.narrow >= 1 else narrowed(self.model, shape, classes, self.narrow)
        return build_model(self.model, shape, classes, scale=scale, dropout=self.dropout)

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Compute the mean cross-entropy.

        Args:
            outputs: logits, shape (n, classes).
            batch: with labels as targets, shape (n,).
        """
        return cross_entropy(outputs, batch.targets, label_smoothing=self.label_smoothing)

    def counts(self, outputs: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        """Count the samples classified right, as ``accuracy``."""
        return {"accuracy": (outputs.argmax(1) == batch.targets).sum()}

    def validate(self, trainer: Classifier) -> Mapping[str, float]:
        """Return ``accuracy`` on what was kept for validation, if anything was."""
        if not self.validation:
            return {}
        return {"accuracy": accuracy(trainer, trainer.source.validation())}

    def test(self, trainer: Classifier, run: RunLike) -> Mapping[str, Any]:
        """Return ``accuracy`` on the test part."""
        return {"accuracy": accuracy(trainer, trainer.source.test())}

    def describe(self, source: LabelledSource) -> str:
        """Name model, shape of inputs and number of classes."""
        shape = "×".join(map(str, source.shape))
        about = f" ({source.about})" if source.about else ""
        return f"{self.model} for inputs of {shape} and {source.classes} classes{about}"


def accuracy(trainer: Classifier, pairs: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Return the share of samples classified right; of none it is NaN.

    Args:
        trainer: whose model is tested, in evaluation mode.
        pairs: inputs and labels, batch by batch, as from ``trainer.source.test()``.
    """
    right, n = torch.zeros((), dtype=torch.int64, device=trainer.device), 0
    for inputs, labels in pairs:
        outputs = trainer.outputs(trainer.source.ready(inputs))
        right += (outputs.argmax(1) == labels.to(right)).sum()
        n += len(labels)
    return int(right) / n if n else math.nan


def open_for(
    classify: Classify, run: RunLike, *, change: Change | None = None, keep: Keep | None = None
) -> LabelledSource:
    """Open the data of a trial, as the run's options say.

    Args:
        classify: which data, and what of them.
        run: whose options say where they are and are wanted.
        change: as of :func:`~regrow.studies.supervised.source.open_source`.
        keep: as of :func:`~regrow.studies.supervised.source.open_source`.
    """
    rank, ranks = rank_and_ranks()
    own = None
    if classify.digest:
        if "path" not in run.options:
            raise ValueError(f"data={classify.data!r} is somebody's own: say where, option path")
        own = Own(
            str(run.options["path"]),
            classify.target,
            classify.leave_out,
            classify.pixels,
            classify.digest,
            regression=classify.regression,
        )
    return open_source(
        classify.data,
        data_dir=run.options.get("data_dir"),
        device=device_of(run.options),
        batch=classify.batch,
        seed=classify.seed,
        augment=classify.augment,
        samples=classify.samples,
        validation=classify.validation,
        rank=rank,
        ranks=ranks,
        change=change,
        keep=keep,
        own=own,
    )
