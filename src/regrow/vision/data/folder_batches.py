"""Mini-batches of images and clips that do not fit into memory."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from regrow.data.order import Order
from regrow.training.batch import Batch
from regrow.vision.data.batches import Augment, augmented

__all__ = ["FolderBatches", "Samples"]

Loader = DataLoader[tuple[Tensor, int]]


class Samples(Protocol):
    """Samples that are read one by one, such as an :class:`ImageFolder` or :class:`UCF101`."""

    def __len__(self) -> int:
        """Return how many there are."""

    def read(self, index: int, epoch: int) -> tuple[Tensor, int]:
        """Return a sample as it is in an epoch, and its label."""


class FolderBatches:
    """Mini-batches of images or clips, read by worker processes; otherwise as :class:`Batches`.

    Args:
        folder: the images or clips.
        size: of a batch, all ranks together; a multiple of ``ranks``.
        seed: another one, another order.
        augment: changes a batch: takes it and a generator.
        rank: which process this is, counted from 0.
        ranks: how many processes train one model.
        drop_last: leave out a last batch that is smaller than ``size``; else up to ranks - 1
            samples of it are left out, so that all ranks have equally many.
        workers: how many processes read; 0: this one does. What is read does not depend on
            it.
        pin_memory: put batches where a GPU can fetch them by itself.

    Raises:
        ValueError: an argument is out of range, or there is no batch.
    """

    def __init__(
        self,
        folder: Samples,
        size: int,
        *,
        seed: int,
        augment: Augment | None = None,
        rank: int = 0,
        ranks: int = 1,
        drop_last: bool = True,
        workers: int = 4,
        pin_memory: bool = False,
    ) -> None:
        if workers < 0:
            raise ValueError(f"workers={workers}: must be at least 0")
        self.folder, self.augment = folder, augment
        self.workers, self.pin_memory = workers, pin_memory
        self.order = Order(len(folder), size, seed, rank, ranks, drop_last)

    def __len__(self) -> int:
        """Return how many batches an epoch has."""
        return len(self.order)

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield batches of this rank: images or clips (uint8), labels (int64), their ids.

        Args:
            number: of the epoch, at least 0; no earlier one need have been asked for.

        Raises:
            ValueError: the number is negative; later on, a file is damaged.
        """
        ids = list(self.order.epoch(number))
        loader = DataLoader(
            _Epoch(self.folder, number),
            batch_sampler=[index.tolist() for index in ids],
            num_workers=self.workers,
            pin_memory=self.pin_memory,
            generator=torch.Generator(),  # else it would draw from torch's own
        )
        return self._batches(loader, number, ids)

    def _batches(self, loader: Loader, epoch: int, ids: list[Tensor]) -> Iterator[Batch]:
        try:
            for step, (images, labels) in enumerate(loader):
                changed = augmented(images, self.augment, self.order, epoch, step)
                yield Batch(changed, labels, ids[step])
        except Exception as error:
            # Else the error keeps the workers, until some collection tears them down in any order.
            traceback.clear_frames(error.__traceback__)
            raise


class _Epoch(Dataset[tuple[Tensor, int]]):
    """The samples as they are in one epoch."""

    def __init__(self, folder: Samples, number: int) -> None:
        self.folder, self.number = folder, number

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.folder.read(index, self.number)
