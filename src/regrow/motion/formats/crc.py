"""CRC-32C, the checksum of TFRecord: by google-crc32c where it is installed, else by NumPy."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["crc32c", "crc32c_numpy", "masked"]

Array = npt.NDArray[Any]

_POLYNOMIAL = 0x82F63B78  # reversed
_LANES = 1024  # of long data, so that a loop over their bytes works on all lanes at once


def crc32c(data: bytes | memoryview) -> int:
    """Return the CRC-32C of some bytes.

    Example:
        >>> hex(crc32c(b"123456789"))
        '0xe3069283'

    Source: RFC 3720, appendix B.4.
    """
    found = _library()
    return int(found(bytes(data))) if found else crc32c_numpy(data)


def masked(crc: int) -> int:
    """Return a checksum as TFRecord stores it, so that data with checksums inside stay safe.

    Example:
        >>> hex(masked(0))
        '0xa282ead8'
    """
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def crc32c_numpy(data: bytes | memoryview) -> int:
    """Return the CRC-32C of some bytes, computed in lanes that are then put together.

    A checksum is linear: that of two parts is that of the first, moved over as many zero bytes as
    the second has, plus that of the second.
    """
    content = np.frombuffer(data, np.uint8)
    lanes = _LANES if len(content) >= 16 * _LANES else 1
    length = len(content) // lanes
    head, tail = content[: len(content) - lanes * length], content[len(content) - lanes * length :]
    crc = _run(np.array([0xFFFFFFFF], np.uint32), head[:, None])
    parts = _run(np.zeros(lanes, np.uint32), np.ascontiguousarray(tail.reshape(lanes, length).T))
    parts[0] ^= _apply(_zeros(length), crc)[0]
    while len(parts) > 1:
        parts = _apply(_zeros(length), parts[::2]) ^ parts[1::2]
        length *= 2
    return int(parts[0]) ^ 0xFFFFFFFF


def _run(crc: Array, columns: Array) -> Array:
    """Return checksums after more bytes, a row of ``columns`` at a time for all lanes."""
    table = _table()
    for column in columns:
        crc = table[(crc ^ column) & 0xFF] ^ (crc >> np.uint32(8))
    return crc


@functools.cache
def _table() -> Array:
    crc = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        crc = (crc >> np.uint32(1)) ^ np.where(crc & 1, np.uint32(_POLYNOMIAL), np.uint32(0))
    return crc


@functools.lru_cache(maxsize=256)
def _zeros(length: int) -> tuple[int, ...]:
    """Return the images of the 32 bits under ``length`` zero bytes, by repeated squaring."""
    bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
    power = _run(bits, np.zeros((1, 32), np.uint32))
    found = bits
    while length:
        if length & 1:
            found = _apply(tuple(power.tolist()), found)
        power = _apply(tuple(power.tolist()), power)
        length >>= 1
    return tuple(found.tolist())


def _apply(images: tuple[int, ...], crcs: Array) -> Array:
    """Return the images of checksums under a linear map, given by the images of the bits."""
    found = np.zeros_like(crcs)
    for bit, image in enumerate(images):
        found ^= np.where((crcs >> np.uint32(bit)) & 1, np.uint32(image), np.uint32(0))
    return found


@functools.cache
def _library() -> Any:
    try:
        from google_crc32c import value  # noqa: PLC0415  (an extra)
    except ImportError:
        return None
    return value
