"""Tables with names: CSV, Parquet, and OpenML's ARFF."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from regrow.data import arff, tables
from regrow.features.data.feature_set import FeatureSet, make_feature_set

__all__ = ["read_arff", "read_csv", "read_parquet"]

TARGETS = ("class", "target", "label", "y")
_SHOWN = 8  # names in an error


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
    columns = tables.read_csv(path, header=header, delimiter=delimiter)
    return _feature_set(path, columns, target, regression)


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
    return _feature_set(path, tables.read_parquet(path), target, regression)


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
    return _feature_set(path, arff.read_arff(path), target, regression)


def _feature_set(
    path: Path, columns: tables.Columns, target: str | int | None, regression: bool
) -> FeatureSet:
    where = str(path)
    label = _target(list(columns), target, where)
    features = {key: column for key, column in columns.items() if key != label}
    if not features:
        raise ValueError(f"{where}: {label!r} is its only column; there are no features")
    matrix = np.column_stack([_feature(key, col, where) for key, col in features.items()])
    return make_feature_set(
        path.name.split(".")[0],
        matrix,
        columns[label],
        where=where,
        regression=regression,
        feature_names=tuple(features),
        source=path.name,
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
    labels = [name for name in names if name.lower() in TARGETS]
    if len(labels) == 1:
        return labels[0]
    what = "several columns" if labels else "no column"
    raise ValueError(f"{where}: {what} called {', '.join(TARGETS)}; say target=, one of {shown}")


def _feature(name: str, column: Any, where: str) -> Any:
    try:
        return tables.as_numbers(column)
    except ValueError as error:
        raise ValueError(
            f"{where}: feature {name!r} holds text ({error}); encode it first, or say target="
        ) from error
