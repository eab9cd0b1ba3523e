"""Cases as networks see them, what is cut out of them, and where their classes lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional

from regrow.segmentation.segmenter import Sides

__all__ = ["Sample", "around", "crop", "label_of", "places_of_classes"]

_REMEMBERED = 10_000  # voxels of a class and volume that patches are centred on


@dataclass(frozen=True, eq=False)
class Sample:
    """A case as networks see it.

    Args:
        name: of the case.
        image: float32, shape (channels, depth, height, width), normalised.
        label: classes, whole numbers from 0 (background) on, shape (depth, height, width); voxels
            of -1 do not count; None: unknown.
        places: of :func:`places_of_classes`; None: they are found when they are needed.
    """

    name: str
    image: Tensor
    label: Tensor | None = None
    places: Sequence[Tensor] | None = None


def crop(volume: Tensor, begin: Sides, size: Sides) -> Tensor:
    """Cut a box out of the last three axes; what lies outside the volume is zero.

    Args:
        volume: shape (..., depth, height, width).
        begin: the box's first voxel, which may be negative.
        size: of the box.

    Example:
        >>> import torch
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


def around(label: Tensor, most: Sides) -> tuple[Sides, Sides]:
    """Return begin and size of a box in the middle of what is labelled; it lies inside the volume.

    Args:
        label: classes, shape (depth, height, width); 0 and below are not labelled.
        most: sides of the box at most.

    Example:
        >>> import torch
        >>> label = torch.zeros(9, 3, 9)
        >>> label[6, :, 3:5] = 1
        >>> around(label, (4, 4, 4))
        ((4, 0, 2), (4, 3, 4))
    """
    labelled = label > 0
    begins, sizes = [], []
    for axis, (side, limit) in enumerate(zip(label.shape, most, strict=True)):
        others = [other for other in range(3) if other != axis]
        there = labelled.any(others[1]).any(others[0]).nonzero()
        middle = (int(there.min()) + int(there.max()) + 1) // 2 if len(there) else side // 2
        sizes.append(min(side, limit))
        begins.append(min(max(middle - limit // 2, 0), side - sizes[-1]))
    return (begins[0], begins[1], begins[2]), (sizes[0], sizes[1], sizes[2])


def label_of(case: Sample) -> Tensor:
    """Return the label of a case to train on.

    Raises:
        ValueError: it has none, or one of another shape than its image; the message names it.
    """
    label = case.label
    if label is None:
        raise ValueError(f"case {case.name}: it has no label, and cannot be trained on")
    if label.shape != case.image.shape[1:]:
        raise ValueError(
            f"case {case.name}: its image has {tuple(case.image.shape[1:])} voxels and its label "
            f"{tuple(label.shape)}: they must be of one shape"
        )
    return label


def places_of_classes(label: Tensor) -> list[Tensor]:
    """Return voxels of each class but the background by flat index, of a large class every so many.

    Args:
        label: classes, of any shape; what is below 0 does not count.

    Example:
        >>> import torch
        >>> [places.tolist() for places in places_of_classes(torch.tensor([[0, 3], [1, 3]]))]
        [[2], [1, 3]]
    """
    flat = label.flatten()
    found = [(flat == c).nonzero().squeeze(1) for c in range(1, int(flat.max()) + 1)]
    return [voxels[:: -(-len(voxels) // _REMEMBERED)] for voxels in found if len(voxels)]
