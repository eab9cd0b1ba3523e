"""Reads and writes the wire format of protocol buffers, as far as data sets need it."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "Fields",
    "Value",
    "content",
    "field",
    "fields",
    "integer",
    "pack_varints",
    "packed",
    "rows",
    "signed",
    "unzigzag",
    "varint",
    "varints",
    "zigzag",
]

Array = npt.NDArray[Any]
Value = int | bytes
Fields = dict[int, list[Value]]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_SIZES = {_FIXED64: 8, _FIXED32: 4}
_LAYOUTS = 8  # of one length, that are read at once; what is made to harm has as many as messages


def fields(data: bytes) -> Fields:
    """Return the fields of a message by number: integers, or bytes still to be read.

    Args:
        data: the message.

    Raises:
        ValueError: it is no message.

    Example:
        >>> fields(field(1, 150) + field(2, b"testing"))
        {1: [150], 2: [b'testing']}

    Source: Protocol Buffers documentation, "Encoding".
    """
    found: Fields = {}
    for number, _, value, _ in _walk(data):
        found.setdefault(number, []).append(value)
    return found


def _walk(data: bytes) -> Iterator[tuple[int, int, Value, int]]:
    """Give each field's number, type, value and end."""
    place, size = 0, len(data)
    while place < size:
        key = data[place]
        place += 1
        if key >= 0x80:
            key, place = varint(data, place - 1)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value: Value
            value, place = varint(data, place)
        elif kind == _BYTES or kind in _SIZES:
            length = _SIZES.get(kind, 0)
            if kind == _BYTES and place < size and data[place] < 0x80:
                length, place = data[place], place + 1
            elif kind == _BYTES:
                length, place = varint(data, place)
            if place + length > size:
                raise ValueError(f"field {number} at byte {place} has {length} bytes, past the end")
            value = data[place : place + length]
            place += length
        else:
            raise ValueError(
                f"field {number} at byte {place} is of type {kind}, which there is not"
            )
        if number == 0:
            raise ValueError(f"a field at byte {place} has number 0")
        yield number, kind, value, place


def varint(data: bytes, place: int) -> tuple[int, int]:
    """Return an integer of variable length, unsigned, and the place behind it.

    Raises:
        ValueError: it has no end, or more than 10 bytes.
    """
    value = shift = 0
    for byte in data[place : place + 10]:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, place + shift // 7
    raise ValueError(f"the integer at byte {place} has no end")


def varints(data: bytes) -> npt.NDArray[np.uint64]:
    """Return packed integers of variable length, unsigned.

    Raises:
        ValueError: the last has no end, or one has more than 10 bytes.

    Example:
        >>> varints(bytes([1, 0x96, 1, 0])).tolist()
        [1, 150, 0]
    """
    raw = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(raw < 0x80)
    if len(raw) and (not len(ends) or ends[-1] != len(raw) - 1):
        raise ValueError("the last of the packed integers has no end")
    starts = np.concatenate([[0], ends[:-1] + 1]).astype(np.int64)[: len(ends)]
    lengths = ends - starts + 1
    if len(ends) and lengths.max() > 10:
        raise ValueError("a packed integer has more than 10 bytes")
    found = np.zeros(len(ends), np.uint64)
    for place in range(int(lengths.max(initial=0))):
        own = lengths > place
        bits = (raw[starts[own] + place] & 0x7F).astype(np.uint64)
        found[own] |= bits << np.uint64(7 * place)
    return found


def zigzag(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """Return the signed integers that ``sint64`` fields hold: 0, 1, 2, 3 are 0, -1, 1, -2."""
    half = (values >> np.uint64(1)).view(np.int64)
    return half ^ -(values & np.uint64(1)).view(np.int64)


def unzigzag(values: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """Return how ``sint64`` fields hold signed integers: the inverse of :func:`zigzag`."""
    return ((values << 1) ^ (values >> 63)).view(np.uint64)


def pack_varints(values: npt.NDArray[np.uint64]) -> bytes:
    """Return integers packed with variable length: the inverse of :func:`varints`."""
    shifts = np.arange(0, 70, 7, dtype=np.uint64)
    parts = (values[:, None] >> shifts) & np.uint64(0x7F)
    more = np.cumsum(parts[:, ::-1] > 0, axis=1)[:, ::-1] > 0
    more[:, 0] = True
    follows = np.concatenate([more[:, 1:], np.zeros((len(values), 1), bool)], axis=1)
    return (parts | np.where(follows, 0x80, 0).astype(np.uint64)).astype(np.uint8)[more].tobytes()


def integer(found: Fields, number: int, default: int = 0) -> int:
    """Return the integer in a field, the last of several; as it is absent, the default.

    Raises:
        ValueError: it is no integer.
    """
    return signed(found[number][-1]) if number in found else default


def content(value: Value) -> bytes:
    """Return the bytes in a field, such as a message.

    Raises:
        ValueError: it is an integer.
    """
    if not isinstance(value, bytes):
        raise ValueError("a message is an integer")
    return value


def signed(value: Value) -> int:
    """Return the integer of an ``int32`` or ``int64`` field, which may be below 0.

    Raises:
        ValueError: it is no integer.
    """
    if not isinstance(value, int):
        raise ValueError("is bytes, not an integer")
    return value - (1 << 64) if value >> 63 else value


def packed(values: Iterable[Value], kind: str) -> Array:
    """Return the numbers of a repeated field of fixed size, packed or not.

    Args:
        values: of the field.
        kind: of a number: "<f8" or "<f4".

    Raises:
        ValueError: bytes are left over.
    """
    parts = [value for value in values if isinstance(value, bytes)]
    return np.frombuffer(b"".join(parts), kind)


def rows(messages: Sequence[Value], layout: Mapping[int, str]) -> dict[int, Array]:
    """Return the fields of many small messages as arrays; what a message lacks is 0.

    Messages of the same length with the same keys at the same places are read all at once, which
    in published files are nearly all.

    Args:
        messages: alike in type.
        layout: number of a field to its type: "<f8", "<f4" or "varint".

    Returns:
        Number of a field to float64 or, for "varint", int64, (messages,).

    Raises:
        ValueError: one is no message, or a field is of another type.
    """
    found: dict[int, Array] = {
        number: np.zeros(len(messages), np.int64 if kind == "varint" else np.float64)
        for number, kind in layout.items()
    }
    by_length: dict[int, list[int]] = {}
    for place, message in enumerate(messages):
        by_length.setdefault(len(content(message)), []).append(place)
    for places in by_length.values():
        _read_alike(messages, np.array(places), layout, found)
    return found


def _read_alike(
    messages: Sequence[Any], places: Array, layout: Mapping[int, str], found: dict[int, Array]
) -> None:
    """Read messages of one length: those laid out as the first at once, then the rest."""
    for layouts in range(len(places)):
        if not len(places):
            return
        if layouts == _LAYOUTS:
            for place in places:
                _read_alike(messages, place[None], layout, found)
            return
        first: bytes = messages[places[0]]
        parts, fixed = _places_of(first, layout)
        block = np.frombuffer(b"".join([messages[place] for place in places]), np.uint8)
        block = block.reshape(len(places), len(first))
        alike = (block[:, fixed] == np.frombuffer(first, np.uint8)[fixed]).all(1)
        for number, start, value in parts:
            if layout[number] == "varint":
                found[number][places[alike]] = value
            else:
                size = int(layout[number][2:])
                column = np.ascontiguousarray(block[alike, start : start + size])
                with np.errstate(invalid="ignore"):  # a NaN that signals
                    found[number][places[alike]] = column.view(layout[number])[:, 0]
        places = places[~alike]


def _places_of(
    message: bytes, layout: Mapping[int, str]
) -> tuple[list[tuple[int, int, Any]], npt.NDArray[np.int64]]:
    """Return where the numbers of a message are, and which bytes decide that: all others."""
    parts: list[tuple[int, int, Any]] = []
    decides = np.ones(len(message), bool)
    for number, kind, value, end in _walk(message):
        size = _SIZES.get(kind, 0)
        decides[end - size : end] = False
        if number in layout:
            if (wanted := layout[number]) != {_VARINT: "varint"}.get(kind, f"<f{size}"):
                raise ValueError(f"field {number} is of type {kind}, not {wanted}")
            parts.append((number, end - size, signed(value) if kind == _VARINT else None))
    return parts, np.flatnonzero(decides)


def field(number: int, value: int | float | bytes | str, kind: str = "<f8") -> bytes:
    """Return a field as bytes: an integer, a float, or bytes such as a message.

    Args:
        number: of the field.
        value: what it holds.
        kind: of a float: "<f8" or "<f4".
    """
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        return _varint(number << 3 | _BYTES) + _varint(len(value)) + value
    if isinstance(value, int):
        return _varint(number << 3 | _VARINT) + _varint(value & 0xFFFFFFFFFFFFFFFF)
    wire = _FIXED64 if kind == "<f8" else _FIXED32
    return _varint(number << 3 | wire) + struct.pack("<d" if kind == "<f8" else "<f", value)


def _varint(value: int) -> bytes:
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
