"""A table of features with its labels, and the checks that every reader ends with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import sparse

__all__ = ["FeatureSet", "Matrix", "make_feature_set"]

Matrix: TypeAlias = Any
"""An array of shape (rows, features), or a SciPy CSR array of that shape."""


@dataclass(frozen=True)
class FeatureSet:
    """Features and labels in memory.

    Args:
        name: of the data set.
        X: float32 or float64 of shape (rows, features): an array, or a CSR array where the file
            stores a sparse matrix.
        y: int64 labels 0 to C - 1; float64 targets of a regression.
        labels: what the C labels were called before, in order; empty for a regression.
        feature_names: one a feature, or empty.
        shape: height and width, if the features are pixels of an image, row by row; else empty.
        relevant: indices of the features that decide, where that is known; else empty.
        source: where it is from.
    """

    name: str
    X: Matrix
    y: npt.NDArray[Any]
    labels: tuple[Any, ...] = ()
    feature_names: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()
    relevant: tuple[int, ...] = ()
    source: str = ""


def make_feature_set(
    name: str,
    X: Matrix,
    y: Sequence[Any] | npt.NDArray[Any],
    *,
    where: str,
    regression: bool = False,
    **more: Any,
) -> FeatureSet:
    """Check features and labels, and code the labels 0 to C - 1.

    Integers of up to 16 bits become float32, which holds them exactly; wider ones float64.

    Args:
        name: of the data set.
        X: of shape (rows, features), dense or sparse. Missing values stay NaN.
        y: one label a row; numbers or strings.
        where: the file, for errors.
        regression: take y for numbers to be predicted.
        more: further fields of :class:`FeatureSet`.

    Raises:
        ValueError: shapes do not fit, X holds no numbers, or a label is missing.
    """
    features, targets = _numbers(X, where), np.asarray(y).reshape(-1)
    if features.ndim != 2 or not all(features.shape):
        raise ValueError(f"{where}: X has shape {features.shape}, not (rows, features)")
    if len(targets) != features.shape[0]:
        raise ValueError(f"{where}: {features.shape[0]} rows, but {len(targets)} labels")
    if regression:
        return FeatureSet(name, features, _targets(targets, where), **more)
    if _missing(targets):
        raise ValueError(f"{where}: a label is missing; take the rows without one out")
    labels, codes = np.unique(targets, return_inverse=True)
    coded = codes.reshape(-1).astype(np.int64)
    return FeatureSet(name, features, coded, tuple(labels.tolist()), **more)


def _numbers(X: Matrix, where: str) -> Matrix:
    values = X.tocsr() if sparse.issparse(X) else np.asarray(X)
    kind, size = values.dtype.kind, values.dtype.itemsize
    if kind not in "fiub":
        raise ValueError(f"{where}: X holds {values.dtype}, not numbers; encode them first")
    wide = size > 4 if kind == "f" else size > 2
    values = values.astype(np.float64 if wide else np.float32)
    return sparse.csr_array(values) if sparse.issparse(values) else values


def _targets(targets: npt.NDArray[Any], where: str) -> npt.NDArray[np.float64]:
    try:
        numbers = targets.astype(np.float64)
    except ValueError as error:
        raise ValueError(f"{where}: {error}; a regression needs numbers as targets") from error
    if not np.isfinite(numbers).all():
        raise ValueError(f"{where}: a target is missing or infinite; take its row out")
    return numbers


def _missing(targets: npt.NDArray[Any]) -> bool:
    if targets.dtype.kind == "f":
        return not np.isfinite(targets).all()
    if targets.dtype.kind == "O":
        return any(t is None or (isinstance(t, float) and math.isnan(t)) for t in targets)
    return False
