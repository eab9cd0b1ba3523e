"""Reads and writes volumes in NIfTI: as arrays of one frame of axes, and back exactly.

An array is (depth, height, width), or (channels, depth, height, width). Width grows towards the
patient's right, height towards the front, depth towards the head, as well as the file's own axes
allow: they are permuted and mirrored, never interpolated. Voxels are float32, labels integers.
"""

from __future__ import annotations

import gzip
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.machine import needed
from regrow.reading import LIMIT, check_size, decoding, open_file, refused

__all__ = ["ENDINGS", "Grid", "grid_of", "read_volume", "write_volume"]

ENDINGS = (".nii.gz", ".nii")

Array = npt.NDArray[Any]
Shape = tuple[int, int, int]

# A NIfTI file's header says how much follows, so that less need be forbidden than of other files:
# a label map of a large scan is 2 GiB at most, and packs a thousandfold.
_USUAL = 2 << 30
_HEADER = 540  # bytes of NIfTI-2's, the longer one
_AFTER = 1 << 20  # bytes that may follow the voxels
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
        return _kind(self.header).header_class(self.header)

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
        """Distance of neighbouring voxels along (depth, height, width), in mm."""
        x, y, z = np.sqrt((self.canonical_affine[:3, :3] ** 2).sum(0)) * self._millimetres
        return float(z), float(y), float(x)

    @cached_property
    def canonical_affine(self) -> npt.NDArray[np.float64]:
        """From (width, height, depth) to space, (4, 4), in the file's unit."""
        orientations = _orientations()
        mirrored = orientations.inv_ornt_aff(self._axes, self._own_shape)
        affine: npt.NDArray[np.float64] = self.affine @ mirrored
        return affine

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


def read_volume(path: Path) -> tuple[Array, Grid]:
    """Read a volume, packed by gzip or not, with its scale of values applied.

    Args:
        path: of a NIfTI file of two to four dimensions, channels last. One of two dimensions is
            one slice; a fourth of five dimensions is time, and must be 1.

    Returns:
        The array, (depth, height, width) or (channels, depth, height, width), of the file's type
        or, if it scales values, of float64; and where its voxels lie.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: nibabel is not installed.
        UnreadableError: it is damaged, cut short, or no volume of numbers.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "ones.nii.gz"
        ...     write_volume(path, np.ones((2, 3, 4), int), grid_of((2, 3, 4)))
        ...     array, grid = read_volume(path)
        >>> array.shape, int(array.sum())
        ((2, 3, 4), 24)
    """
    _nibabel()
    if not path.name.endswith(ENDINGS):
        raise refused(path, "is no NIfTI file (.nii or .nii.gz)", "convert it, as SimpleITK can")
    content = _content(path)
    with decoding(path), np.errstate(all="ignore"):
        image = _kind(content).from_bytes(content)
        grid = Grid(bytes(image.header.binaryblock))
        values = _solid(np.asanyarray(image.dataobj), path)
    affine = grid.affine
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        said = "does not say where its voxels lie: its affine has no inverse"
        raise refused(path, said, "write it anew with a valid sform or qform")
    return grid.canonical(values), grid


def write_volume(path: Path, array: Array, grid: Grid) -> None:
    """Write an array on the grid of a file: it opens in that file's geometry.

    Integers are stored in the fewest bytes that hold them, all else as float32. The file appears
    whole or not at all.

    Args:
        path: ends in .nii.gz or .nii; what is there is replaced.
        array: (depth, height, width), or with channels before.
        grid: of the file that it belongs to.

    Raises:
        ValueError: the array does not fit the grid, or the name is no NIfTI file's.
    """
    if not path.name.endswith(ENDINGS):
        raise ValueError(f"path: {path} must end in .nii.gz or .nii")
    if array.shape[-3:] != grid.shape or array.ndim not in (3, 4):
        raise ValueError(f"array: of shape {array.shape}, but the grid is {grid.shape}")
    array = array.astype(_stored_type(array), copy=False)
    kind = _kind(grid.header)
    image = kind(grid.own(array), grid.affine, kind.header_class(grid.header))
    image.header.set_data_dtype(array.dtype)
    image.header["cal_max"] = image.header["cal_min"] = 0  # were of the voxels of the other file
    content = image.to_bytes()
    _replace(path, gzip.compress(content, 6, mtime=0) if path.suffix == ".gz" else content)


def _replace(path: Path, content: bytes) -> None:
    part, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(part, "wb") as file:  # noqa: PTH123 a descriptor
            file.write(content)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


def _stored_type(array: Array) -> Any:
    if array.dtype.kind not in "biu" or not array.size:
        return np.float32
    signed = bool(array.min() < 0)
    types = (np.int16, np.int32, np.int64) if signed else (np.uint8, np.uint16, np.uint32, np.int64)
    return next(
        t for t in types if np.iinfo(t).min <= array.min() <= array.max() <= np.iinfo(t).max
    )


def _content(path: Path) -> bytes:
    """Return all bytes of a file, unpacked: to its end, where gzip has its checksum."""
    with decoding(path), open_file(path) as file:
        stored = os.fstat(file.fileno()).st_size
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        stream: Any = gzip.GzipFile(fileobj=file) if packed else file
        start = stream.read(_HEADER)
        declared = _declared(start)
        if declared > _USUAL or LIMIT in os.environ:
            check_size(path, declared, stored)
        content: bytes = start + stream.read(max(declared - len(start), 0))
        if len(content) < declared:
            raise ValueError(f"cut short: {len(content):,} bytes of {declared:,}")
        if len(stream.read(_AFTER + 1)) > _AFTER:
            raise ValueError(f"it goes on after its {declared:,} bytes")
        return content


def _declared(start: bytes) -> int:
    """Return how many bytes a file has, as its header says."""
    header = _kind(start).header_class(start[: _kind(start).header_class.sizeof_hdr])
    shape = [int(side) for side in header.get_data_shape()]
    if min(shape, default=0) < 1:
        raise ValueError(f"a volume of shape {tuple(shape)}")
    voxels = 1
    for side in shape:
        voxels *= side
    return int(header.get_data_offset()) + voxels * int(header.get_data_dtype().itemsize)


def _solid(values: Array, path: Path) -> Array:
    """Return values as (x, y, z) or (x, y, z, channels)."""
    if values.dtype.kind not in "biuf":
        raise refused(path, f"holds voxels of type {values.dtype}", "give one number a channel")
    if values.ndim == 5 and values.shape[3] == 1:
        values = values[:, :, :, 0]
    while values.ndim < 3:
        values = values[..., None]
    if values.ndim > 4:
        said = f"has {values.ndim} dimensions, of shape {values.shape}"
        raise refused(path, said, "give a volume of three, or four with channels last")
    return values


def _kind(start: bytes) -> Any:
    """Return nibabel's class of a file: NIfTI-2 says that its header takes 540 bytes."""
    nibabel = _nibabel()
    long = _HEADER in (int.from_bytes(start[:4], order) for order in ("little", "big"))
    return nibabel.Nifti2Image if long else nibabel.Nifti1Image


def _nibabel() -> Any:
    with needed("nibabel", "segmentation"):
        import nibabel  # noqa: PLC0415 optional
    return nibabel


def _orientations() -> Any:
    _nibabel()
    from nibabel import orientations  # noqa: PLC0415 optional

    return orientations
