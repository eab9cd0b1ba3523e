"""Tables of one's own as what networks take: numbers, and which class a row is of."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.data.table_files import open_schema, read_columns
from regrow.data.tables import Columns, as_numbers
from regrow.reading import refused
from regrow.vision.data.own_targets import SHOWN, Targets, class_names, target_column, targets_of

__all__ = ["check_leave_out", "image_column", "read_tables", "table_set"]

_MOST = 100  # different texts of a column that becomes columns of 0 and 1
_FEW = 10  # of which this many are columns in however few rows


def image_column(path: Path, without: Collection[str] = ()) -> str | None:
    """Return the column of a table that holds images; None if there is none.

    Args:
        path: a Parquet, Arrow or CSV file, of which the last has none.
        without: columns that are not looked at.

    Raises:
        ValueError: several columns hold some.
    """
    found = [
        name
        for name, kind in open_schema(path)[0].items()
        if kind in ("binary", "large_binary")
        or (kind.startswith("struct<") and "bytes: binary" in kind)
        if name not in without
    ]
    if len(found) > 1:
        raise refused(
            path,
            f"has several columns of images ({', '.join(found)})",
            f"leave out all but one, --leave-out {' '.join(found[1:])}",
        )
    return found[0] if found else None


def read_tables(
    paths: Sequence[Path], target: str, leave_out: Collection[str], *, regression: bool = False
) -> tuple[Columns, Targets]:
    """Read tables of the same columns, one after the other.

    Args:
        paths: CSV, Parquet or Arrow files.
        target: the column that is learnt; empty: as of ``target_column``.
        leave_out: columns that are not looked at.
        regression: whether its numbers are learnt; else classes.

    Returns:
        All other columns, those of classes as the names of these, and what is learnt.

    Raises:
        ValueError: a file is damaged, or tables have different columns.
    """
    label = target_column(paths[0], target, regression=regression)
    check_leave_out(paths[0], label, leave_out)
    tables = [_read(path, leave_out) for path in paths]
    for path, table in zip(paths, tables, strict=True):
        if {*table} != {*tables[0]}:
            odd = sorted({*table} ^ {*tables[0]})[:SHOWN]
            raise refused(path, f"differs from {paths[0].name} in columns {', '.join(odd)}", "mend")
    targets = [
        targets_of(t[label], label, p, regression=regression)
        for t, p in zip(tables, paths, strict=True)
    ]
    for path, one in zip(paths, targets, strict=True):
        if one.dtype != targets[0].dtype:
            why = f"column {label!r} is of numbers here or in {paths[0].name}, of text in the other"
            raise refused(path, why, "write all of them alike")
    columns = {
        name: np.concatenate([table[name] for table in tables])
        for name in tables[0]
        if name != label and not _counts_rows(name)
    }
    if not columns:
        raise refused(paths[0], f"has no column beside {label!r}", "add what is learnt from")
    for name, known in class_names(paths[0]).items():
        if name in columns and columns[name].dtype.kind in "fiu":
            columns[name] = _named(columns[name], known)
    return columns, np.concatenate(targets)


def _read(path: Path, without: Collection[str]) -> Columns:
    """Read a table, of which a column holds neither lists nor anything else that is no number."""
    lists = [
        f"{name!r} ({kind})"
        for name, kind in open_schema(path)[0].items()
        if "list<" in kind and name not in without
    ]
    if lists:
        names = " ".join(one.partition(" (")[0].strip("'") for one in lists)
        raise refused(
            path,
            f"has columns of a list a row, such as tokens: {', '.join(lists)}; what is learnt from "
            "are images, numbers, and text of few kinds, one a row",
            f"write a number a column, or leave them out, --leave-out {names}",
        )
    return read_columns(path, without=without)


def _named(numbers: npt.NDArray[Any], known: Sequence[str]) -> npt.NDArray[Any]:
    """Return the names of classes, of which none is larger than the next."""
    there = np.isfinite(numbers) & (numbers >= 0) & (numbers < len(known))
    return np.array(
        [known[int(n)] if ok else None for n, ok in zip(numbers, there, strict=True)], object
    )


def check_leave_out(path: Path, label: str, leave_out: Collection[str]) -> None:
    """Refuse to leave out what is not there, or is learnt.

    Args:
        path: of the table.
        label: the column that is learnt.
        leave_out: names of columns.

    Raises:
        ValueError: a column is not there, or is the one that is learnt.
    """
    kinds = open_schema(path)[0]
    if wrong := [name for name in leave_out if name not in kinds or name == label]:
        raise ValueError(f"leave_out={wrong[0]!r}: {path} has no such column beside the target")


def _counts_rows(name: str) -> bool:
    """Tell whether a column only counts the rows, as pandas writes it."""
    return name in ("", "Unnamed: 0", "__index_level_0__")


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
        if differ := sorted({*other} ^ {*parts[0]})[:SHOWN]:
            raise refused(
                of, f"is tested on other columns than it learns: {', '.join(differ)}", "mend"
            )
    for name, column in parts[0].items():
        columns = [part[name] for part in parts]
        if column.dtype.kind not in "fiub":
            known = sorted({str(value) for value in column if value not in (None, "")})
            many = min(_MOST, max(_FEW, len(column) // 2))
            if not 1 <= len(known) <= many:
                odd.append(f"{name!r} ({len(known)} different texts in {len(column)} rows)")
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
            f"has columns that nothing can be learnt from as they are: {', '.join(odd)}; text is "
            f"learnt from where it is one of few kinds, up to {_MOST}, and sentences are not",
            f"leave them out, --leave-out {names}",
        )
    said = f"; text as columns of 0 and 1: {_listed(texts)}" if texts else ""
    said += f"; missing values as the mean: {_listed(missing)}" if missing else ""
    return [np.column_stack(part) for part in made], said


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" * (len(names) > SHOWN))
