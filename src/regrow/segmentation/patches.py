"""Patches of volumes to train on: which are drawn, and how they are changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from regrow.engine.selection import seeded_generator
from regrow.segmentation.augment import Augmentation, Change
from regrow.segmentation.patch_sizes import three
from regrow.segmentation.samples import Sample, crop, label_of, places_of_classes
from regrow.segmentation.segmenter import Sides
from regrow.training.batch import Batch

__all__ = ["PatchBatches", "targets_of"]

_RESIDENT = 2**30  # bytes of cases that a GPU may hold


class PatchBatches:
    """Batches of patches, drawn anew in every epoch, for :class:`regrow.training.trainer.Trainer`.

    Patch p of batch b of epoch e follows from (seed, e, b, p) alone: a run that goes on, and one on
    more ranks, draws the same patches. The case is any; the last round(foreground · batch) patches
    of a batch are centred on a voxel of a class that is drawn among those of the case.

    Args:
        cases: to draw from, all labelled; they stay where they are.
        patch: the sides of a patch; a smaller volume is padded with zeros.
        batch: patches in a batch, over all ranks.
        batches: in an epoch.
        seed: of all that is drawn.
        foreground: the share of patches centred on a class.
        augmentation: changes patches; None leaves them as they are.
        regions: the classes that each region consists of; targets are then the regions. None:
            targets are the classes.
        device: where batches are wanted, and augmented.
        rank: which process this is.
        ranks: how many train together.

    Raises:
        ValueError: an argument is out of range, or a case has no label or a label of another shape;
            the message names it.

    Source: nnU-Net (Isensee et al. 2021), patch sampling.

    Example:
        >>> from regrow.segmentation.samples import Sample
        >>> case = Sample("a", torch.zeros(1, 8, 8, 8), torch.zeros(8, 8, 8, dtype=torch.uint8))
        >>> drawn = PatchBatches([case], (4, 4, 4), batch=2, batches=1, seed=0)
        >>> next(drawn.epoch(0)).inputs.shape
        torch.Size([2, 1, 4, 4, 4])
    """

    def __init__(
        self,
        cases: Sequence[Sample],
        patch: Sides,
        *,
        batch: int = 2,
        batches: int = 250,
        seed: int,
        foreground: float = 1 / 3,
        augmentation: Augmentation | None = None,
        regions: Sequence[Sequence[int]] | None = None,
        device: torch.device | str = "cpu",
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        if not cases:
            raise ValueError("cases: none to train on")
        if min(batch, batches, *patch) < 1:
            raise ValueError(f"{batch=}, {batches=}, {patch=}: whole numbers from 1 on are needed")
        if batch % ranks:
            raise ValueError(f"batch={batch}: {ranks} ranks need a multiple of {ranks}")
        if not 0 <= foreground <= 1:
            raise ValueError(f"foreground={foreground}: must lie in 0..1")
        self.patch, self.batch, self.batches = patch, batch, batches
        self.seed, self.foreground, self.augmentation = seed, foreground, augmentation
        self.device, self.rank, self.ranks = torch.device(device), rank, ranks
        self.cases = _placed(cases, self.device)
        self.regions = regions
        labels = [label_of(case) for case in cases]
        self._places = [
            places_of_classes(label) if case.places is None else case.places
            for case, label in zip(cases, labels, strict=True)
        ]

    def __len__(self) -> int:
        return self.batches

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield the batches of an epoch, on the device.

        Targets are those of :func:`targets_of`.
        """
        if self.cases[0].image.device.type == self.device.type:
            yield from (self._finished(self._cut(number, b)) for b in range(self.batches))
            return
        with ThreadPoolExecutor(1) as thread:  # cuts the next patches while the GPU computes
            upcoming = thread.submit(self._cut, number, 0)
            for b in range(self.batches):
                cut = upcoming.result()
                if b + 1 < self.batches:
                    upcoming = thread.submit(self._cut, number, b + 1)
                yield self._finished(cut)

    def _cut(self, epoch: int, b: int) -> _Cut:
        """Draw this rank's patches of a batch and cut them, with room for being turned."""
        share = self.batch // self.ranks
        draws = [
            seeded_generator(self.seed, "patch", epoch, b, p)
            for p in range(self.rank * share, (self.rank + 1) * share)
        ]
        wanted = self.batch - round(self.foreground * self.batch)
        ids, starts = [], []
        for p, draw in enumerate(draws, self.rank * share):
            case = int(torch.randint(len(self.cases), (), generator=draw))
            ids.append(case)
            starts.append(self._start(case, draw, centred=p >= wanted))
        augmentation = self.augmentation
        changes = [augmentation.draw(draw, self.patch) for draw in draws] if augmentation else []
        room = augmentation.room(changes, self.patch) if augmentation else (0, 0, 0)
        size = three([side + 2 * more for side, more in zip(self.patch, room, strict=True)])
        images, labels = [], []
        for case, start in zip(ids, starts, strict=True):
            begin = three([s - more for s, more in zip(start, room, strict=True)])
            images.append(crop(self.cases[case].image, begin, size))
            labels.append(crop(label_of(self.cases[case]), begin, size))
        tensors = torch.stack(images), torch.stack(labels), torch.tensor(ids)
        if self.device.type == "cuda" and not images[0].is_cuda:
            tensors = tensors[0].pin_memory(), tensors[1].pin_memory(), tensors[2]
        return _Cut(*tensors, changes)

    def _finished(self, cut: _Cut) -> Batch:
        image = cut.images.to(self.device, non_blocking=True)
        label = cut.labels.to(self.device, non_blocking=True)
        if self.augmentation is not None:
            image, label = self.augmentation.apply(image, label, cut.changes, self.patch)
        return Batch(image, targets_of(label, self.regions), cut.ids)

    def _start(self, case: int, draw: torch.Generator, *, centred: bool) -> Sides:
        """Draw where a patch begins; in a smaller volume before it, so that it lies inside."""
        sides = self.cases[case].image.shape[1:]
        lows = [
            -((side - s) // 2) if side > s else 0 for s, side in zip(sides, self.patch, strict=True)
        ]
        highs = [
            low if side > s else s - side
            for low, s, side in zip(lows, sides, self.patch, strict=True)
        ]
        places = self._places[case]
        if centred and places:
            voxels = places[int(torch.randint(len(places), (), generator=draw))]
            flat = int(voxels[int(torch.randint(len(voxels), (), generator=draw))])
            centre = flat // (sides[1] * sides[2]), flat // sides[2] % sides[1], flat % sides[2]
            start = [c - side // 2 for c, side in zip(centre, self.patch, strict=True)]
        else:
            start = [
                int(torch.randint(low, high + 1, (), generator=draw))
                for low, high in zip(lows, highs, strict=True)
            ]
        return three([min(max(s, lo), hi) for s, lo, hi in zip(start, lows, highs, strict=True)])


@dataclass(frozen=True)
class _Cut:
    images: Tensor
    labels: Tensor
    ids: Tensor
    changes: list[Change]


def targets_of(label: Tensor, regions: Sequence[Sequence[int]] | None) -> Tensor:
    """Return what outputs are compared with.

    Args:
        label: classes, shape (n, depth, height, width); -1: the voxel does not count.
        regions: the classes that each region consists of; None: outputs are classes.

    Returns:
        int64 classes of the same shape, or int8 regions of 0, 1 and -1, shape (n, regions, depth,
        height, width).

    Example:
        >>> targets_of(torch.tensor([[[[0, 1, 2, -1]]]]), [[1, 2], [2]]).flatten(1).tolist()
        [[0, 1, 1, -1, 0, 0, 1, -1]]
    """
    label = label.long()
    if regions is None:
        return label
    table = torch.zeros(len(regions), max(map(max, regions)) + 2, dtype=torch.int8)
    for row, classes in zip(table, regions, strict=True):
        row[list(classes)] = 1
    table[:, -1] = -1  # a class of -1 is the last column
    return table.to(label.device)[:, label].movedim(0, 1)


def _placed(cases: Sequence[Sample], device: torch.device) -> tuple[Sample, ...]:
    """Return the cases, on the GPU if they take little of its memory; cutting is faster there."""
    size = sum(case.image.nbytes + label_of(case).nbytes for case in cases)
    if device.type != "cuda" or size > _RESIDENT:
        return tuple(cases)
    return tuple(
        replace(case, image=case.image.to(device), label=label_of(case).to(device))
        for case in cases
    )
