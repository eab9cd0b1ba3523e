"""MATLAB files as the scikit-feature repository publishes them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from regrow.data.npy import map_npy
from regrow.features.data.feature_set import FeatureSet, make_feature_set
from regrow.features.data.mat_process import NOT_THERE, PARTS, TOO_LARGE
from regrow.reading import allowed_size, check_size, damaged, decoding, open_file, refused

__all__ = ["read_mat"]

_SCRIPT = Path(__file__).with_name("mat_process.py")
_INTERPRETER = 2 << 30  # bytes of address space, of which most is never touched
_START, _SPEED = 60.0, 10e6  # seconds until it reads; bytes it surely reads in one


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
    open_file(path).close()
    features, labels = _load(path, (x, y))
    if shape:
        features = _rows_first(features, shape, path)
    more: dict[str, Any] = {"shape": shape, "source": f"{path.name}, MATLAB"}
    return make_feature_set(
        name or path.stem, features, _labels(labels, path), where=str(path), **more
    )


def _load(path: Path, names: tuple[str, str]) -> list[Any]:
    """Have another process read the variables, for some damaged files end the one that does."""
    stored = path.stat().st_size
    allowed = allowed_size(stored)
    memory = _INTERPRETER + 4 * allowed  # read, copied and saved
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            str(_SCRIPT),
            str(path),
            folder,
            f"{allowed}",
            f"{memory}",
            *names,
        ]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(sys.path),
            "OPENBLAS_NUM_THREADS": "1",  # each takes of the memory that is allowed
        }
        try:
            ended = subprocess.run(
                command,
                env=environment,
                capture_output=True,
                timeout=_START + allowed / _SPEED,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise damaged(path, f"it is not read after {error.timeout:.0f} seconds") from None
        lines = ended.stderr.decode("utf-8", "replace").strip().splitlines() or ["no more is known"]
        if ended.returncode == NOT_THERE:
            raise refused(f"{path}:", lines[-1], "say x= and y=, or get it again")
        if ended.returncode == TOO_LARGE:
            check_size(path, int(lines[-1]), stored)
        if ended.returncode:
            raise damaged(
                path,
                f"or no MATLAB file of version 5: {lines[-1]}; the reader ended with "
                f"{ended.returncode}",
            )
        with decoding(path):
            return [_array(Path(folder), name) for name in ("x", "y")]


def _array(folder: Path, name: str) -> Any:
    if (folder / f"{name}.npy").exists():
        return np.array(map_npy(folder / f"{name}.npy"))
    parts = (np.array(map_npy(folder / f"{name}.{part}.npy")) for part in PARTS)
    data, indices, indptr, shape = parts
    matrix = sparse.csc_array((data, indices, indptr), shape=tuple(shape.tolist()))
    matrix.check_format(full_check=True)
    matrix.sum_duplicates()
    return matrix


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
