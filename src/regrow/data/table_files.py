"""Tables of any kind that is read here, told by the ends of their names."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from regrow.data.tables import (
    Columns,
    arrow_reader,
    first_line,
    has_header,
    open_arrow,
    read_arrow,
    read_csv,
    read_in_parts,
    read_parquet,
)
from regrow.machine import needed
from regrow.reading import check_names, decoding, open_file, refused

__all__ = ["open_schema", "open_table", "read_columns"]


def open_schema(path: Path) -> tuple[dict[str, str], str]:
    """Return the columns of a table with their types, and what Hugging Face says of them.

    Args:
        path: a Parquet or Arrow file, or CSV, whose types are not told.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged; it is named.
        ImportError: pyarrow is missing.
    """
    kind = _kind(path)
    if kind in ("csv", "tsv"):
        with decoding(path):
            names = first_line(path, _DELIMITERS[kind])
            check_names(names, "column")
        return dict.fromkeys(names, ""), ""
    with needed("pyarrow", "features"):
        from pyarrow import parquet  # noqa: PLC0415
    with decoding(path), open_file(path) as file:
        if file.read(len(_POINTER)) == _POINTER:
            fix = "get the file itself, git lfs pull"
            raise refused(path, "is a pointer of Git LFS, which says where the file is", fix)
        file.seek(0)
        if kind == "arrow":
            with arrow_reader(file) as reader:
                schema = reader.schema
        else:
            schema = parquet.ParquetFile(file).schema_arrow
        check_names(schema.names, "column")
        told = (schema.metadata or {}).get(b"huggingface", b"").decode()
    return {field.name: str(field.type) for field in schema}, told


def open_table(path: Path, columns: Sequence[str], rows: int) -> Any:
    """Read columns of a Parquet or Arrow file as a table of pyarrow's.

    Args:
        path: the file.
        columns: which.
        rows: to read at once: few, where values are large, such as images.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged; it is named.
        ImportError: pyarrow is missing.
    """
    there = open_schema(path)[0]
    for name in columns:
        if name not in there:
            raise refused(path, f"has no column {name!r}", "give tables of the same columns")
    if _kind(path) == "arrow":
        return open_arrow(path).select([*columns])
    with decoding(path):
        return read_in_parts(path, [*columns], rows)


def read_columns(path: Path, *, without: Collection[str] = ()) -> Columns:
    """Read a table of any of the kinds that are read here, told by the end of its name.

    Args:
        path: ``.csv`` or ``.tsv``, gzipped or not, ``.parquet``, ``.pq`` or ``.arrow``.
        without: columns that are not looked at.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or of no such kind; it is named.
        ImportError: pyarrow is missing.
    """
    kind = _kind(path)
    if kind in _DELIMITERS:
        if not has_header(path, _DELIMITERS[kind]):
            raise refused(path, "has no names in its first line", "add a line of names")
        return read_csv(path, delimiter=_DELIMITERS[kind], without=without)
    return (read_arrow if kind == "arrow" else read_parquet)(path, without=without)


_POINTER = b"version https://git-lfs"
_DELIMITERS = {"csv": ",", "tsv": "\t"}


def _kind(path: Path) -> str:
    ending = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    if ending in (*_DELIMITERS, "arrow", "parquet", "pq"):
        return ending
    raise refused(path, "is no table", "give a file that ends in .csv, .tsv, .parquet or .arrow")
