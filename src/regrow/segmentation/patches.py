"""Patches of volumes to train on: how large they are, and which are drawn."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from regrow.engine.selection import seeded_generator
from regrow.segmentation.augment import Augmentation, Change
from regrow.segmentation.segmenter import Sides
from regrow.training.batch import Batch

__all__ = ["PatchBatches", "Sample", "crop", "patch_rule", "strides_rule"]

_LARGEST = 128**3  # voxels of a patch
_LEAST = 4  # voxels along an axis at the lowest level
_RESIDENT = 2**30  # bytes of cases that a GPU may hold
_REMEMBERED = 10_000  # voxels of a class and volume that patches are centred on


@dataclass(frozen=True, eq=False)
class Sample:
    """A case as networks see it.

    Args:
        name: of the case.
        image: float32, shape (channels, depth, height, width), normalised.
        label: classes, whole numbers from 0 (background) on, shape (depth, height, width); voxels
            of -1 do not count; None: unknown.
    """

    name: str
    image: Tensor
    label: Tensor | None = None


def patch_rule(
    shape: Sequence[int], spacing: Sequence[float] = (1.0, 1.0, 1.0), largest: int = _LARGEST
) -> tuple[Sides, tuple[Sides, ...]]:
    """Return the sides of patches for volumes of a shape, and a network's strides for them.

    A patch begins as a cube in space, of 8 times as many voxels, cut to the volume's sides. An axis
    is halved from level to level as long as it keeps 4 voxels and its spacing is below twice the
    finest; the patch is rounded up to what that divides. While it has too many voxels, the side
    that is longest beside the volume's shrinks.

    Args:
        shape: the median of the volumes' sides, in voxels.
        spacing: between voxels, in mm.
        largest: voxels of a patch at most.

    Returns:
        The patch, and a stride for each step to a lower level.

    Source: nnU-Net v2, ``get_pool_and_conv_props`` and ``ExperimentPlanner``.

    Differs from nnU-Net: the bound is a number of voxels, not an estimate of memory.

    Example:
        >>> patch_rule((36, 50, 35))
        ((40, 56, 40), ((2, 2, 2), (2, 2, 2), (2, 2, 2)))
        >>> patch_rule((60, 512, 512), (5.0, 0.8, 0.8))[0]
        (32, 256, 256)
    """
    edge = (8 * largest * math.prod(spacing)) ** (1 / 3)  # in mm
    sides = [min(round(edge / mm), int(side)) for mm, side in zip(spacing, shape, strict=True)]
    while True:
        strides = strides_rule(sides, spacing)
        divisors = [math.prod(stride[axis] for stride in strides) for axis in range(3)]
        patch = [-(-side // by) * by for side, by in zip(sides, divisors, strict=True)]
        if math.prod(patch) <= largest:
            return _three(patch), strides
        ratios = [p / s if p > b else 0.0 for p, s, b in zip(patch, shape, divisors, strict=True)]
        axis = max(range(3), key=lambda a: ratios[a])
        sides = list(patch)
        sides[axis] -= divisors[axis] if patch[axis] > divisors[axis] else 1


def strides_rule(sides: Sequence[int], spacing: Sequence[float]) -> tuple[Sides, ...]:
    """Return a network's strides for patches of given sides; see :func:`patch_rule`.

    Example:
        >>> strides_rule((16, 64, 64), (4.0, 1.0, 1.0))
        ((1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2))
    """
    sizes, apart = list(sides), list(spacing)
    strides: list[Sides] = []
    while True:
        valid = [axis for axis in range(3) if sizes[axis] >= 2 * _LEAST]
        finest = min((apart[axis] for axis in valid), default=0.0)
        valid = [axis for axis in valid if apart[axis] < 2 * finest]
        if not valid or (len(valid) == 1 and sizes[valid[0]] < 3 * _LEAST):
            return tuple(strides) or ((1, 1, 1),)
        for axis in valid:
            sizes[axis] = -(-sizes[axis] // 2)
            apart[axis] *= 2
        strides.append(_three([2 if axis in valid else 1 for axis in range(3)]))


def _three(values: Sequence[int]) -> Sides:
    return values[0], values[1], values[2]


class PatchBatches:
    """Batches of patches, drawn anew in every epoch, for :class:`regrow.training.Trainer`.

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
        self._regions = None if regions is None else _region_table(regions).to(device)
        self._places = [_places_of_classes(case) for case in cases]

    def __len__(self) -> int:
        return self.batches

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield the batches of an epoch, on the device.

        Targets are int64 classes, shape (n, depth, height, width), or int8 regions, shape (n,
        regions, depth, height, width), of 0, 1 and -1.
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
        size = _three([side + 2 * more for side, more in zip(self.patch, room, strict=True)])
        images, labels = [], []
        for case, start in zip(ids, starts, strict=True):
            begin = _three([s - more for s, more in zip(start, room, strict=True)])
            images.append(crop(self.cases[case].image, begin, size))
            labels.append(crop(_label(self.cases[case]), begin, size))
        tensors = torch.stack(images), torch.stack(labels), torch.tensor(ids)
        if self.device.type == "cuda" and not images[0].is_cuda:
            tensors = tensors[0].pin_memory(), tensors[1].pin_memory(), tensors[2]
        return _Cut(*tensors, changes)

    def _finished(self, cut: _Cut) -> Batch:
        image = cut.images.to(self.device, non_blocking=True)
        label = cut.labels.to(self.device, non_blocking=True)
        if self.augmentation is not None:
            image, label = self.augmentation.apply(image, label, cut.changes, self.patch)
        label = label.long()
        if self._regions is not None:  # a class of -1 is the table's last column
            label = self._regions[:, label].movedim(0, 1)
        return Batch(image, label, cut.ids)

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
        return _three([min(max(s, lo), hi) for s, lo, hi in zip(start, lows, highs, strict=True)])


@dataclass(frozen=True)
class _Cut:
    images: Tensor
    labels: Tensor
    ids: Tensor
    changes: list[Change]


def crop(volume: Tensor, begin: Sides, size: Sides) -> Tensor:
    """Cut a box out of the last three axes; what lies outside the volume is zero.

    Args:
        volume: shape (..., depth, height, width).
        begin: the box's first voxel, which may be negative.
        size: of the box.

    Example:
        >>> crop(torch.ones(2, 2, 2), (-1, 0, 1), (2, 2, 2)).tolist()
        [[[0.0, 0.0], [0.0, 0.0]], [[1.0, 0.0], [1.0, 0.0]]]
    """
    inside: list[Any] = [...]
    missing: list[int] = []
    for start, length, side in zip(begin, size, volume.shape[-3:], strict=True):
        first, last = min(max(start, 0), side), min(max(start + length, 0), side)
        inside.append(slice(first, last))
        before = min(max(-start, 0), length)
        missing = [before, length - before - (last - first), *missing]
    part = volume[tuple(inside)]
    return functional.pad(part, missing) if any(missing) else part


def _region_table(regions: Sequence[Sequence[int]]) -> Tensor:
    """Return whether a region has a class, shape (regions, classes + 1); -1: it does not count."""
    table = torch.zeros(len(regions), max(map(max, regions)) + 2, dtype=torch.int8)
    for row, classes in zip(table, regions, strict=True):
        row[list(classes)] = 1
    table[:, -1] = -1
    return table


def _placed(cases: Sequence[Sample], device: torch.device) -> tuple[Sample, ...]:
    """Return the cases, on the GPU if they take little of its memory; cutting is faster there."""
    size = sum(t.nbytes for case in cases for t in (case.image, case.label) if t is not None)
    if device.type != "cuda" or size > _RESIDENT:
        return tuple(cases)
    return tuple(
        Sample(
            case.name, case.image.to(device), None if case.label is None else case.label.to(device)
        )
        for case in cases
    )


def _label(case: Sample) -> Tensor:
    if case.label is None:
        raise ValueError(f"case {case.name}: it has no label, and cannot be trained on")
    return case.label


def _places_of_classes(case: Sample) -> list[Tensor]:
    """Return voxels of each class of a case by flat index, of a large class every so many."""
    label = _label(case)
    if label.shape != case.image.shape[1:]:
        raise ValueError(
            f"case {case.name}: its image has {tuple(case.image.shape[1:])} voxels and its label "
            f"{tuple(label.shape)}: they must be of one shape"
        )
    flat = label.flatten()
    classes = [c for c in flat.unique().tolist() if c > 0]
    found = [(flat == c).nonzero().squeeze(1) for c in classes]
    return [voxels[:: -(-len(voxels) // _REMEMBERED)] for voxels in found]
