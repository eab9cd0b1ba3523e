"""Tables with names: CSV, Parquet, and OpenML's ARFF."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from regrow.features.data.arff import ArffError, read_arff_columns
from regrow.features.data.feature_set import FeatureSet, make_feature_set

__all__ = ["read_arff", "read_csv", "read_parquet"]

TARGETS = ("class", "target", "label", "y")
_BROKEN = (OSError, EOFError, ValueError, KeyError, IndexError, zlib.error)  # and pyarrow's own
_SHOWN = 8  # names in an error

Columns = dict[str, Any]
"""One-dimensional arrays by name: numbers, or objects where a column holds text."""


def read_csv(
    path: Path,
    target: str | int | None = None,
    *,
    header: bool = True,
    delimiter: str = ",",
    regression: bool = False,
) -> FeatureSet:
    r"""Read a CSV file; an empty field, NA or NaN is a missing value.

    Args:
        path: the file, gzipped if it ends in ``.gz``.
        target: the column of labels, by name or by number (-1 is the last); None is the only one
            called class, target, label or y, in any case.
        header: whether the first line holds names; without it columns are x0, x1, ...
        delimiter: between fields.
        regression: keep the target's numbers instead of coding labels.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, has no such column, or a feature is text; the message names it.
        ImportError: pyarrow is missing.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "tea.csv"
        ...     _ = path.write_text("heat,steep,class\n80,2.5,green\n95,4,black\n")
        ...     found = read_csv(path)
        >>> found.feature_names, found.labels, found.y.tolist()
        (('heat', 'steep'), ('black', 'green'), [1, 0])
    """

    def read() -> Columns:
        from pyarrow import csv  # noqa: PLC0415

        options = csv.ReadOptions(autogenerate_column_names=not header)
        table = csv.read_csv(path, options, csv.ParseOptions(delimiter=delimiter))
        names = table.column_names if header else [f"x{i}" for i in range(table.num_columns)]
        return _of_arrow(table.rename_columns(names))

    return _read(path, read, target, regression)


def read_parquet(
    path: Path, target: str | int | None = None, *, regression: bool = False
) -> FeatureSet:
    """Read a Parquet file; nulls are missing values.

    Args:
        path: the file.
        target: the column of labels, as for :func:`read_csv`.
        regression: keep the target's numbers instead of coding labels.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, has no such column, or a feature is text; the message names it.
        ImportError: pyarrow is missing.
    """

    def read() -> Columns:
        from pyarrow import parquet  # noqa: PLC0415

        return _of_arrow(parquet.read_table(path))

    return _read(path, read, target, regression)


def read_arff(
    path: Path, target: str | int | None = None, *, regression: bool = False
) -> FeatureSet:
    """Read an ARFF file, of the dense or the sparse kind; ``?`` is a missing value.

    Nominal features are read if their values are numbers.

    Args:
        path: the file, gzipped if it ends in ``.gz``.
        target: the column of labels, as for :func:`read_csv`.
        regression: keep the target's numbers instead of coding labels.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, has no such column, or a feature is text; the message names it.

    Source: ARFF, as of Weka and OpenML.
    """
    return _read(path, lambda: read_arff_columns(path), target, regression)


def _read(
    path: Path, read: Callable[[], Columns], target: str | int | None, regression: bool
) -> FeatureSet:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        columns = read()
    except ImportError as error:
        raise ImportError(f"{path.suffix} needs pyarrow: pip install 'regrow[features]'") from error
    except (*_BROKEN, ArffError) as error:
        raise ValueError(f"{path} is damaged ({error}): get it again") from error
    return from_columns(path.name.split(".")[0], columns, target, str(path), regression=regression)


def from_columns(
    name: str, columns: Columns, target: str | int | None, where: str, *, regression: bool = False
) -> FeatureSet:
    """Make a feature set of named columns, one of which holds the labels."""
    label = _target(list(columns), target, where)
    features = {key: column for key, column in columns.items() if key != label}
    if not features:
        raise ValueError(f"{where}: {label!r} is its only column; there are no features")
    matrix = np.column_stack([_feature(key, col, where) for key, col in features.items()])
    return make_feature_set(
        name,
        matrix,
        columns[label],
        where=where,
        regression=regression,
        feature_names=tuple(features),
        source=where.rpartition("/")[2],
    )


def _target(names: list[str], target: str | int | None, where: str) -> str:
    shown = ", ".join(names[:_SHOWN]) + ", …" * (len(names) > _SHOWN)
    if isinstance(target, str):
        if target in names:
            return target
        raise ValueError(f"{where}: target={target!r} is none of its columns: {shown}")
    if target is not None:
        if -len(names) <= target < len(names):
            return names[target]
        raise ValueError(f"{where}: target={target}, but it has {len(names)} columns")
    found = [name for name in names if name.lower() in TARGETS]
    if len(found) == 1:
        return found[0]
    what = "several columns" if found else "no column"
    raise ValueError(f"{where}: {what} called {', '.join(TARGETS)}; say target=, one of {shown}")


def _feature(name: str, column: Any, where: str) -> Any:
    if column.dtype.kind in "fiub":
        return column
    try:
        filled = [np.nan if value is None else value for value in column]
        return np.asarray(filled).astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{where}: feature {name!r} holds text ({error}); encode it first, or say target="
        ) from error


def _of_arrow(table: Any) -> Columns:
    names = list(table.column_names)
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"column {min(twice)!r} is there twice")
    return {
        name: column.to_numpy() for name, column in zip(names, table.itercolumns(), strict=True)
    }
