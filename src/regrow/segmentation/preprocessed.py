"""Reads volumes that nnU-Net has preprocessed; pickles and stored expressions are never run."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.machine import needed
from regrow.reading import check_size, decoding, read_file
from regrow.segmentation.cases import Volume
from regrow.segmentation.folders import Case
from regrow.segmentation.grids import grid_of

__all__ = ["read_preprocessed"]

Array = npt.NDArray[Any]


def read_preprocessed(
    case: Case, channels: int, values: Collection[int], spacing: tuple[float, ...]
) -> Volume:
    """Read a case that nnU-Net has normalised and resampled.

    What lies beside it in a pickle, its way back to the published file, is not needed for training
    and not opened. nnU-Net's -1, outside of what is not zero, becomes background.

    Args:
        case: of a folder whose volumes are preprocessed: a file ``.b2nd``, of nnU-Net 2.6 and
            later, or ``.npz``.
        channels: that there must be.
        values: that labels may have.
        spacing: of the voxels along (depth, height, width), in mm.

    Raises:
        FileNotFoundError: a file is missing.
        ImportError: the file is ``.b2nd``, and blosc2 is not installed.
        UnreadableError: a file is damaged, or is not of these channels and values.
    """
    path = case.images[0]
    assert case.label is not None  # images and labels are never apart
    image, labels = _from_npz(path) if path.suffix == ".npz" else map(_from_blosc, case.files)
    with decoding(f"case {case.name}: {path}"), np.errstate(over="ignore"):
        for what, array in (("an image", image), ("labels", labels)):
            if array.dtype.kind not in "biuf":
                raise ValueError(f"{what} of {array.dtype}, not of numbers")
        if image.ndim != 4 or len(image) != channels:
            raise ValueError(f"an image of shape {image.shape}, not ({channels}, d, h, w)")
        if labels.shape != (1, *image.shape[1:]):
            raise ValueError(f"labels of shape {labels.shape} for an image of {image.shape}")
        image = image.astype(np.float32)
        if not np.isfinite(image).all():
            raise ValueError("voxels that are not finite")
        if strange := sorted(set(np.unique(labels).tolist()) - {-1, *values}):
            raise ValueError(f"labels {strange}, which are none of {sorted(values)}")
    grid = grid_of(image.shape[1:], spacing)
    return Volume(case.name, image, labels[0].clip(0), grid)


def _from_npz(path: Path) -> tuple[Array, Array]:
    """Return image and labels, (channels, depth, height, width)."""
    content = read_file(path)
    with decoding(path):
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            check_size(path, sum(item.file_size for item in packed.infolist()), len(content))
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return arrays["data"], arrays["seg"]


def _from_blosc(path: Path) -> Array:
    with needed("blosc2", "nnunet"):
        import blosc2  # noqa: PLC0415 optional
    content = read_file(path)
    with decoding(path):
        # Not blosc2.open, which evaluates expressions and functions that a file may hold.
        array = blosc2.ndarray_from_cframe(content)
        check_size(path, int(array.nbytes), len(content))
        values: Array = array[:]
    return values
