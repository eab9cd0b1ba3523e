"""Decides how the volumes of a data set are prepared, by facts of its training cases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.machine import needed
from regrow.reading import refused
from regrow.segmentation.cases import Volume
from regrow.segmentation.normalise import Normalisation, channel_of, foreground_channel

__all__ = ["Box", "Facts", "Preparation", "facts_of", "nonzero", "plan_of"]

Array = npt.NDArray[Any]
Box = tuple[slice, slice, slice]

_ANISOTROPIC = 3.0
_CROPPED = 0.75  # z-scores are of nonzero voxels only, if volumes shrink below this


@dataclass(frozen=True, eq=False)
class Facts:
    """What a plan needs to know of a case.

    Args:
        name: of the case.
        shape: after cropping: (depth, height, width).
        spacing: along these, in mm.
        kept: fraction of voxels that cropping leaves.
        values: of the labels that occur.
        foreground: intensities of labelled voxels, a sample, (channels, voxels).
    """

    name: str
    shape: tuple[int, ...]
    spacing: tuple[float, float, float]
    kept: float
    values: frozenset[int]
    foreground: Array


@dataclass(frozen=True)
class Preparation:
    """How all volumes of a data set are prepared.

    Args:
        axes: which of (depth, height, width) as read become depth, height and width.
        spacing: of prepared voxels, along the new axes, in mm.
        channels: how each is normalised.
        masked: z-scores are of nonzero voxels only.

    Raises:
        ValueError: axes are none, or a spacing is not above 0.
    """

    axes: tuple[int, int, int]
    spacing: tuple[float, float, float]
    channels: tuple[Normalisation, ...]
    masked: bool = False

    def __post_init__(self) -> None:
        if sorted(self.axes) != [0, 1, 2]:
            raise ValueError(f"axes={self.axes}: must be 0, 1, 2 in some order")
        if len(self.spacing) != 3 or not all(0 < side < math.inf for side in self.spacing):
            raise ValueError(f"spacing={self.spacing}: must be three numbers above 0")


def facts_of(volume: Volume, drawn: int = 0, ignore: int | None = None) -> Facts:
    """Return what a plan needs to know of a case.

    Args:
        volume: the case.
        drawn: intensities of the foreground, which CT is normalised by; as many of each case, so
            that large ones do not outweigh small ones.
        ignore: a label that is no foreground.

    Raises:
        UnreadableError: all voxels are zero.
    """
    mask, box = nonzero(volume.name, volume.image)
    labels = np.zeros(mask.shape, np.int8) if volume.labels is None else volume.labels
    foreground = volume.image[:, (labels > 0) & (labels != ignore)]
    count = foreground.shape[1]
    taken = np.random.default_rng(1234).integers(max(count, 1), size=drawn if count else 0)
    cropped = mask[box].shape
    kept = mask[box].size / mask.size
    values = frozenset(int(value) for value in np.unique(labels))
    return Facts(volume.name, cropped, volume.grid.spacing, kept, values, foreground[:, taken])


def plan_of(facts: Sequence[Facts], channels: Sequence[str]) -> Preparation:
    """Decide how volumes are prepared, from the training cases, as nnU-Net does.

    The spacing is the median; along an axis of more than three times the spacing of the others,
    and less than a third of their voxels, it is the 10 % quantile.

    Args:
        facts: of training cases.
        channels: names, of which "CT" decides.

    Raises:
        ValueError: there are no cases, or CT without any foreground.

    Source: Isensee et al. 2021 (nnU-Net), supplement 2.
    """
    if not facts:
        raise ValueError("facts: there is no case to plan with; see why cases were left out")
    spacing = _spacing(facts)
    coarsest = int(np.argmax(spacing))
    axes = (coarsest, *(axis for axis in range(3) if axis != coarsest))
    schemes = tuple(
        foreground_channel(name, [f.foreground[index] for f in facts])
        if channel_of(name) == "ct"
        else Normalisation(channel_of(name))
        for index, name in enumerate(channels)
    )
    masked = float(np.median([f.kept for f in facts])) < _CROPPED
    d, h, w = (float(spacing[axis]) for axis in axes)
    return Preparation((axes[0], axes[1], axes[2]), (d, h, w), schemes, masked)


def _spacing(facts: Sequence[Facts]) -> Array:
    spacings = np.array([f.spacing for f in facts])
    spacing: Array
    spacing, shape = np.median(spacings, 0), np.median([f.shape for f in facts], 0)
    coarsest = int(np.argmax(spacing))
    others = [axis for axis in range(3) if axis != coarsest]
    widest = max(spacing[others])
    if (
        spacing[coarsest] > _ANISOTROPIC * widest
        and shape[coarsest] * _ANISOTROPIC < shape[others].min()
    ):
        # No finer than the others: it stays the coarsest axis.
        spacing[coarsest] = max(np.percentile(spacings[:, coarsest], 10), widest + 1e-5)
    return spacing


def nonzero(name: str, image: Array) -> tuple[npt.NDArray[np.bool_], Box]:
    """Return where any channel is not zero, holes filled, and the box around it.

    Args:
        name: of the case, for the error.
        image: (channels, depth, height, width).

    Raises:
        UnreadableError: all voxels are zero.
    """
    with needed("scipy", "segmentation"):
        from scipy.ndimage import binary_fill_holes, find_objects  # noqa: PLC0415 optional
    mask = binary_fill_holes((image != 0).any(0))
    boxes = find_objects(mask.astype(np.uint8))
    if not boxes:
        raise refused(f"case {name}", "has only zero voxels", "look at its image, or leave it out")
    return mask, boxes[0]
