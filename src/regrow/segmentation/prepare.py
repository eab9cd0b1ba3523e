"""Prepares volumes for a network, and brings predictions back to the grid of the input.

The order is nnU-Net's: axes, cropping to nonzero voxels, normalisation, resampling. Depth becomes
the axis of the coarsest voxels (nnU-Net's ``transpose_forward``), along which E2ENet shifts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.reading import LIMIT, allowed_size, refused
from regrow.segmentation.cases import Volume
from regrow.segmentation.grids import Grid
from regrow.segmentation.normalise import normalise
from regrow.segmentation.planning import Box, Preparation, nonzero
from regrow.segmentation.resample import (
    coarse_axis,
    resample_image,
    resample_labels,
    resampled_shape,
)

__all__ = ["Prepared", "prepare", "restore", "restore_scores"]

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Prepared:
    """A case as a network sees it, and what leads back.

    Args:
        name: of the case.
        image: float32, (channels, depth, height, width).
        labels: (depth, height, width), or None.
        grid: of the file.
        box: of nonzero voxels, along the plan's axes.
        spacing: before resampling, along the plan's axes, in mm.
    """

    name: str
    image: npt.NDArray[np.float32]
    labels: Array | None
    grid: Grid
    box: Box
    spacing: tuple[float, ...]

    @property
    def cropped(self) -> tuple[int, ...]:
        """Sides after cropping, before resampling."""
        return tuple(side.stop - side.start for side in self.box)


def prepare(volume: Volume, plan: Preparation) -> Prepared:
    """Bring a volume into the shape in which networks are trained.

    Args:
        volume: the case.
        plan: of the data set.

    Raises:
        UnreadableError: all voxels are zero, or it would take far more room than it does.
    """
    image = volume.image.transpose(0, *(axis + 1 for axis in plan.axes))
    labels = None if volume.labels is None else volume.labels.transpose(plan.axes)
    spacing = tuple(volume.grid.spacing[axis] for axis in plan.axes)
    mask, box = nonzero(volume.name, image)
    image = normalise(image[:, *box], plan.channels, mask[box] if plan.masked else None)
    shape = resampled_shape(image.shape[1:], spacing, plan.spacing)
    _check_room(volume, shape, spacing, plan)
    coarse = coarse_axis(spacing, plan.spacing)
    image = np.ascontiguousarray(resample_image(image, shape, coarse))
    if labels is not None:
        labels = np.ascontiguousarray(resample_labels(labels[box], shape, coarse))
    return Prepared(volume.name, image, labels, volume.grid, box, spacing)


def _check_room(
    volume: Volume, shape: Sequence[int], spacing: Sequence[float], plan: Preparation
) -> None:
    """Refuse a case that would take far more room: its file may say that a voxel is a kilometre."""
    size = math.prod(shape) * volume.image.itemsize * len(volume.image)
    if size > allowed_size(volume.image.nbytes):
        said = (
            f"has voxels of {_sides(spacing)} mm: at the set's {_sides(plan.spacing)} mm it would "
            f"be {_sides(shape)}"
        )
        fix = f"mend its affine, or set {LIMIT}={size} or more in the environment"
        raise refused(f"case {volume.name}", said, fix)


def _sides(of: Sequence[float]) -> str:
    return "×".join(f"{side:.6g}" for side in of)


def restore(labels: Array, prepared: Prepared, plan: Preparation) -> Array:
    """Bring predicted labels to the grid of the input file; what was cropped is background.

    Args:
        labels: (depth, height, width) as prepared.
        prepared: what was predicted from.
        plan: that it was prepared by.

    Returns:
        (depth, height, width) as read, for :func:`regrow.segmentation.volumes.write_volume`.
    """
    coarse = coarse_axis(plan.spacing, prepared.spacing)
    return _whole(resample_labels(labels, prepared.cropped, coarse), prepared, plan)


def restore_scores(scores: Iterable[Array], prepared: Prepared, plan: Preparation) -> Array:
    """Bring predicted scores to the grid of the input file, and let the highest one win there.

    Scores of classes are resampled linearly one by one: finer than resampling of labels.

    Args:
        scores: of each class, (depth, height, width) as prepared.
        prepared: what was predicted from.
        plan: that it was prepared by.

    Returns:
        Classes, (depth, height, width) as read.
    """
    coarse = coarse_axis(plan.spacing, prepared.spacing)
    best = np.full(prepared.cropped, -np.inf, np.float32)
    classes = np.zeros(prepared.cropped, np.int16)
    for index, score in enumerate(scores):
        (own,) = resample_image(np.asarray(score)[None], prepared.cropped, coarse, order=1)
        classes[own > best] = index
        np.maximum(best, own, out=best)
    return _whole(classes, prepared, plan)


def _whole(cropped: Array, prepared: Prepared, plan: Preparation) -> Array:
    shape = tuple(prepared.grid.shape[axis] for axis in plan.axes)
    whole = np.zeros(shape, cropped.dtype)
    whole[prepared.box] = cropped
    return whole.transpose(np.argsort(plan.axes))
