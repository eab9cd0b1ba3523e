"""Reads tables column by column: CSV and Parquet."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from regrow.reading import decoding
from regrow.machine import needed

__all__ = ["Columns", "as_numbers", "has_header", "read_csv", "read_parquet"]

Columns = dict[str, npt.NDArray[Any]]
"""One-dimensional arrays by name: numbers (NaN is missing), or objects where a column holds text
(None is missing)."""


def read_csv(
    path: Path, *, header: bool = True, delimiter: str = ",", float32: bool = False
) -> Columns:
    r"""Read a CSV file; an empty field, NA or NaN is a missing value.

    Args:
        path: the file, gzipped if it ends in ``.gz``.
        header: whether the first line holds names; without it columns are x0, x1, ...
        delimiter: between fields.
        float32: read every column as such, in half the memory; text is an error then.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, has no rows, or two columns of one name; the file is named.
        ImportError: pyarrow is missing.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "tea.csv"
        ...     _ = path.write_text("heat,steep,class\n80,2.5,green\n95,,black\n")
        ...     columns = read_csv(path)
        >>> columns["heat"].tolist(), columns["steep"].tolist(), columns["class"].tolist()
        ([80, 95], [2.5, nan], ['green', 'black'])
    """
    with needed("pyarrow", "features"):
        import pyarrow  # noqa: PLC0415
        from pyarrow import csv as arrow  # noqa: PLC0415
    with decoding(path):
        first = _first_line(path, delimiter)
        names = first if header else [f"x{i}" for i in range(len(first))]
        types = dict.fromkeys(names, pyarrow.float32()) if float32 else None
        with _opened(path) as file:
            table = arrow.read_csv(
                file,
                arrow.ReadOptions(column_names=None if header else names),
                arrow.ParseOptions(delimiter=delimiter),
                arrow.ConvertOptions(column_types=types),
            )
        return _columns(table)


def has_header(path: Path, delimiter: str = ",") -> bool:
    """Tell whether the first line of a CSV file holds names, for not all of it are numbers.

    Args:
        path: the file, gzipped if it ends in ``.gz``.
        delimiter: between fields.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged; it is named.
    """
    with decoding(path):
        first = _first_line(path, delimiter)
    try:
        return any(np.isnan(float(field)) for field in first)
    except ValueError:
        return True


def read_parquet(path: Path) -> Columns:
    """Read a Parquet file; nulls are missing values.

    Args:
        path: the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: as of :func:`read_csv`.
        ImportError: pyarrow is missing.
    """
    with needed("pyarrow", "features"):
        from pyarrow import parquet  # noqa: PLC0415
    with decoding(path):
        return _columns(parquet.read_table(path))


def as_numbers(column: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a column as numbers; text is read as such, and a missing value is NaN.

    Args:
        column: of a table.

    Raises:
        ValueError: it holds text that is no number.

    Example:
        >>> as_numbers(np.array(["1", None, "2.5"], object)).tolist()
        [1.0, nan, 2.5]
    """
    if column.dtype.kind in "fiub":
        return column
    try:
        return np.array([np.nan if value is None else value for value in column]).astype(float)
    except TypeError as error:
        raise ValueError(str(error)) from error


def _opened(path: Path) -> gzip.GzipFile | BinaryIO:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def _first_line(path: Path, delimiter: str) -> list[str]:
    with _opened(path) as file:
        line = file.readline().decode("utf-8-sig")
    return next(csv.reader([line], delimiter=delimiter), [])


def _columns(table: Any) -> Columns:
    names = list(table.column_names)
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"column {min(twice)!r} is there twice")
    if not table.num_rows:
        raise ValueError("no rows of data")
    return {
        name: column.to_numpy() for name, column in zip(names, table.itercolumns(), strict=True)
    }
