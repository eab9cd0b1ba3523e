"""Maps NPY files into memory, after their header was checked."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from regrow.reading import decoding, open_file

__all__ = ["map_npy"]


def map_npy(path: Path) -> npt.NDArray[Any]:
    """Map an array into memory; what is written to it is copied, and stays out of the file.

    Args:
        path: the file.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableError: it is damaged, or holds objects, which would be a pickle.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(Path(folder) / "a.npy", [1, 2])
        ...     map_npy(Path(folder) / "a.npy").tolist()
        [1, 2]
    """
    with decoding(path), open_file(path) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0
        if version != (1, 0):
            read = np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
        size, start = math.prod(shape) * dtype.itemsize, file.tell()
        there = path.stat().st_size - start
        if dtype.hasobject:
            raise ValueError(f"it holds {dtype}, objects of Python, which might run anything")
        if min(shape, default=0) < 0 or size != there:
            raise ValueError(f"{there} bytes for {dtype} of shape {shape}, which takes {size}")
        order: Literal["F", "C"] = "F" if fortran else "C"
        if not size:  # which cannot be mapped
            empty: npt.NDArray[Any] = np.empty(shape, dtype, order=order)
            return empty
        return np.memmap(path, dtype, "c", start, shape, order)
