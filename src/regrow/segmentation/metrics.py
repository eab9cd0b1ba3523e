"""Says how well labels were predicted: Dice, distances of surfaces, lesions found and missed.

Where a class is in neither prediction nor truth, a figure is NaN, and means leave it out, as in
nnU-Net and MONAI. Where it is in one of them only, Dice and surface Dice are 0 and the Hausdorff
distance is infinite.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.machine import needed

__all__ = [
    "Lesions",
    "Scores",
    "dice",
    "hausdorff",
    "lesions",
    "mean_of",
    "scores_of",
    "surface_dice",
    "surface_distances",
]

Mask = npt.NDArray[np.bool_]
Distances = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]


@dataclass(frozen=True)
class Lesions:
    """Lesions counted whole, connected components of a mask.

    Args:
        found: lesions of the truth that the prediction meets.
        missed: lesions of the truth that it does not.
        false: lesions of the prediction that meet none.
    """

    found: int
    missed: int
    false: int

    @property
    def f1(self) -> float:
        """2 found / (2 found + missed + false); NaN if there are no lesions at all."""
        all_of = 2 * self.found + self.missed + self.false
        return 2 * self.found / all_of if all_of else np.nan


@dataclass(frozen=True)
class Scores:
    """All figures of one class or region in one case.

    Args:
        dice: of the voxels, 0 to 1.
        surface_dice: of the surfaces, at the tolerance, 0 to 1.
        hausdorff95: 95 % distance of the surfaces, in mm.
        lesions: counted whole.
    """

    dice: float
    surface_dice: float
    hausdorff95: float
    lesions: Lesions


def scores_of(
    prediction: npt.NDArray[Any],
    truth: npt.NDArray[Any],
    classes: Mapping[str, Sequence[int]],
    spacing: Sequence[float],
    *,
    tolerance: float = 1.0,
    ignore: int | None = None,
) -> dict[str, Scores]:
    """Return all figures of each class or region of one case.

    Args:
        prediction: labels, (depth, height, width).
        truth: labels, of the same shape.
        classes: name to the values that it consists of.
        spacing: along the axes, in mm.
        tolerance: of surface Dice, in mm.
        ignore: voxels of this value of the truth do not count.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> truth = np.zeros((4, 8, 8), int)
        >>> truth[1:3, 2:6, 2:6] = 1
        >>> scores = scores_of(np.roll(truth, 1, 2), truth, {"liver": [1]}, (3.0, 1.0, 1.0))
        >>> scores["liver"].dice, scores["liver"].hausdorff95
        (0.75, 1.0)
    """
    counted = np.ones(truth.shape, bool) if ignore is None else truth != ignore
    scores = {}
    for name, values in classes.items():
        said, true = (np.isin(labels, list(values)) & counted for labels in (prediction, truth))
        distances = surface_distances(said, true, spacing)
        scores[name] = Scores(
            dice(said, true),
            surface_dice(distances, tolerance),
            hausdorff(distances),
            lesions(said, true),
        )
    return scores


def mean_of(figures: Iterable[float]) -> float:
    """Return the mean of what is not NaN; NaN if nothing is.

    Example:
        >>> mean_of([0.5, float("nan"), 1.0])
        0.75
    """
    there = [figure for figure in figures if not np.isnan(figure)]
    return float(np.mean(there)) if there else np.nan


def dice(prediction: Mask, truth: Mask) -> float:
    """Return 2 |P ∩ T| / (|P| + |T|); NaN if both are empty.

    Args:
        prediction: P.
        truth: T, of the same shape.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> dice(np.array([True, True, False]), np.array([True, False, False]))
        0.6666666666666666
    """
    _check(prediction, truth)
    both = int(prediction.sum()) + int(truth.sum())
    return 2 * int((prediction & truth).sum()) / both if both else np.nan


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
    _check(prediction, truth)
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
    near = sum(int((of <= tolerance).sum()) for of in distances)
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


def lesions(prediction: Mask, truth: Mask) -> Lesions:
    """Count lesions found, missed, and predicted where there is none.

    A lesion is what hangs together across faces, edges or corners (26 neighbours). It is found if
    at least one of its voxels is predicted.

    Args:
        prediction: (depth, height, width).
        truth: of the same shape.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> truth, said = np.array([[[1, 0, 1, 0, 0]]]) > 0, np.array([[[1, 0, 0, 0, 1]]]) > 0
        >>> lesions(said, truth)
        Lesions(found=1, missed=1, false=1)
    """
    _check(prediction, truth)
    said, said_count = _components(prediction)
    true, true_count = _components(truth)
    met = prediction & truth
    found, right = len(np.unique(true[met])), len(np.unique(said[met]))
    return Lesions(found, true_count - found, said_count - right)


def _components(mask: Mask) -> tuple[npt.NDArray[Any], int]:
    with needed("scipy", "segmentation"):
        from scipy.ndimage import label  # noqa: PLC0415 optional
    numbered, count = label(mask, np.ones((3,) * mask.ndim))
    return numbered, int(count)


def _check(prediction: Mask, truth: Mask) -> None:
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction: of shape {prediction.shape}, the truth of {truth.shape}")


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
