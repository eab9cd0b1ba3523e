"""A data set in which every image is corrupted, for training and for testing."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from regrow.engine.selection import seeded_generator
from regrow.vision.corruptions import CORRUPTIONS, corrupt
from regrow.vision.data import DataSet

__all__ = ["OneOfEach"]

_PARTS = ("train", "test")


@dataclass(frozen=True)
class OneOfEach:
    """Corrupt each image by one of the 15 corruptions, drawn at random, once and for all.

    The draw depends on the part, the image's index and nothing else: all trials, whatever their
    seed, learn and are tested on the same images, as on a published set. Training images do not
    change from epoch to epoch.

    Args:
        severity: of every corruption, from 1 to 5.
    """

    severity: int

    def __call__(self, data: DataSet, device: torch.device) -> DataSet:
        """Return the data set corrupted, its images on the device."""
        train, test = (
            self._corrupted(inputs.to(device), part)
            for inputs, part in zip((data.train_inputs, data.test_inputs), _PARTS, strict=True)
        )
        return replace(data, train_inputs=train, test_inputs=test)

    def _corrupted(self, images: Tensor, part: str) -> Tensor:
        if images.ndim != 4:
            raise ValueError(
                f"severity={self.severity}: corruptions are of images, and these are "
                f"features of shape {tuple(images.shape[1:])}"
            )
        generator = seeded_generator("corruption", part)
        drawn = torch.randint(len(CORRUPTIONS), (len(images),), generator=generator)
        changed = torch.empty_like(images)
        for number, name in enumerate(CORRUPTIONS):
            here = (drawn == number).nonzero().squeeze(1).to(images.device)
            changed[here] = corrupt(images[here], name, self.severity, seed=_PARTS.index(part))
        return changed
