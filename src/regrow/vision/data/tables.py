"""Tables of numbers: CSV, ARFF and Parquet."""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["read_table"]

Source = gzip.GzipFile | io.BufferedReader

_BROKEN = (OSError, EOFError, ValueError, KeyError, zlib.error)  # pyarrow's own are of these


def read_table(path: Path) -> tuple[list[str], npt.NDArray[np.float32]]:
    """Read a table of numbers.

    Args:
        path: a CSV file, with or without a line of names; an ARFF file of the dense kind; or a
            Parquet file. The first two may be gzipped.

    Returns:
        The columns' names, empty if there are none; and float32 of shape (rows, columns).

    Raises:
        ValueError: the file is damaged, or a value is no number.
        ImportError: pyarrow is missing.
    """
    try:
        import pyarrow  # noqa: PLC0415
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError as error:
        raise ImportError("tables need pyarrow: pip install 'regrow[vision]'") from error
    try:
        if path.suffix in (".parquet", ".pq"):
            table = parquet.read_table(path)
            return list(table.column_names), _numbers(table)
        with _opened(path) as file:
            is_arff = path.name.removesuffix(".gz").endswith(".arff")
            names = _arff_names(file) if is_arff else _csv_names(file)
            columns = len(names)
            if not is_arff and _are_numbers(names):
                names = []
                file.seek(0)
            return names, _numbers(_read_csv(file, columns))
    except (*_BROKEN, pyarrow.ArrowException) as error:
        raise ValueError(f"{path} is damaged ({error}): get it again") from error


def _opened(path: Path) -> Source:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def _are_numbers(entries: list[str]) -> bool:
    try:
        return all(float(entry) == float(entry) for entry in entries)
    except ValueError:
        return False


def _csv_names(file: Source) -> list[str]:
    """Read the first line, be it of names or of numbers."""
    return [entry.strip().strip("\"'") for entry in file.readline().decode("utf-8").split(",")]


def _arff_names(file: Source) -> list[str]:
    """Read the head of an ARFF file; the file is left where the data begin."""
    names = []
    while line := file.readline().decode("utf-8", "replace"):
        keyword, _, rest = line.strip().partition(" ")
        if keyword.lower() == "@attribute":
            rest = rest.strip()
            quote = rest[:1] if rest[:1] in ("'", '"') else ""
            names.append(rest[1:].split(quote)[0] if quote else rest.split()[0])
        if keyword.lower() == "@data":
            return names
    raise ValueError("no line @data")


def _read_csv(file: Source, columns: int) -> Any:
    """Read lines of so many numbers."""
    import pyarrow  # noqa: PLC0415
    from pyarrow import csv  # noqa: PLC0415

    names = [str(i) for i in range(columns)]
    return csv.read_csv(
        file,
        read_options=csv.ReadOptions(column_names=names),
        parse_options=csv.ParseOptions(quote_char="'"),
        convert_options=csv.ConvertOptions(
            column_types=dict.fromkeys(names, pyarrow.float32()), null_values=[]
        ),
    )


def _numbers(table: Any) -> npt.NDArray[np.float32]:
    columns = table.columns
    numbers = np.empty((table.num_rows, len(columns)), np.float32)
    for i, column in enumerate(columns):
        if column.null_count:
            raise ValueError(f"column {table.column_names[i]!r} lacks values")
        numbers[:, i] = column.to_numpy().astype(np.float32)
    return numbers
