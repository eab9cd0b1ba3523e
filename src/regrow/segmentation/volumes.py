"""Reads and writes volumes in NIfTI: as arrays of one frame of axes, and back exactly.

An array is (depth, height, width), or (channels, depth, height, width). Width grows towards the
patient's right, height towards the front, depth towards the head, as well as the file's own axes
allow: they are permuted and mirrored, never interpolated. Voxels are float32, labels integers.
"""

from __future__ import annotations

import contextlib
import gzip
import logging
import os
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.machine import naming, needed
from regrow.reading import LIMIT, check_size, decoding, open_file, refused
from regrow.segmentation.grids import HEADER, Grid, kind_of

__all__ = ["ENDINGS", "read_volume", "write_volume"]

ENDINGS = (".nii.gz", ".nii")

Array = npt.NDArray[Any]

# A NIfTI file's header says how much follows, so that less need be forbidden than of other files:
# a label map of a large scan is 2 GiB at most, and packs a thousandfold.
_USUAL = 2 << 30
_AFTER = 1 << 20  # bytes that may follow the voxels
_ALONE = threading.Lock()  # how strict nibabel is holds for all threads


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
        >>> import tempfile
        >>> from regrow.segmentation.grids import grid_of
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "ones.nii.gz"
        ...     write_volume(path, np.ones((2, 3, 4), int), grid_of((2, 3, 4)))
        ...     array, grid = read_volume(path)
        >>> array.shape, int(array.sum())
        ((2, 3, 4), 24)
    """
    if not path.name.endswith(ENDINGS):
        raise refused(path, "is no NIfTI file (.nii or .nii.gz)", "convert it, as SimpleITK can")
    content = _content(path)
    with decoding(path), _strict(), np.errstate(all="ignore"):
        image = kind_of(content).from_bytes(content)
        grid = Grid(bytes(image.header.binaryblock))
        values = _solid(np.asanyarray(image.dataobj), path)
    if not grid.valid:
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
        OSError: it cannot be written, as on a full disk.
        ValueError: the array does not fit the grid, or the name is no NIfTI file's.
    """
    if not path.name.endswith(ENDINGS):
        raise ValueError(f"path: {path} must end in .nii.gz or .nii")
    if array.shape[-3:] != grid.shape or array.ndim not in (3, 4):
        raise ValueError(f"array: of shape {array.shape}, but the grid is {grid.shape}")
    array = array.astype(_stored_type(array), copy=False)
    kind = kind_of(grid.header)
    header = kind.header_class(grid.header)
    own = grid.own(array)
    # Of two dimensions, if the file is.
    own = own.reshape(header.get_data_shape()[:3], order="F") if array.ndim == 3 else own
    image = kind(own, grid.affine, header)
    image.header.set_data_dtype(array.dtype)
    image.header["cal_max"] = image.header["cal_min"] = 0  # were of the voxels of the other file
    content = image.to_bytes()
    _replace(path, gzip.compress(content, 6, mtime=0) if path.suffix == ".gz" else content)


def _replace(path: Path, content: bytes) -> None:
    # Not tempfile's, which only its owner may read, whatever the umask.
    part = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        with naming(path), part.open("xb") as file:
            file.write(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _stored_type(array: Array) -> Any:
    if array.dtype.kind not in "biu" or not array.size:
        return np.float32
    signed = bool(array.min() < 0)
    types = (np.int16, np.int32, np.int64) if signed else (np.uint8, np.uint16, np.uint32, np.int64)
    return next(
        t for t in types if np.iinfo(t).min <= array.min() <= array.max() <= np.iinfo(t).max
    )


@contextlib.contextmanager
def _strict() -> Iterator[None]:
    """Let nibabel refuse what it would mend by a guess, and say so to nobody else."""
    with needed("nibabel", "segmentation"):
        from nibabel import imageglobals  # noqa: PLC0415 optional
    with _ALONE:
        logger, was = imageglobals.logger, imageglobals.logger.disabled
        logger.disabled = True
        try:
            with imageglobals.ErrorLevel(logging.WARNING):
                yield
        finally:
            logger.disabled = was


def _content(path: Path) -> bytes:
    """Return all bytes of a file, unpacked: to its end, where gzip has its checksum."""
    with decoding(path), open_file(path) as file:
        stored = os.fstat(file.fileno()).st_size
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        stream: Any = gzip.GzipFile(fileobj=file) if packed else file
        start = stream.read(HEADER)
        with _strict():
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
    header = kind_of(start).header_class(start[: kind_of(start).header_class.sizeof_hdr])
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
