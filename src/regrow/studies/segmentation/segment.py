"""The trial: a network learns to segment volumes, and is tested on the cases held out."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from regrow.data.places import Places
from regrow.lab.run import Run
from regrow.lab.trial import Trial
from regrow.segmentation.data import open_fold
from regrow.segmentation.loss import dice_ce
from regrow.segmentation.problem import PatchSource, SegmentVolumes, Volumes
from regrow.segmentation.segmenter import Segmenter, Sides
from regrow.training.run import RunLike
from regrow.training.setting import Setting
from regrow.training.train import start, train
from regrow.training.trainer import Trainer

__all__ = ["Segment", "fitting_patch"]

_FROM = "the Decathlon's are at medicaldecathlon.com"


@dataclass(frozen=True, kw_only=True)
class Segment(Setting, SegmentVolumes, Trial):
    """Train a network on one of five folds of a data set of volumes.

    Args:
        data: name of the data set's folder, of the Decathlon or of nnU-Net.
        digest: of its files (:func:`regrow.segmentation.data.fingerprint`): a set of the same name
            and other files is another trial. Empty: files are not looked at.
        fold: which fifth of the cases is held out, 0 to 4.
        cases: learn from so many cases only; None: all that are not held out.
        tested: test on so many of the cases held out; None: on all.
        epochs: each of so many steps as batches says.
        batch: patches a step, over all ranks.

    Raises:
        ValueError: a choice is unknown or a number out of its range; the message says which.

    Source: nnU-Net (Isensee et al. 2021) and E2ENet (arXiv 2312.04727): patches, loss, optimizer.
    """

    data: str
    digest: str = ""
    fold: int = 0
    cases: int | None = None
    tested: int | None = field(default=None, metadata={"later": True})
    batch: int = 2
    learning_rate: float = 0.01
    momentum: float = 0.99
    weight_decay: float = 3e-5
    schedule: Literal["steps", "cosine", "poly"] = "poly"
    clip: float | None = 12.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check()
        if self.fold not in range(5):
            raise ValueError(f"fold={self.fold}: must be 0, 1, 2, 3 or 4")
        for name in ("cases", "tested"):
            if (count := getattr(self, name)) is not None and count < 1:
                raise ValueError(f"{name}={count}: must be at least 1; None takes all")

    def volumes(self, run: RunLike) -> Volumes:
        """Open the data set, from the run's ``data_dir`` or the usual places."""
        places = Places(self.data, run.options.get("data_dir"))
        found = places.find(_with_cases, "dataset.json", f"a folder of this name; {_FROM}")
        volumes = open_fold(found, self.fold, self.cases, lambda words: run.tell(0.0, words))
        return replace(volumes, held_out=volumes.held_out[: self.tested])

    def run(self, run: Run) -> Mapping[str, Any]:
        """Train, resuming from the run's checkpoint if there is one, and test.

        Options of the run: ``data_dir``, ``device``, ``execution``, ``keep_weights``, ``graphs``.

        Raises:
            MemoryError: the GPU's is too small; the message says which patch would fit.
        """
        trainer = start(self, self, run)
        try:
            return train(self, trainer, run)
        except torch.OutOfMemoryError as error:
            traceback.clear_frames(error.__traceback__)  # they hold what was computed
            raise MemoryError(_advice(trainer)) from error


def _with_cases(folder: Path) -> Path | None:
    return folder if folder.is_dir() else None


def fitting_patch(trainer: Trainer[PatchSource]) -> Sides | None:
    """Find a patch with which a training step has room, by trying smaller ones.

    The longest side shrinks by what the network divides it by, until a step can be taken.

    Args:
        trainer: whose own patch is too large.

    Returns:
        Its sides; None: not even the smallest has room.
    """
    model, multiples = trainer.model, _multiples(trainer)
    patch = list(trainer.source.patch)
    while True:
        axis = max(range(3), key=lambda a: patch[a] - multiples[a])
        if (side := patch[axis] - multiples[axis]) < 2 * multiples[axis]:
            return None
        patch[axis] = side
        if _has_room(trainer, model, (patch[0], patch[1], patch[2])):
            return patch[0], patch[1], patch[2]


def _multiples(trainer: Trainer[PatchSource]) -> Sides:
    model = trainer.model
    assert isinstance(model, Segmenter)
    return model.scales[-1]


def _has_room(trainer: Trainer[PatchSource], model: nn.Module, patch: Sides) -> bool:
    """Whether a training step has room."""
    trainer.optimizer.zero_grad()
    torch.cuda.empty_cache()
    model.train()
    try:
        _pass(trainer, model, patch)
    except torch.OutOfMemoryError:
        return False
    finally:
        trainer.optimizer.zero_grad()
    return True


def _pass(trainer: Trainer[PatchSource], model: nn.Module, patch: Sides) -> None:
    """Hold what the optimizer remembers, and pass zeros forward and backward."""
    states = 2 if trainer.setting.optimizer == "adamw" else 1
    lacking = 0 if trainer.optimizer.state else states
    held = [torch.empty_like(p) for p in model.parameters() for _ in range(lacking)]
    samples, volumes = trainer.setting.batch // trainer.ranks, trainer.source.volumes
    regions = () if volumes.regions is None else (len(volumes.regions),)
    targets = torch.zeros(samples, *regions, *patch, dtype=torch.int64, device=trainer.device)
    outputs = trainer.predict(torch.zeros(samples, volumes.channels, *patch))
    # Each rank by itself: others may have had room, and wait for nobody.
    dice_ce(outputs, targets, [1.0] * len(outputs), batch_dice=False).backward()
    del held


def _advice(trainer: Trainer[PatchSource]) -> str:
    patch = fitting_patch(trainer)
    own = "×".join(map(str, trainer.source.patch))
    said = f"patches of {own}, {trainer.setting.batch} a batch, do not fit in the GPU's memory"
    if patch is None:
        return f"{said}, nor do smaller ones: lower batch or width"
    fits = " ".join(map(str, patch))
    return f"{said}: --patch {fits} would; so may a smaller batch, width, or precision bfloat16"
