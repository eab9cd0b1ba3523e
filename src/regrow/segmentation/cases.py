"""Reads cases, images with their labels: what does not fit is an error that names the case."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.reading import refused
from regrow.segmentation.folders import Case
from regrow.segmentation.grids import Grid
from regrow.segmentation.volumes import read_volume

__all__ = ["LeftOut", "Volume", "read_case", "read_prediction"]

# Real images and labels differ by rounding only: their files store positions as float32.
_APART = 0.1


@dataclass(frozen=True, eq=False)
class Volume:
    """A case in memory.

    Args:
        name: of the case.
        image: float32, (channels, depth, height, width).
        labels: integers, (depth, height, width); None: there are none.
        grid: where the voxels lie.
    """

    name: str
    image: npt.NDArray[np.float32]
    labels: npt.NDArray[Any] | None
    grid: Grid


@dataclass(frozen=True)
class LeftOut:
    """A case that cannot be used.

    Args:
        name: of the case.
        why: which file, what is wrong, what mends it.
    """

    name: str
    why: str


def read_case(case: Case, channels: int, values: Collection[int]) -> Volume:
    """Read a case's images and labels, and check that they belong together.

    Args:
        case: of a folder whose volumes are as published.
        channels: that there must be.
        values: that labels may have.

    Raises:
        FileNotFoundError: one of its files is missing.
        UnreadableError: a file is damaged, has voxels that are not finite or labels of no meaning,
            or lies elsewhere than the others; the message names case and file.
    """
    image, grid = _image(case, case.images[0])
    images = [image]
    for path in case.images[1:]:
        further, other = _image(case, path)
        _check_grid(case, path, other, case.images[0], grid)
        images.append(further)
    image = np.concatenate(images)
    if len(image) != channels:
        said = f"has {len(image)} channels, not {channels}"
        raise refused(f"case {case.name}", said, "mend dataset.json, or add the missing files")
    labels = None
    if case.label is not None:
        labels, other = _labels(case, case.label, values)
        _check_grid(case, case.label, other, case.images[0], grid)
    return Volume(case.name, image, labels, grid)


def read_prediction(
    case: Case, path: Path, values: Collection[int], truth: Volume
) -> npt.NDArray[Any]:
    """Read labels that were predicted of a case, and check that they lie where it does.

    Args:
        case: of a folder of volumes as published, or preprocessed.
        path: of the labels, in NIfTI.
        values: that labels may have.
        truth: the case.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableError: as of :func:`read_case`.
    """
    labels, grid = _labels(case, path, values)
    _check_grid(case, path, grid, case.images[0], truth.grid)
    return labels


def _image(case: Case, path: Path) -> tuple[npt.NDArray[np.float32], Grid]:
    array, grid = read_volume(path)
    with np.errstate(over="ignore"):
        image = array.astype(np.float32)
    strange = ~np.isfinite(image)
    if strange.any():
        first = tuple(int(i) for i in np.argwhere(strange)[0][-3:])
        said = f"has voxels that are not finite ({int(strange.sum()):,}, the first at {first})"
        raise refused(_of(case, path), said, "replace them, by the smallest value for instance")
    return (image if image.ndim == 4 else image[None]), grid


def _labels(case: Case, path: Path, values: Collection[int]) -> tuple[npt.NDArray[Any], Grid]:
    array, grid = read_volume(path)
    if array.ndim == 4 and len(array) == 1:
        array = array[0]
    if array.ndim != 3:
        said = f"has {len(array)} channels"
        raise refused(_of(case, path), said, "give one label a voxel")
    there = np.unique(array)
    near = np.rint(there)
    # A file's scale may leave labels a rounding error beside their integers.
    strange = [v for v, n in zip(there, near, strict=True) if not abs(v - n) <= 1e-4]
    strange += [n for n in near[np.isfinite(near)] if int(n) not in values]
    if strange:
        shown = ", ".join(f"{value:g}" for value in strange[:5])
        said = f"has voxels labelled {shown}, which are none of {sorted(values)}"
        raise refused(_of(case, path), said, "mend the file, or the labels of dataset.json")
    kind = np.int16 if near.max() < 2**15 else np.int64
    if array.dtype.kind in "iu":
        return array.astype(kind), grid
    return near.astype(kind)[np.searchsorted(there, array)], grid


def _check_grid(case: Case, path: Path, grid: Grid, first: Path, expected: Grid) -> None:
    """Refuse a file that does not lie where the case's first image does."""
    if grid.shape != expected.shape:
        said = f"is of shape {grid.shape}, but {first.name} of {expected.shape}"
        raise refused(_of(case, path), said, "give both on one grid")
    apart = grid.distance(expected)
    if apart > _APART * min(expected.spacing):
        said = f"lies up to {apart:.3g} mm beside {first.name}: their affines differ"
        raise refused(_of(case, path), said, "resample it, or copy the affine if it is wrong")


def _of(case: Case, path: Path) -> str:
    return f"case {case.name}: {path}"
