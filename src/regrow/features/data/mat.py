"""MATLAB files as the scikit-feature repository publishes them."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from regrow.features.data.feature_set import FeatureSet, make_feature_set

__all__ = ["read_mat"]

# What scipy raises on damaged files, beside an error of its own.
_BROKEN = (OSError, EOFError, ValueError, LookupError, TypeError, MemoryError, zlib.error)


def read_mat(
    path: Path, *, x: str = "X", y: str = "Y", name: str = "", shape: tuple[int, ...] = ()
) -> FeatureSet:
    """Read features and labels from a MATLAB file (version 5, or 4).

    Labels may begin anywhere, such as at 1 or with -1 and 1; they are coded 0 to C - 1.

    Args:
        path: the file.
        x: the variable of features, (rows, features), dense or sparse.
        y: the variable of labels, (rows, 1) or (1, rows), or one column a class of zeros and ones.
        name: of the data set; else the file's.
        shape: height and width of images. Their columns are stored one after another, as MATLAB
            does; they are put into rows.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or lacks a variable; the message names the file.

    Example:
        >>> import scipy.io, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "tiny.mat"
        ...     scipy.io.savemat(path, {"X": [[0, 9], [7, 1], [5, 5]], "Y": [[-1], [1], [1]]})
        ...     found = read_mat(path)
        >>> found.name, found.y.tolist(), found.labels
        ('tiny', [0, 1, 1], (-1, 1))

    Source: scikit-feature (Li et al. 2018), folder ``skfeature/data``.
    """
    content = _load(path)
    lacking = [variable for variable in (x, y) if variable not in content]
    if lacking:
        there = ", ".join(key for key in content if not key.startswith("__")) or "none"
        raise ValueError(f"{path}: no variable {lacking[0]!r}; it holds {there}")
    features = content[x]
    if shape:
        features = _rows_first(features, shape, path)
    more: dict[str, Any] = {"shape": shape, "source": f"{path.name}, MATLAB"}
    labels = _labels(content[y], path)
    return make_feature_set(name or path.stem, features, labels, where=str(path), **more)


def _load(path: Path) -> dict[str, Any]:
    from scipy.io import loadmat  # noqa: PLC0415 (slow to import)
    from scipy.io.matlab import MatReadError  # noqa: PLC0415

    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        content: dict[str, Any] = loadmat(path)
    except (*_BROKEN, NotImplementedError, MatReadError) as error:
        said = str(error) or type(error).__name__
        raise ValueError(f"{path} is damaged, or no MATLAB file of version 5 ({said})") from error
    return content


def _labels(values: Any, path: Path) -> np.ndarray:
    dense = np.asarray(values.todense() if sparse.issparse(values) else values)
    if dense.ndim == 2 and min(dense.shape) > 1:
        if not ((dense == 0) | (dense == 1)).all() or not (dense.sum(1) == 1).all():
            raise ValueError(f"{path}: labels of shape {dense.shape} are not one of each row")
        return np.asarray(dense.argmax(1))
    return dense.reshape(-1)


def _rows_first(features: Any, shape: tuple[int, ...], path: Path) -> Any:
    height, width = shape
    if features.ndim != 2 or features.shape[1] != height * width:
        raise ValueError(f"{path}: X has shape {features.shape}, not (rows, {height * width})")
    order = np.arange(height * width).reshape(width, height).T.reshape(-1)
    return features[:, order]
