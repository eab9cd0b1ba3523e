"""How far apart the surfaces of two masks are: surface Dice and Hausdorff distance, in mm."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from regrow.machine import needed

__all__ = ["hausdorff", "surface_dice", "surface_distances"]

Mask = npt.NDArray[np.bool_]
_ROUNDED = 1e-6  # of a distance

Distances = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]


def surface_distances(prediction: Mask, truth: Mask, spacing: Sequence[float]) -> Distances:
    """Return how far each surface voxel lies from the other surface.

    A surface voxel has a neighbour, across one of its faces, that is not of the mask, or is at the
    border of the volume. An axis of one slice has no surface: it is an image.

    Args:
        prediction: (depth, height, width).
        truth: of the same shape.
        spacing: along the axes, in mm.

    Returns:
        Distances of the prediction's surface and of the truth's, in mm; infinite where there is
        no other surface.

    Raises:
        ValueError: the shapes differ.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction: of shape {prediction.shape}, the truth of {truth.shape}")
    thick = [axis for axis, side in enumerate(truth.shape) if side > 1] or [0]
    sampling = [float(spacing[axis]) for axis in thick]
    shape = tuple(truth.shape[axis] for axis in thick)
    masks = _cropped(prediction.reshape(shape), truth.reshape(shape))
    said, true = (_surface(mask) for mask in masks)
    return _apart(said, true, sampling), _apart(true, said, sampling)


def surface_dice(distances: Distances, tolerance: float) -> float:
    """Return which share of both surfaces lies within a tolerance of the other (NSD).

    (|P ≤ τ| + |T ≤ τ|) / (|P| + |T|); NaN if both are empty.

    Args:
        distances: of :func:`surface_distances`.
        tolerance: τ, in mm.

    Source: Nikolov et al. 2018 (arXiv 1809.04430).

    Differs from it: surface voxels are counted, as in MONAI; there, areas of surface elements are
    summed.
    """
    total = sum(len(of) for of in distances)
    # Three voxels of 0.1 mm are 0.30000000000000004 mm apart, and lie within 0.3 mm.
    near = sum(int((of <= tolerance * (1 + _ROUNDED)).sum()) for of in distances)
    return near / total if total else np.nan


def hausdorff(distances: Distances, percent: float = 95) -> float:
    """Return the larger of two quantiles of surface distances, in mm (HD95).

    NaN if both masks are empty; infinite if one is.

    Args:
        distances: of :func:`surface_distances`.
        percent: of the quantiles, each of one surface; 100 is the Hausdorff distance.
    """
    quantiles = [_quantile(of, percent) for of in distances if len(of)]
    return max(quantiles) if quantiles else np.nan


def _cropped(one: Mask, other: Mask) -> tuple[Mask, Mask]:
    """Cut to the box around both: no surface reaches out of it."""
    with needed("scipy", "segmentation"):
        from scipy.ndimage import find_objects  # noqa: PLC0415 optional
    boxes = find_objects((one | other).astype(np.uint8))
    return (one[boxes[0]], other[boxes[0]]) if boxes else (one, other)


def _surface(mask: Mask) -> Mask:
    from scipy.ndimage import binary_erosion  # noqa: PLC0415 optional

    surface: Mask = mask & ~binary_erosion(mask)
    return surface


def _apart(surface: Mask, other: Mask, sampling: Sequence[float]) -> npt.NDArray[np.float64]:
    from scipy.ndimage import distance_transform_edt  # noqa: PLC0415 optional

    if not surface.any() or not other.any():
        return np.full(int(surface.sum()), np.inf)
    distances: npt.NDArray[np.float64] = distance_transform_edt(~other, sampling)[surface]
    return distances


def _quantile(distances: npt.NDArray[np.float64], percent: float) -> float:
    if np.isinf(distances).any():  # between which nothing can be interpolated
        return np.inf
    return float(np.percentile(distances, percent))
