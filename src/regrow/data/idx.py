"""IDX files of bytes: the format of MNIST and its kin."""

from __future__ import annotations

import gzip
import math
import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from regrow.reading import damaged, decoding

__all__ = ["read_idx"]


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
    with decoding(path):
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        zeros, kind, dimensions = struct.unpack(">HBB", content[:4])
        shape = struct.unpack(f">{dimensions}I", content[4 : 4 + 4 * dimensions])
        body = np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions)
    if zeros != 0 or kind != 8 or body.size != math.prod(shape):
        raise damaged(path, f"no IDX file of {shape} bytes: type {kind}, {body.size} entries")
    return torch.from_numpy(body.reshape(shape).copy())
