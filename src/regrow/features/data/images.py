"""Fashion-MNIST as a table of pixels."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.features.data.feature_set import FeatureSet, make_feature_set

__all__ = ["load_fashion_mnist"]

_ADVICE = "install Debian's package dataset-fashion-mnist, or put the IDX files there"


def load_fashion_mnist(find: Callable[[str, str], Path], rows: int = 10_000) -> FeatureSet:
    """Load the first training images of Fashion-MNIST.

    Args:
        find: finds a file by its name below a data folder, given advice on how to get it.
        rows: how many images.

    Raises:
        FileNotFoundError: the files are nowhere.
        ValueError: a file is damaged.
    """
    paths = [
        find(f"fashion-mnist/train-{part}-ubyte.gz", _ADVICE)
        for part in ("images-idx3", "labels-idx1")
    ]
    images, labels = (_read_idx(path)[:rows] for path in paths)
    return make_feature_set(
        "fashion-mnist",
        images.reshape(len(images), -1),
        labels,
        where=str(paths[0]),
        shape=(28, 28),
        source=f"Fashion-MNIST (Xiao et al. 2017), the first {len(images)} training images",
    )


def _read_idx(path: Path) -> npt.NDArray[Any]:
    """Read a gzipped IDX file of bytes; another domain's reader is not ours to use."""
    try:
        content = gzip.decompress(path.read_bytes())
        zeros, kind, dimensions = struct.unpack(">HBB", content[:4])
        shape = struct.unpack(f">{dimensions}I", content[4 : 4 + 4 * dimensions])
        if (zeros, kind) != (0, 8):
            raise ValueError(f"type {kind} is not bytes")
        return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
    except (OSError, EOFError, zlib.error, struct.error, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}): get it again") from error
