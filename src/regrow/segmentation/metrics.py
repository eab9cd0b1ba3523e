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
from regrow.segmentation.surfaces import hausdorff, surface_dice, surface_distances

__all__ = [
    "Lesions",
    "Scores",
    "dice",
    "lesions",
    "mean_of",
    "scores_of",
]

Mask = npt.NDArray[np.bool_]


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
    _check(prediction, truth)
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
