"""Maps NPY files into memory, after their header was checked."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

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
        if dtype.subdtype is not None or not all(type(side) is int for side in shape):
            raise ValueError(f"it holds {dtype} of shape {shape}, which numpy does not write")
        if min(shape, default=0) < 0 or size != there:
            raise ValueError(f"{there} bytes for {dtype} of shape {shape}, which takes {size}")
        order: Literal["F", "C"] = "F" if fortran else "C"
        if not size:  # which cannot be mapped
            empty: npt.NDArray[Any] = np.empty(shape, dtype, order=order)
            return empty
        return _mapped(path, start + size)[start:].view(dtype).reshape(shape, order=order)


def _mapped(path: Path, size: int) -> npt.NDArray[np.uint8]:
    """Map a file's bytes, to be copied where they are written to."""
    try:
        # Not np.memmap, which keeps the file open: a process may open about a thousand.
        stored = torch.UntypedStorage.from_file(str(path), shared=False, nbytes=size)
    except UnicodeEncodeError:  # torch takes names in UTF-8 only
        return np.memmap(path, np.uint8, "c")
    whole: npt.NDArray[np.uint8] = torch.empty(0, dtype=torch.uint8).set_(stored).numpy()  # type: ignore[arg-type]
    return whole
