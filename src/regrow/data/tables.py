"""Reads tables column by column: CSV and Parquet."""

from __future__ import annotations

import csv
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from regrow.machine import needed
from regrow.reading import check_names, check_size, decoding, open_file, open_unpacked, refused

__all__ = [
    "Columns",
    "arrow_reader",
    "as_numbers",
    "first_line",
    "has_header",
    "open_arrow",
    "read_arrow",
    "read_csv",
    "read_in_parts",
    "read_parquet",
    "read_plain",
]

_ARROW = b"ARROW1"

Columns = dict[str, npt.NDArray[Any]]
"""One-dimensional arrays by name: numbers (NaN is missing), or objects where a column holds text
(None is missing)."""


def read_csv(
    path: Path,
    *,
    header: bool = True,
    delimiter: str = ",",
    float32: bool = False,
    without: Collection[str] = (),
) -> Columns:
    r"""Read a CSV file; an empty field, NA or NaN is a missing value.

    Args:
        path: the file, gzipped if it ends in ``.gz``.
        header: whether the first line holds names; without it columns are x0, x1, ...
        delimiter: between fields.
        float32: read every column as such, in half the memory; text is an error then.
        without: columns that are not looked at.

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
        first = first_line(path, delimiter)
        names = first if header else [f"x{i}" for i in range(len(first))]
        types = dict.fromkeys(names, pyarrow.float32()) if float32 else None
        with _opened(path) as file:
            table = arrow.read_csv(
                file,
                arrow.ReadOptions(column_names=None if header else names),
                arrow.ParseOptions(delimiter=delimiter),
                arrow.ConvertOptions(column_types=types),
            )
        return _columns(table, path, without)


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
        first = first_line(path, delimiter)
    try:
        return any(np.isnan(float(field)) for field in first)
    except ValueError:
        return True


def read_parquet(path: Path, *, without: Collection[str] = ()) -> Columns:
    """Read a Parquet file; nulls are missing values.

    Args:
        path: the file.
        without: columns that are not looked at.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: as of :func:`read_csv`.
        ImportError: pyarrow is missing.
    """
    with needed("pyarrow", "features"):
        from pyarrow import parquet  # noqa: PLC0415
    with decoding(path), open_file(path) as file, parquet.ParquetFile(file) as opened:
        schema = opened.schema_arrow
        check_names(schema.names, "column")
        kept = [field for field in schema if field.name not in without]
        _check_types(path, [(field.name, field.type) for field in kept])
    # So each text is in memory once, however many rows hold it.
    text = [field.name for field in kept if _is_text(field.type)]
    with decoding(path):
        names = [field.name for field in kept] if without else None
        return _columns(read_in_parts(path, names, 1 << 16, text), path)


def read_arrow(path: Path, *, without: Collection[str] = ()) -> Columns:
    """Read an Arrow file, or a stream as Hugging Face writes; nulls are missing values.

    Args:
        path: the file.
        without: columns that are not looked at.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: as of :func:`read_csv`.
        ImportError: pyarrow is missing.
    """
    with decoding(path):
        return _columns(open_arrow(path), path, without)


def open_arrow(path: Path) -> Any:
    """Read an Arrow file or stream as a table of pyarrow's.

    Args:
        path: the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged; it is named.
        ImportError: pyarrow is missing.
    """
    with decoding(path), open_file(path) as file, arrow_reader(file) as reader:
        table = reader.read_all()
        check_size(path, table.nbytes, path.stat().st_size)
        table.validate(full=True)
    return table


def arrow_reader(file: BinaryIO) -> Any:
    """Open Arrow's format of a file, or of a stream, whichever it is.

    Args:
        file: at its begin.

    Raises:
        ImportError: pyarrow is missing.
    """
    with needed("pyarrow", "features"):
        from pyarrow import ipc  # noqa: PLC0415
    whole = file.read(len(_ARROW)) == _ARROW
    file.seek(0)
    return ipc.open_file(file) if whole else ipc.open_stream(file)


def read_in_parts(
    path: Path, columns: list[str] | None, rows: int, dictionary: Sequence[str] = ()
) -> Any:
    """Read columns of a Parquet file as a table of pyarrow's, within ``check_size``.

    A few bytes may say that a million rows hold the same large value; so what the file says of its
    size is looked at first, and what it came to after each part.

    Args:
        path: the file.
        columns: which, None for all; a field of a struct is ``"column.field"``.
        rows: of a part.
        dictionary: columns of text that hold each text once.

    Raises:
        UnreadableError: it is too large.
        ValueError: there are no rows.
    """
    from pyarrow import Table, parquet  # noqa: PLC0415

    stored, parts, size = path.stat().st_size, [], 0
    with open_file(path) as file:
        opened = parquet.ParquetFile(
            file, read_dictionary=list(dictionary), page_checksum_verification=True
        )
        counts, schema = opened.metadata, opened.schema_arrow
        groups = [counts.row_group(i) for i in range(counts.num_row_groups)]
        # Nothing is asked of single columns: pyarrow ends the process if their statistics are odd.
        told = sum(abs(group.total_byte_size) for group in groups)
        check_size(path, told + 8 * counts.num_rows * len(columns or schema), stored)
        for part in opened.iter_batches(rows, columns=columns):
            part.validate(full=True)
            parts.append(part)
            size += part.nbytes
            check_size(path, size, stored)
    if not parts:
        raise ValueError("no rows of data")
    return Table.from_batches(parts)


def read_plain(file: BinaryIO, columns: Mapping[str, bool], missing: str) -> Columns | None:
    """Read lines of numbers and text between commas, without quotes and escapes.

    Args:
        file: at the first line; there is no header.
        columns: names of all columns in order, and whether they hold numbers.
        missing: what stands for a missing value.

    Returns:
        Float64 and text by column; None: a line is not so, or pyarrow is not installed.
    """
    try:
        import pyarrow  # noqa: PLC0415
        from pyarrow import csv as arrow  # noqa: PLC0415
    except ImportError:
        return None
    text, number = pyarrow.dictionary(pyarrow.int32(), pyarrow.string()), pyarrow.float64()
    types = {name: number if numeric else text for name, numeric in columns.items()}
    try:
        table = arrow.read_csv(
            file,
            arrow.ReadOptions(column_names=list(columns)),
            arrow.ParseOptions(quote_char=False, escape_char=False),
            arrow.ConvertOptions(
                column_types=types, null_values=[missing], strings_can_be_null=True
            ),
        )
    except pyarrow.ArrowInvalid:
        return None
    return _columns(table, "the table")


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


def _opened(path: Path) -> BinaryIO:
    return open_unpacked(path, path.suffix == ".gz")


def first_line(path: Path, delimiter: str) -> list[str]:
    """Return the fields of the first line of a CSV file.

    Args:
        path: the file, gzipped if it ends in ``.gz``.
        delimiter: between fields.
    """
    with _opened(path) as file:
        line = file.readline().decode("utf-8-sig")
    return next(csv.reader([line], delimiter=delimiter), [])


def _columns(table: Any, of: object, without: Collection[str] = ()) -> Columns:
    check_names(table.column_names, "column")
    table = table.drop_columns([name for name in table.column_names if name in without])
    _check_types(of, [*zip(table.column_names, table.schema.types, strict=True)])
    if not table.num_rows:
        raise ValueError("no rows of data")
    return {
        name: _column(column)
        for name, column in zip(table.column_names, table.itercolumns(), strict=True)
    }


def _column(column: Any) -> npt.NDArray[Any]:
    from pyarrow import types  # noqa: PLC0415

    if not types.is_dictionary(column.type):
        values: npt.NDArray[Any] = column.to_numpy()
        return values
    parts = []
    for chunk in column.chunks:
        texts = np.array([*chunk.dictionary.to_pylist(), None], object)
        parts.append(texts[chunk.indices.fill_null(len(texts) - 1).to_numpy()])
    return np.concatenate(parts)


def _is_text(kind: Any) -> bool:
    from pyarrow import types  # noqa: PLC0415

    return bool(types.is_string(kind) or types.is_large_string(kind))


def _check_types(of: object, columns: Sequence[tuple[str, Any]]) -> None:
    """Refuse what is neither numbers nor text: a date or a list is no number by itself."""
    from pyarrow import types  # noqa: PLC0415

    numbers = (types.is_integer, types.is_floating, types.is_boolean, types.is_decimal)
    odd = []
    for name, kind in columns:
        value = kind.value_type if types.is_dictionary(kind) else kind
        if not (_is_text(value) or types.is_null(value) or any(one(value) for one in numbers)):
            odd.append(f"{name!r} ({kind})")
    if odd:
        raise refused(
            of,
            f"has columns that are neither numbers nor text: {', '.join(odd)}",
            "write them as numbers, or leave them out",
        )
