"""Range images in the delta encoding of the Waymo Open Motion Dataset's LiDAR."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.motion.formats.wire import (
    Fields,
    field,
    fields,
    pack_varints,
    packed,
    signed,
    unzigzag,
    varints,
    zigzag,
)
from regrow.reading import allowed_size, check_size

__all__ = ["decode_delta", "encode_delta"]

Array = npt.NDArray[Any]


def decode_delta(data: bytes, of: object = "a range image") -> npt.NDArray[np.float64]:
    """Return a range image from its delta encoding.

    Cells that are not 0 follow one another, channel by channel, then row by row; each is stored as
    its difference to the one before, in multiples of its channel's precision.

    Args:
        data: a message ``DeltaEncodedData``, compressed by zlib.
        of: what it is, for the error that it unpacks to too much.

    Returns:
        float, (rows, columns, channels); 0 where there is nothing.

    Raises:
        ValueError: it contradicts itself.
        UnreadableError: it unpacks to more than ``regrow.reading.check_size`` allows.

    Source: Waymo Open Dataset, delta_encoder.py (arXiv 2206.01738).
    """
    found = fields(_unpacked(data, of))
    shape, precision = _metadata(found)
    rows, columns, channels = shape
    check_size(of, 8 * math.prod(shape), len(data))
    steps = zigzag(varints(_bytes(found, 1)))
    filled = _runs(varints(_bytes(found, 2)), math.prod(shape))
    if filled.sum() != len(steps):
        raise ValueError(f"a range image has {len(steps)} values for {filled.sum()} cells")
    image = np.zeros(filled.shape)
    image[filled] = np.cumsum(steps)
    image = image.reshape(channels, rows, columns) * precision[:, None, None]
    return np.ascontiguousarray(image.transpose(1, 2, 0))


def encode_delta(image: Array, precision: Sequence[float]) -> bytes:
    """Return the delta encoding of a range image; values are rounded to the precision.

    Args:
        image: float, (rows, columns, channels).
        precision: of each channel, above 0.

    Example:
        >>> image = np.zeros((1, 3, 1))
        >>> image[0, 1] = 2.5
        >>> decode_delta(encode_delta(image, [0.5])).ravel().tolist()
        [0.0, 2.5, 0.0]
    """
    whole = np.round(np.asarray(image, float) / np.asarray(precision)).astype(np.int64)
    cells = whole.transpose(2, 0, 1).ravel()
    filled = cells != 0
    turns = np.flatnonzero(np.diff(filled, prepend=True, append=~filled[-1:]))
    runs = np.diff(turns, prepend=0)
    steps = np.diff(cells[filled], prepend=0)
    sizes = np.asarray(precision, "<f4").tobytes()
    metadata = b"".join(field(1, size) for size in image.shape) + field(2, sizes)
    residual = field(1, pack_varints(unzigzag(steps)))
    return zlib.compress(
        residual + field(2, pack_varints(runs.astype(np.uint64))) + field(3, metadata)
    )


def _unpacked(data: bytes, of: object) -> bytes:
    unpacker = zlib.decompressobj()
    unpacked = unpacker.decompress(data, allowed_size(len(data)))
    if unpacker.unconsumed_tail:
        check_size(of, len(unpacked) + 1, len(data))
    if not unpacker.eof:
        raise ValueError("a range image is cut off")
    return unpacked


def _metadata(found: Fields) -> tuple[tuple[int, ...], Array]:
    """Return the shape of an image and its channels' precisions."""
    own = fields(_bytes(found, 3))
    shape = tuple(
        size
        for value in own.get(1, [])
        for size in (varints(value).tolist() if isinstance(value, bytes) else [signed(value)])
    )
    precision = packed(own.get(2, []), "<f4").astype(float)
    if len(shape) != 3 or min(shape) < 1 or len(precision) != shape[2]:
        raise ValueError(f"a range image has shape {shape} and {len(precision)} precisions")
    return shape, precision


def _runs(lengths: Array, size: int) -> npt.NDArray[np.bool_]:
    """Return which cells are filled, from lengths of runs, of which the first is of filled ones."""
    if lengths.max(initial=0) > size or lengths.sum() != size:
        raise ValueError(f"the runs of a range image do not add up to {size} cells")
    return np.repeat(np.arange(len(lengths)) % 2 == 0, lengths.astype(np.int64))


def _bytes(found: Fields, number: int) -> bytes:
    """Return a field of bytes, put together where it comes in parts; none where it is absent."""
    parts = found.get(number, [])
    if any(isinstance(part, int) for part in parts):
        return pack_varints(np.array(parts, np.uint64))  # not packed, which readers must take
    return b"".join(part for part in parts if isinstance(part, bytes))
