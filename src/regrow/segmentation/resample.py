"""Resamples volumes to another number of voxels: images by splines, labels class by class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.machine import needed

__all__ = ["coarse_axis", "resample_image", "resample_labels", "resampled_shape"]

Array = npt.NDArray[Any]
Shape = tuple[int, ...]

_ANISOTROPIC = 3.0  # the ratio of spacings from which slices are resampled one by one


def resampled_shape(
    shape: Sequence[int], spacing: Sequence[float], wanted: Sequence[float]
) -> tuple[int, int, int]:
    """Return how many voxels of another spacing fill a volume, 1 at least.

    n' = round(n · spacing / wanted).

    Args:
        shape: voxels along each axis.
        spacing: of them, in mm.
        wanted: spacing of the others, in mm.

    Example:
        >>> resampled_shape((10, 64, 64), (5.0, 1.0, 1.0), (2.5, 2.0, 1.0))
        (20, 32, 64)
    """
    d, h, w = (
        max(1, round(old / new * side))
        for side, old, new in zip(shape, spacing, wanted, strict=True)
    )
    return d, h, w


def coarse_axis(spacing: Sequence[float], wanted: Sequence[float]) -> int | None:
    """Return the axis whose slices are resampled one by one, or None.

    It is the coarsest one, where its spacing is more than three times the finest, now or then. Two
    equally coarse axes are none.

    Example:
        >>> coarse_axis((5.0, 1.0, 1.0), (1.0, 1.0, 1.0)), coarse_axis((1.5, 1.0, 1.0), (1.0,) * 3)
        (0, None)
    """
    for sides in (spacing, wanted):
        if max(sides) / min(sides) > _ANISOTROPIC:
            coarsest = [axis for axis, side in enumerate(sides) if side == max(sides)]
            return coarsest[0] if len(coarsest) == 1 else None
    return None


def resample_image(
    image: Array, shape: Sequence[int], coarse: int | None = None, order: int = 3
) -> npt.NDArray[np.float32]:
    """Resample channels by splines; where slices are far apart, the nearest slice is taken.

    Centres of voxels keep their places, borders are repeated, and no value leaves the range of its
    channel (of its slice, if slices are resampled one by one), as in nnU-Net, nor is there a
    filter before voxels are left out.

    Args:
        image: (channels, depth, height, width).
        shape: to resample to.
        coarse: of :func:`coarse_axis`.
        order: of the splines: 3 for images, 1 for scores of classes.

    Source: Isensee et al. 2021 (nnU-Net), supplement 4: resampling.
    """
    return np.stack([_resampled(channel, tuple(shape), coarse, order) for channel in image])


def resample_labels(labels: Array, shape: Sequence[int], coarse: int | None = None) -> Array:
    """Resample labels: each value's mask linearly, and the largest share wins.

    Of equal shares that of the nearest voxel wins.

    Args:
        labels: (depth, height, width).
        shape: to resample to.
        coarse: of :func:`coarse_axis`.

    Source: nnU-Net v2 with batchgenerators 0.25.5. Earlier ones left background where no share
    reached one half, which is where three labels meet.

    Example:
        >>> resample_labels(np.array([[[0, 1, 2, 2]]]), (1, 1, 8)).tolist()
        [[[0, 0, 1, 1, 2, 2, 2, 2]]]
    """
    shape = tuple(shape)
    if labels.shape == shape:
        return labels
    values = np.unique(labels)
    places = np.searchsorted(values, labels)
    nearest = _resampled(places.astype(np.float32), shape, coarse, 0)
    best = np.full(shape, -1, np.float32)
    winner = np.zeros(shape, labels.dtype)
    for place, value in enumerate(values):
        # Equal shares differ by rounding.
        share = _resampled((labels == value).astype(np.float32), shape, coarse, 1)
        share = share + 1e-5 * (nearest == place)
        wins = share > best
        best[wins], winner[wins] = share[wins], value
    return winner


def _resampled(volume: Array, shape: Shape, coarse: int | None, order: int) -> Array:
    if volume.shape == shape:
        return volume.astype(np.float32, copy=False)
    if coarse is None:
        return _zoomed(volume, shape, order)
    slices = np.moveaxis(volume, coarse, 0)
    count = shape[coarse]
    flat = shape[:coarse] + shape[coarse + 1 :]
    # The slice that the centre of each new one lies in.
    nearest = np.floor((np.arange(count) + 0.5) * len(slices) / count).astype(int)
    made = {index: _zoomed(slices[index], flat, order) for index in np.unique(nearest)}
    return np.moveaxis(np.stack([made[index] for index in nearest]), 0, coarse)


def _zoomed(values: Array, shape: Shape, order: int) -> Array:
    if values.shape == shape:
        return values.astype(np.float32, copy=False)
    low, high = values.min(), values.max()
    if low == high:  # as most slices of a class's mask are
        return np.full(shape, low, np.float32)
    with needed("scipy", "segmentation"):
        from scipy.ndimage import zoom  # noqa: PLC0415 optional
    factors = [new / old for new, old in zip(shape, values.shape, strict=True)]
    zoomed: Array = zoom(values, factors, np.float32, order=order, mode="nearest", grid_mode=True)
    return zoomed.clip(low, high)
