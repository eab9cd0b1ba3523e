"""Reads ARFF: attributes, then rows of values, or of index and value where most are zero."""

from __future__ import annotations

import contextlib
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from regrow.data.tables import Columns, read_plain
from regrow.reading import allowed_size, check_names, check_size, decoding, open_unpacked

__all__ = ["read_arff"]

# In quotes or bare; a backslash takes the next character as it is. No part of it ever backtracks
# (*+), or a line could take exponential time.
_FIELD = re.compile(
    r"""\s*+(?:'(?P<single>(?:\\.|[^'\\])*+)'|"(?P<double>(?:\\.|[^"\\])*+)"
    |(?P<bare>(?:\\.|[^,\s\\'"])(?:\\.|[^,\\])*+)|)\s*+(?P<end>,|$)""",
    re.VERBOSE,
)
_NAME = re.compile(
    r"""@attribute\s++(?:'(?P<single>(?:\\.|[^'\\])*+)'|"(?P<double>(?:\\.|[^"\\])*+)"
    |(?P<bare>[^\s'"]++))\s++(?P<kind>.++)""",
    re.IGNORECASE | re.VERBOSE,
)
_PLACE = re.compile(r"\s*+([0-9]+)\s++", re.ASCII)
_NOT_PLAIN = "'\"\\%{"  # a value with one of these means something else in a row
_NUMBERS, _TEXT = ("numeric", "real", "integer"), ("string", "date")


@dataclass(frozen=True)
class _Attribute:
    """What a column holds: numbers; one of some values; or, without either, any text."""

    name: str
    numeric: bool
    values: dict[str, str] | None = None

    @property
    def zero(self) -> Any:
        """What a sparse row means by leaving the attribute out."""
        return 0.0 if self.numeric else next(iter(self.values or {"": ""}))


def read_arff(path: Path) -> Columns:
    """Read an ARFF file, of the dense or the sparse kind; ``?`` is a missing value.

    Args:
        path: the file, gzipped if it ends in ``.gz``.

    Returns:
        Arrays by attribute: float64, or objects of strings; None is a missing string, NaN a
        missing number.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged; the message names the file and the line.

    Source: ARFF, as of Weka and OpenML.
    """
    with decoding(path):
        opened = partial(open_unpacked, path, path.suffix == ".gz")
        return _read_fast(opened) or _read(opened, path)


def _read_fast(opened: Callable[[], BinaryIO]) -> Columns | None:
    """Read plain rows of numbers and nominal values; None: they are not, or something is wrong."""
    with opened() as file:
        attributes = list(_head(_lines(file)))
        check_names([one.name for one in attributes], "attribute")
        if not attributes or not all(one.numeric or _plain(one.values) for one in attributes):
            return None
        columns = read_plain(file, {one.name: one.numeric for one in attributes}, "?")
    if columns is None or not all(
        one.numeric or set(columns[one.name]) <= {*(one.values or ()), None} for one in attributes
    ):
        return None
    return columns


def _plain(values: Mapping[str, str] | None) -> bool:
    return values is not None and not any(mark in value for value in values for mark in _NOT_PLAIN)


def _read(opened: Callable[[], BinaryIO], path: Path) -> Columns:
    with opened() as file:
        lines = _lines(file)
        attributes = list(_head(lines))
        columns: list[Any] = [array("d") if one.numeric else [] for one in attributes]
        zeros = [one.zero for one in attributes]
        stored, row_size = path.stat().st_size, 8 * len(attributes)
        size, allowed = 0, allowed_size(stored)
        for number, line in lines:
            size += row_size
            if size > allowed:  # a sparse row of two bytes may be very long
                check_size(path, size, stored)
            for column, value in zip(columns, _row(number, line, attributes, zeros), strict=True):
                column.append(value)
    if not columns or not len(columns[0]):
        raise ValueError("no rows of data")
    return {
        one.name: np.array(column, float if one.numeric else object)
        for one, column in zip(attributes, columns, strict=True)
    }


def _lines(file: Iterable[bytes]) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(file, 1):
        try:
            stripped = line.decode().strip()
        except UnicodeDecodeError as error:
            raise ValueError(f"line {number}: {error}: it must be UTF-8") from error
        if stripped and not stripped.startswith("%"):
            yield number, stripped


def _head(lines: Iterator[tuple[int, str]]) -> Iterator[_Attribute]:
    """Read up to the line @data."""
    for number, line in lines:
        keyword = line.split(None, 1)[0].lower()
        if keyword == "@data":
            return
        if keyword == "@attribute":
            with _line(number):
                yield _attribute(line)
        elif keyword != "@relation":
            raise ValueError(f"line {number}: {line[:40]!r} is neither @attribute nor @data")
    raise ValueError("no line @data")


def _attribute(line: str) -> _Attribute:
    match = _NAME.fullmatch(line)
    if match is None:
        raise ValueError(f"{line[:40]!r} has no name and type")
    name, kind = _text(match), match["kind"].strip()
    if kind.startswith("{") and kind.endswith("}"):
        values = _fields(kind[1:-1])
        if len(set(values)) < len(values):
            raise ValueError(f"{name!r} has the same value twice")
        return _Attribute(name, False, {value: value for value in values})
    if (word := kind.lower().split()[0]) not in _NUMBERS + _TEXT:
        known = ", ".join(_NUMBERS + _TEXT)
        raise ValueError(f"{name!r} is of type {kind[:40]!r}, none of {known}, {{}}")
    return _Attribute(name, word in _NUMBERS)


def _row(number: int, line: str, attributes: Sequence[_Attribute], zeros: list[Any]) -> list[Any]:
    with _line(number):
        if line.startswith("{"):
            return _sparse(line, attributes, zeros)
        fields = _fields(line)
        if len(fields) != len(attributes):
            raise ValueError(f"{len(fields)} values for {len(attributes)} attributes")
        return [_value(field, one) for field, one in zip(fields, attributes, strict=True)]


@contextlib.contextmanager
def _line(number: int) -> Iterator[None]:
    """Say in an error which line it is."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"line {number}: {error}") from error


def _sparse(line: str, attributes: Sequence[_Attribute], zeros: list[Any]) -> list[Any]:
    if not line.endswith("}"):
        raise ValueError("a sparse row without its end, }")
    row, given = zeros.copy(), set()
    text, start = line[1:-1].strip(), 0
    while start < len(text):
        place = _PLACE.match(text, start)
        if place is None:
            raise ValueError(f"{text[start : start + 40]!r} is no index and value")
        index = int(place[1])
        if index >= len(attributes) or index in given:
            twice = " once more" if index in given else f" of {len(attributes)} attributes"
            raise ValueError(f"index {index}{twice}")
        field, start = _field(text, place.end())
        given.add(index)
        row[index] = _value(field, attributes[index])
    return row


def _fields(line: str) -> list[str]:
    if not line.strip():
        return []
    if not any(mark in line for mark in "'\"\\"):
        return [field.strip() for field in line.split(",")]
    fields, start, more = [], 0, True
    while more:
        field, end = _field(line, start)
        more = line[start:end].endswith(",")
        fields.append(field)
        start = end
    return fields


def _field(line: str, start: int) -> tuple[str, int]:
    """Return the field that starts at a place, and where the next one does."""
    match = _FIELD.match(line, start)
    if match is None:
        raise ValueError(f"{line[start : start + 40]!r} has a quote that does not end as it must")
    return _text(match), match.end()


def _text(match: re.Match[str]) -> str:
    quoted = match["single"] if match["single"] is not None else match["double"]
    text = (match["bare"] or "").strip() if quoted is None else quoted
    return re.sub(r"\\(.)", r"\1", text) if "\\" in text else text


def _value(field: str, attribute: _Attribute) -> Any:
    if field == "?":
        return np.nan if attribute.numeric else None
    if attribute.numeric:
        if "_" in field:  # which Python takes for a number
            raise ValueError(f"could not convert {field!r} to a number")
        return float(field)
    if attribute.values is None:
        return field
    if field not in attribute.values:
        raise ValueError(f"{field!r} is no value of {attribute.name!r}")
    return attribute.values[field]  # the same object: a text a row takes memory
