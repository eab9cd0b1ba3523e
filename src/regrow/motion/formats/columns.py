"""Reads columns of feather and Parquet files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.machine import needed
from regrow.reading import decoding, read_file

__all__ = ["read_columns"]

Array = npt.NDArray[Any]


def read_columns(path: Path, names: Sequence[str]) -> dict[str, Array]:
    """Return columns of a feather or Parquet file by name.

    Args:
        path: the file; its name ends in .parquet or .feather.
        names: of columns that must be there.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: pyarrow is missing.
        UnreadableError: it is damaged, or a column or a value is missing.
    """
    with needed("pyarrow", "motion"):
        import pyarrow as pa  # noqa: PLC0415
        from pyarrow import feather, parquet  # noqa: PLC0415
    content = read_file(path)
    with decoding(path):
        source, listed = pa.BufferReader(content), list(names)
        if path.suffix == ".parquet":
            # Not read_table, which looks for a data set around the file.
            table = parquet.ParquetFile(source).read(columns=listed)
        else:
            table = feather.read_table(source, columns=listed)
        table.validate(full=True)
        if missing := [name for name in names if name not in table.column_names]:
            raise ValueError(f"has no column {missing[0]!r}")
        if empty := [name for name in names if table.column(name).null_count]:
            raise ValueError(f"column {empty[0]!r} has empty cells")
        return {name: np.asarray(table.column(name).to_numpy()) for name in names}
