"""Reads ARFF: attributes, then rows of values, or of index and value where most are zero."""

from __future__ import annotations

import csv
import gzip
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from regrow.reading import decoding
from regrow.data.tables import Columns

__all__ = ["read_arff"]

_ATTRIBUTE = re.compile(
    r"""@attribute\s+(?:'(?P<single>(?:\\.|[^'])*)'|"(?P<double>(?:\\.|[^"])*)"|(?P<plain>\S+))
    \s+(?P<kind>.+)""",
    re.IGNORECASE | re.VERBOSE,
)
_NUMBERS = ("numeric", "real", "integer")


@dataclass(frozen=True)
class _Attribute:
    name: str
    numeric: bool
    values: tuple[str, ...] = ()

    @property
    def zero(self) -> Any:
        """What a sparse row means by leaving the attribute out."""
        return 0.0 if self.numeric else (self.values[0] if self.values else "")


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
    opener = gzip.open if path.suffix == ".gz" else Path.open
    with decoding(path), opener(path, "rt", encoding="utf-8") as file:
        return _read(_lines(file))


def _read(lines: Iterator[tuple[int, str]]) -> Columns:
    attributes = list(_head(lines))
    names = [attribute.name for attribute in attributes]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"attribute {min(twice)!r} is there twice")
    columns: list[Any] = [array("d") if one.numeric else [] for one in attributes]
    for number, line in lines:
        for column, value in zip(columns, _row(number, line, attributes), strict=True):
            column.append(value)
    if not columns or not len(columns[0]):
        raise ValueError("no rows of data")
    return {
        one.name: np.array(column, float if one.numeric else object)
        for one, column in zip(attributes, columns, strict=True)
    }


def _lines(file: Iterable[str]) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(file, 1):
        stripped = line.strip()
        if stripped and not stripped.startswith("%"):
            yield number, stripped


def _head(lines: Iterator[tuple[int, str]]) -> Iterator[_Attribute]:
    """Read up to the line @data."""
    for number, line in lines:
        keyword = line.split(None, 1)[0].lower()
        if keyword == "@data":
            return
        if keyword == "@attribute":
            yield _attribute(number, line)
        elif keyword != "@relation":
            raise ValueError(f"line {number}: {line[:40]!r} is neither @attribute nor @data")
    raise ValueError("no line @data")


def _attribute(number: int, line: str) -> _Attribute:
    match = _ATTRIBUTE.fullmatch(line)
    if match is None:
        raise ValueError(f"line {number}: {line[:40]!r} has no name and type")
    quoted = match["single"] if match["single"] is not None else match["double"]
    name = match["plain"] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
    kind = match["kind"].strip()
    if kind.startswith("{") and kind.endswith("}"):
        return _Attribute(name, False, tuple(_fields(kind[1:-1])))
    return _Attribute(name, kind.lower().split()[0] in _NUMBERS)


def _row(number: int, line: str, attributes: Sequence[_Attribute]) -> list[Any]:
    try:
        if line.startswith("{"):
            return _sparse(line, attributes)
        fields = _fields(line)
        if len(fields) != len(attributes):
            raise ValueError(f"{len(fields)} values for {len(attributes)} attributes")
        return [_value(field, one) for field, one in zip(fields, attributes, strict=True)]
    except (ValueError, IndexError) as error:
        raise ValueError(f"line {number}: {error}") from error


def _sparse(line: str, attributes: Sequence[_Attribute]) -> list[Any]:
    if not line.endswith("}"):
        raise ValueError("a sparse row without its end, }")
    row = [attribute.zero for attribute in attributes]
    for field in _fields(line[1:-1]):
        place, _, value = field.partition(" ")
        if not 0 <= int(place) < len(row):
            raise ValueError(f"index {place} of {len(row)} attributes")
        row[int(place)] = _value(value.strip().strip("'\""), attributes[int(place)])
    return row


def _fields(line: str) -> list[str]:
    if not line.strip():
        return []
    quote = "'" if "'" in line else '"'
    reader = csv.reader([line], quotechar=quote, escapechar="\\", skipinitialspace=True)
    return [field.strip() for field in next(reader)]


def _value(field: str, attribute: _Attribute) -> Any:
    if field == "?":
        return np.nan if attribute.numeric else None
    if attribute.numeric:
        return float(field)
    if attribute.values and field not in attribute.values:
        raise ValueError(f"{field!r} is no value of {attribute.name!r}")
    return field
