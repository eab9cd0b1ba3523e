"""How well a mask finds the foreground, whatever its scale."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["auc", "best_iou"]

_Numbers = npt.NDArray[np.floating[Any]]
_Truth = npt.NDArray[np.bool_]


def auc(mask: _Numbers, truth: _Truth) -> float:
    """Return how often a pixel of the foreground has a higher value than one of the background.

    The area under the curve of the receiver operating characteristic; equal values count a half.

    Args:
        mask: of any shape and scale.
        truth: where the foreground is, of the same shape.

    Returns:
        0..1; 0.5 is chance.

    Raises:
        ValueError: shapes differ, a value is not finite, or there is but foreground or background.

    Example:
        >>> auc(np.array([0.1, 0.2, 0.3, 0.3]), np.array([False, True, False, True]))
        0.625
    """
    _, found, all_found = _counts(mask, truth)
    missed = all_found - found
    hits, falses = np.append(0, found / found[-1]), np.append(0, missed / missed[-1])
    return float(np.sum(np.diff(falses) * (hits[1:] + hits[:-1]) / 2))


def best_iou(mask: _Numbers, truth: _Truth) -> tuple[float, float]:
    """Return the best intersection over union that any threshold gives, and that threshold.

    Args:
        mask: of any shape and scale.
        truth: where the foreground is, of the same shape.

    Returns:
        The intersection over union of ``mask >= threshold`` and the truth, 0..1; the threshold.

    Raises:
        ValueError: as of :func:`auc`.

    Example:
        >>> best_iou(np.array([0.1, 0.2, 0.3, 0.3]), np.array([False, True, False, True]))
        (0.6666666666666666, 0.2)
    """
    thresholds, found, all_found = _counts(mask, truth)
    ratios = found / (all_found + found[-1] - found)
    best = int(ratios.argmax())
    return float(ratios[best]), float(thresholds[best])


def _counts(mask: _Numbers, truth: _Truth) -> tuple[_Numbers, _Numbers, _Numbers]:
    """Return thresholds, highest first, and foreground and pixels at least as high as each."""
    if mask.shape != truth.shape:
        raise ValueError(f"a mask of shape {mask.shape}, a truth of shape {truth.shape}")
    if truth.dtype != np.bool_:
        raise ValueError(f"truth of {truth.dtype}: bool is needed")
    if not np.isfinite(mask).all():
        raise ValueError("a value of the mask is not finite")
    if truth.all() or not truth.any():
        raise ValueError(f"{truth.sum()} pixels of {truth.size} are foreground: both are needed")
    values, places = np.unique(mask, return_inverse=True)
    places = places.ravel()
    found = np.bincount(places[truth.ravel()], minlength=len(values))[::-1].cumsum()
    all_found = np.bincount(places, minlength=len(values))[::-1].cumsum()
    return values[::-1], found.astype(float), all_found.astype(float)
