"""Tables of one's own as what networks take: numbers, and which class a row is of."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.data.table_files import open_schema, read_columns
from regrow.data.tables import Columns, as_numbers
from regrow.reading import decoding, refused

__all__ = [
    "Labels",
    "code_labels",
    "image_column",
    "label_column",
    "labels_of",
    "read_tables",
    "table_set",
]

Labels = npt.NDArray[Any]
"""One a row: integers, or objects where they are text."""

_CALLED = ("class", "label", "labels", "target", "y", "coarse_label", "fine_label")
_SHOWN = 12  # names in an error
_MOST = 100  # different texts of a column that becomes columns of 0 and 1


def image_column(path: Path) -> str | None:
    """Return the column of a table that holds images; None if there is none.

    Args:
        path: a Parquet, Arrow or CSV file, of which the last has none.

    Raises:
        ValueError: several columns hold some.
    """
    found = []
    for name, kind in open_schema(path)[0].items():
        if kind == "binary" or (kind.startswith("struct<") and "bytes: binary" in kind):
            found.append(name)
    if len(found) > 1:
        raise refused(path, f"has several columns of images ({', '.join(found)})", "keep one")
    return found[0] if found else None


def label_column(path: Path, target: str) -> str:
    """Return the column that holds the classes.

    Args:
        path: of the table.
        target: its name; empty: the one column that Hugging Face's description marks as classes,
            else the one that is called class, label, target or y.

    Raises:
        ValueError: there is no such column, or there are several.
    """
    kinds, told = open_schema(path)
    shown = ", ".join([*kinds][:_SHOWN]) + (", …" if len(kinds) > _SHOWN else "")
    if target:
        if target not in kinds:
            raise ValueError(f"target={target!r}: {path} has no such column; it has {shown}")
        return target
    marked: list[str] = []
    if told:
        with decoding(path):
            features = json.loads(told)["info"]["features"]
            marked = [n for n, f in features.items() if f.get("_type") == "ClassLabel"]
    found = marked or [name for name in kinds if name.lower() in _CALLED]
    if len(found) != 1:
        what = f"{', '.join(found)} may be" if found else "no column is called class or label as"
        raise ValueError(f"{path}: {what} the classes; say --target, one of {shown}")
    return found[0]


def labels_of(table: Any, label: str, path: Path) -> Labels:
    """Return the classes of a table of pyarrow's, as they are written there."""
    if label not in table.column_names:
        raise refused(path, f"has no column {label!r}", "give tables of the same columns")
    return _checked(table[label].to_numpy(), label, path)


def read_tables(
    paths: Sequence[Path], target: str, leave_out: Collection[str]
) -> tuple[Columns, Labels]:
    """Read tables of the same columns, one after the other.

    Args:
        paths: CSV, Parquet or Arrow files.
        target: the column of classes; empty: as of :func:`label_column`.
        leave_out: columns that are not looked at.

    Returns:
        All other columns, and the classes.

    Raises:
        ValueError: a file is damaged, or tables have different columns.
    """
    label = label_column(paths[0], target)
    kinds = open_schema(paths[0])[0]
    if wrong := [name for name in leave_out if name not in kinds or name == label]:
        raise ValueError(f"leave_out={wrong[0]!r}: {paths[0]} has no such column beside the target")
    tables = [read_columns(path, without=leave_out) for path in paths]
    for path, table in zip(paths, tables, strict=True):
        if {*table} != {*tables[0]}:
            odd = sorted({*table} ^ {*tables[0]})[:_SHOWN]
            raise refused(path, f"differs from {paths[0].name} in columns {', '.join(odd)}", "mend")
    labels = [_checked(t[label], label, p) for t, p in zip(tables, paths, strict=True)]
    for path, one in zip(paths, labels, strict=True):
        if one.dtype != labels[0].dtype:
            why = f"column {label!r} is of numbers here or in {paths[0].name}, of text in the other"
            raise refused(path, why, "write all of them alike")
    columns = {
        name: np.concatenate([table[name] for table in tables])
        for name in tables[0]
        if name != label and not _counts_rows(name)
    }
    if not columns:
        raise refused(paths[0], f"has no column beside {label!r}", "add what is learnt from")
    return columns, np.concatenate(labels)


def _counts_rows(name: str) -> bool:
    """Tell whether a column only counts the rows, as pandas writes it."""
    return name in ("", "Unnamed: 0", "__index_level_0__")


def _checked(values: Labels, label: str, path: Path) -> Labels:
    kind = values.dtype.kind
    absent = sum(v in (None, "") for v in values) if kind == "O" else 0
    absent += int(np.isnan(values).sum()) if kind == "f" else 0
    if absent:
        raise refused(path, f"has {absent} rows without a {label}", "take them out")
    if kind == "f":
        whole = values.astype(np.int64)
        if (whole != values).any():
            odd = values[whole != values][0]
            raise refused(
                path,
                f"column {label!r} holds numbers such as {odd:g}, which are no classes",
                "name another column, --target",
            )
        return whole
    return values.astype(np.int64) if kind in "iub" else values.astype(object)


def code_labels(parts: Sequence[Labels], of: object) -> tuple[list[npt.NDArray[np.int64]], int]:
    """Number the classes of all parts from 0 on, in the order of the classes that are learnt.

    Args:
        parts: the classes of what is learnt first, of what is tested then.
        of: what to call it in a message.

    Raises:
        ValueError: there are fewer than two, as many as rows, or a test has another one.

    Example:
        >>> coded, classes = code_labels([np.array([3, 5, 3]), np.array([5])], "tea.csv")
        >>> [part.tolist() for part in coded], classes
        ([[0, 1, 0], [1]], 2)
    """
    known = sorted({*parts[0].tolist()}, key=lambda label: (isinstance(label, str), label))
    if len(known) < 2:
        raise refused(of, f"has one class, {known[0]!r}", "give rows of another one, too")
    if len(known) > max(2, len(parts[0]) // 2):
        raise refused(
            of, f"has {len(known)} classes in {len(parts[0])} rows", "name the classes, --target"
        )
    number = {label: i for i, label in enumerate(known)}
    coded = []
    for part in parts:
        if other := {*part.tolist()} - number.keys():
            raise refused(
                of,
                f"tests on {min(map(str, other))!r}, which is none of the {len(known)} classes "
                "that are learnt",
                "give rows of it to train on",
            )
        coded.append(np.array([number[label] for label in part.tolist()], np.int64))
    return coded, len(known)


def table_set(parts: Sequence[Columns], of: object) -> tuple[list[npt.NDArray[np.float32]], str]:
    """Turn columns into numbers: those of text into columns of 0 and 1, a text each.

    What is missing becomes the mean of its column in the first part, and all zeros where it is
    text; so does a text that the first part has not.

    Args:
        parts: columns of what is learnt first, of what is tested then.
        of: what to call it in a message.

    Returns:
        float32 of shape (rows, features) for each part, and what to say of it.

    Raises:
        ValueError: a column holds too many texts, or nothing; all such are named.
    """
    made: list[list[npt.NDArray[Any]]] = [[] for _ in parts]
    texts, missing, odd = [], [], []
    for other in parts[1:]:
        if differ := sorted({*other} ^ {*parts[0]})[:_SHOWN]:
            raise refused(
                of, f"is tested on other columns than it learns: {', '.join(differ)}", "mend"
            )
    for name, column in parts[0].items():
        columns = [part[name] for part in parts]
        if column.dtype.kind not in "fiub":
            known = sorted({str(value) for value in column if value not in (None, "")})
            if not 1 <= len(known) <= _MOST:
                odd.append(f"{name!r} ({len(known)} different texts)")
                continue
            texts.append(name)
            for part, one in zip(made, columns, strict=True):
                written = np.array(["" if v is None else str(v) for v in one], object)
                part += [(written == text).astype(np.float32) for text in known]
            continue
        try:
            numbers = [as_numbers(one).astype(np.float64) for one in columns]
        except ValueError as error:
            raise refused(
                of,
                f"column {name!r} holds numbers to learn from, and to test on text ({error})",
                f"mend it, or leave it out, --leave-out {name}",
            ) from None
        there = numbers[0][np.isfinite(numbers[0])]
        if not len(there):
            odd.append(f"{name!r} (no number)")
            continue
        if any(not np.isfinite(one).all() for one in numbers):
            missing.append(name)
        mean = there.mean()
        for part, one in zip(made, numbers, strict=True):
            part.append(np.where(np.isfinite(one), one, mean).astype(np.float32))
    if odd:
        names = " ".join(one.partition(" (")[0].strip("'") for one in odd)
        raise refused(
            of,
            f"has columns that nothing can be learnt from as they are: {', '.join(odd)}",
            f"leave them out, --leave-out {names}",
        )
    said = f"; text as columns of 0 and 1: {_listed(texts)}" if texts else ""
    said += f"; missing values as the mean: {_listed(missing)}" if missing else ""
    return [np.column_stack(part) for part in made], said


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" * (len(names) > _SHOWN))
