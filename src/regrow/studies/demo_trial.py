"""The trial of the demo: digits hidden among pixels of others, learnt in a process of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import regrow
from regrow.engine.selection import seeded_generator
from regrow.lab.run import Run
from regrow.studies.measured import alone, measured
from regrow.studies.supervised.classify import Classifier, Classify, accuracy, open_for
from regrow.studies.supervised.source import LabelledSource
from regrow.training.run import RunLike
from regrow.training.setting import Setting
from regrow.training.train import start
from regrow.vision.data import DataSet

__all__ = ["HiddenDigits", "Hide", "hide"]

_WARM_UP = "mlp-16-16"  # a small network, so that libraries and kernels are there when it counts
_IMPORTED = ("regrow.studies.demo_trial", "sklearn.datasets", "torch._dynamo")


def hide(images: Tensor, tiles: int, home: int, generator: torch.Generator) -> Tensor:
    """Set each image among tiles of its size in which every pixel is that of an image by chance.

    Pixel by pixel all tiles look alike: nothing but how pixels go with labels, and with one
    another, tells where the images are.

    Args:
        images: shape (n, 1, height, width).
        tiles: in a row and in a column.
        home: which tile is the image itself, counted row by row from 0.
        generator: of the choice.

    Returns:
        Images of shape (n, 1, tiles·height, tiles·width).

    Example:
        >>> images = torch.arange(8).view(2, 1, 2, 2)
        >>> field = hide(images, 3, 4, torch.Generator())
        >>> field.shape, field[:, :, 2:4, 2:4].equal(images)
        (torch.Size([2, 1, 6, 6]), True)
    """
    n, _, height, width = images.shape
    pixels = images.reshape(n, height * width)
    chosen = torch.randint(n, (n, tiles**2 * height * width), generator=generator)
    field = pixels.repeat(1, tiles**2).gather(0, chosen).view(n, tiles**2, height * width)
    field[:, home] = pixels
    square = field.view(n, tiles, tiles, height, width).transpose(2, 3)
    return square.reshape(n, 1, tiles * height, tiles * width)


@dataclass(frozen=True)
class Hide:
    """Hides the images of a data set, see :func:`hide`.

    Args:
        tiles: in a row and in a column.
        home: which tile is the image itself.
        seed: of what the other tiles hold.
    """

    tiles: int
    home: int
    seed: int

    def __call__(self, data: DataSet, device: torch.device) -> DataSet:
        """Hide images for training among those for training, others among others."""
        return replace(
            data,
            train_inputs=self._hidden("train", data.train_inputs),
            test_inputs=self._hidden("test", data.test_inputs),
        )

    def _hidden(self, part: str, images: Tensor) -> Tensor:
        return hide(images, self.tiles, self.home, seeded_generator("hide", part, self.seed))


@dataclass(frozen=True, kw_only=True)
class HiddenDigits(Classify):
    """Train a classifier of hidden images in a process of its own, and measure what that costs.

    A method other than ``Dense`` stores and computes active weights alone, on the CPU.

    Args:
        tiles: in a row and in a column.
        home: which tile is the image itself.
    """

    tiles: int
    home: int

    def run(self, run: Run) -> Mapping[str, Any]:
        """Train and test.

        Returns:
            ``accuracy``; ``weights`` that are trained; of building and training on one thread,
            every update included, ``cpu_seconds``, ``seconds`` on the wall and ``peak_bytes``
            (None where the system does not tell); and of a sparse first layer ``pixels``:
            connections of each pixel, row by row, and ``digit_share``: the share of them that the
            digit's own have.
        """
        return alone(_learn, self, run.folder, dict(run.options), imported=_IMPORTED)

    def open(self, setting: Setting, run: RunLike) -> LabelledSource:
        """Open the data set and hide its images."""
        return open_for(self, run, change=Hide(self.tiles, self.home, self.seed))

    def build(self, source: LabelledSource) -> nn.Module:
        """Build the model; one that becomes sparse is never dense in memory."""
        dense = isinstance(self.method, regrow.Dense)
        with contextlib.nullcontext() if dense else regrow.empty():
            return super().build(source)

    def of_digit(self, shape: tuple[int, ...]) -> Tensor:
        """Return which pixels are the image's own, row by row.

        Args:
            shape: of a field of tiles: (1, height, width).
        """
        height, width = (side // self.tiles for side in shape[1:])
        row, column = divmod(self.home, self.tiles)
        own = torch.zeros(shape[1:], dtype=torch.bool)
        own[row * height : (row + 1) * height, column * width : (column + 1) * width] = True
        return own.flatten()


def _learn(trial: HiddenDigits, folder: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    torch.set_num_threads(1)  # others beside it then hardly disturb what it takes
    execution = "masked" if isinstance(trial.method, regrow.Dense) else "csr"
    run = Run(folder, {**options, "execution": execution})
    source = trial.open(trial, run)
    small = replace(trial, model=_WARM_UP, narrow=1.0, epochs=2)
    _train(small, Run(folder, run.options, writes=False), source)
    trainer, cost = measured(partial(_train, trial, run, source), fresh=True)
    found = {
        "accuracy": accuracy(trainer, source.test()),
        "weights": sum(p.numel() for p in trainer.model.parameters()),
        **cost,
    }
    if isinstance(trial.method, regrow.Dense):
        return found
    pixels = next(iter(trainer.sparse.masks.values())).sum(0)
    share = float(pixels[trial.of_digit(source.shape)].sum() / pixels.sum())
    return {**found, "pixels": pixels.tolist(), "digit_share": share}


def _train(trial: HiddenDigits, run: Run, source: LabelledSource) -> Classifier:
    trainer = start(trial, trial, run, source)
    for group in trainer.optimizer.param_groups:  # the dense network at its fastest and smallest
        group["fused"] = True
    while trainer.epoch < trial.epochs:
        metrics = trainer.run_epoch(tell=run.tell)
        run.log(epoch=trainer.epoch, **metrics)
    return trainer
