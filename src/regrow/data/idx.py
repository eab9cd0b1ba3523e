"""IDX files of bytes: the format of MNIST and its kin."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from regrow.reading import check_size, decoding, open_unpacked

__all__ = ["read_idx"]

_BYTES = 8  # the code of unsigned bytes
_MOST = 8  # dimensions


def read_idx(path: Path) -> Tensor:
    """Read an IDX file of bytes, plain or gzipped: the format of MNIST and its kin.

    Args:
        path: the file; gzipped if it ends in ``.gz``.

    Returns:
        uint8 tensor of the shape the file states.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged or no IDX file of unsigned bytes.
    """
    with decoding(path), open_unpacked(path, path.suffix == ".gz") as file:
        zeros, kind, dimensions = struct.unpack(">HBB", file.read(4))
        if zeros != 0 or kind != _BYTES or not 1 <= dimensions <= _MOST:
            raise ValueError(f"no IDX file of bytes: it begins with {zeros}, {kind}, {dimensions}")
        shape = struct.unpack(f">{dimensions}I", file.read(4 * dimensions))
        size = math.prod(shape)
        check_size(path, size, path.stat().st_size)
        body = np.frombuffer(file.read(size + 1), np.uint8)
        if body.size != size:
            there = "more" if body.size > size else body.size
            raise ValueError(f"{size} bytes for a shape of {shape}, but {there} are there")
        return torch.from_numpy(body.reshape(shape).copy())
