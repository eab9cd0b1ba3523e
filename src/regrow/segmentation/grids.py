"""Where the voxels of a file lie in space, and how its axes become ours, exactly and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.machine import needed

__all__ = ["HEADER", "Grid", "grid_of", "kind_of"]

HEADER = 540
"""Bytes of a NIfTI-2 file's header; NIfTI-1's has 348."""

Array = npt.NDArray[Any]
Shape = tuple[int, int, int]

_MILLIMETRES = {"meter": 1000.0, "micron": 0.001}


@dataclass(frozen=True, eq=False)
class Grid:
    """Where the voxels of a file lie in space.

    Args:
        header: of the file, as bytes: what is written on the grid gets it, too.
    """

    header: bytes

    @cached_property
    def _header(self) -> Any:
        return kind_of(self.header).header_class(self.header)

    @cached_property
    def affine(self) -> npt.NDArray[np.float64]:
        """From the file's own axes to space, (4, 4), in the file's unit."""
        affine: npt.NDArray[np.float64] = self._header.get_best_affine()
        return affine

    @cached_property
    def shape(self) -> Shape:
        """Sides of the array: (depth, height, width)."""
        x, y, z = (self._own_shape[int(axis)] for axis in np.argsort(self._axes[:, 0]))
        return z, y, x

    @cached_property
    def spacing(self) -> tuple[float, float, float]:
        """Distance of neighbouring voxels along (depth, height, width), in mm, to six digits."""
        # Files store float32: turned voxels of 1 mm are 1.00000002, which no rule may hang on.
        x, y, z = np.sqrt((self.canonical_affine[:3, :3] ** 2).sum(0)) * self._millimetres
        return float(f"{z:.6g}"), float(f"{y:.6g}"), float(f"{x:.6g}")

    @cached_property
    def canonical_affine(self) -> npt.NDArray[np.float64]:
        """From (width, height, depth) to space, (4, 4), in the file's unit."""
        orientations = _orientations()
        mirrored = orientations.inv_ornt_aff(self._axes, self._own_shape)
        affine: npt.NDArray[np.float64] = self.affine @ mirrored
        return affine

    @property
    def valid(self) -> bool:
        """Whether each axis leads somewhere of its own."""
        with np.errstate(all="ignore"):
            lengths = np.sqrt((self.affine[:3, :3] ** 2).sum(0))
            sound = np.isfinite(self.affine).all() and np.isfinite(lengths).all() and lengths.all()
            return bool(sound and np.isfinite(self._axes).all())

    @property
    def _own_shape(self) -> Shape:
        x, y, z = (*self._header.get_data_shape(), 1, 1)[:3]
        return int(x), int(y), int(z)

    @property
    def _millimetres(self) -> float:
        return _MILLIMETRES.get(self._header.get_xyzt_units()[0], 1.0)

    @cached_property
    def _axes(self) -> Array:
        """Which canonical axis each of the file's is, and whether it runs the other way."""
        axes: Array = _orientations().io_orientation(self.affine)
        return axes

    def distance(self, other: Grid) -> float:
        """Return how far apart corners of two grids of one shape are at most, in mm.

        Args:
            other: the other grid.
        """
        far = np.array(self.shape[::-1]) - 1
        corners = np.array([[*(far * corner), 1] for corner in np.ndindex(2, 2, 2)])
        apart = (
            corners
            @ (
                self._millimetres * self.canonical_affine
                - other._millimetres * other.canonical_affine
            ).T
        )
        return float(np.sqrt((apart[:, :3] ** 2).sum(1)).max())

    def canonical(self, array: Array) -> Array:
        """Turn an array of the file's axes, channels last, into one of ours.

        Args:
            array: (x, y, z) or (x, y, z, channels).
        """
        turned: Array = _orientations().apply_orientation(array, self._axes)
        return np.ascontiguousarray(turned.T)

    def own(self, array: Array) -> Array:
        """Turn an array of ours into one of the file's axes, channels last.

        Args:
            array: (depth, height, width), or with channels before.
        """
        orientations = _orientations()
        back = orientations.ornt_transform(orientations.axcodes2ornt("RAS"), self._axes)
        turned: Array = orientations.apply_orientation(array.T, back)
        return np.asfortranarray(turned)  # the order of the file


def grid_of(shape: Sequence[int], spacing: Sequence[float] = (1.0, 1.0, 1.0)) -> Grid:
    """Return the grid of an array that comes from no file.

    Args:
        shape: (depth, height, width).
        spacing: along these, in mm.

    Example:
        >>> grid = grid_of((4, 5, 6), (3.0, 1.0, 1.0))
        >>> grid.shape, grid.spacing
        ((4, 5, 6), (3.0, 1.0, 1.0))
    """
    nibabel = _nibabel()
    header = nibabel.Nifti1Header()
    header.set_data_shape(tuple(shape)[::-1])
    header.set_xyzt_units("mm")
    affine = np.diag([*tuple(spacing)[::-1], 1.0])
    header.set_sform(affine, "scanner")
    header.set_qform(affine, "scanner")
    return Grid(bytes(header.binaryblock))


def kind_of(start: bytes) -> Any:
    """Return nibabel's class of a file.

    Args:
        start: of the file: the first four bytes are the length of its header.

    Raises:
        ImportError: nibabel is not installed.
    """
    nibabel = _nibabel()
    long = HEADER in (int.from_bytes(start[:4], order) for order in ("little", "big"))
    return nibabel.Nifti2Image if long else nibabel.Nifti1Image


def _nibabel() -> Any:
    with needed("nibabel", "segmentation"):
        import nibabel  # noqa: PLC0415 optional
    return nibabel


def _orientations() -> Any:
    _nibabel()
    from nibabel import orientations  # noqa: PLC0415 optional

    return orientations
