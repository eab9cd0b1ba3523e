"""What is learnt of data of one's own: the class of a row, or a number."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.data.table_files import open_schema
from regrow.reading import decoding, refused

__all__ = [
    "SHOWN",
    "Targets",
    "are_hidden",
    "check_numbers",
    "class_names",
    "code_labels",
    "target_column",
    "targets_of",
]

Targets = npt.NDArray[Any]
"""One a row: integers, or objects where they are text; float64 where numbers are learnt."""

SHOWN = 12  # names in an error
_CALLED = ("class", "label", "labels", "target", "y", "coarse_label", "fine_label")


def class_names(path: Path) -> Mapping[str, Sequence[str]]:
    """Return the names of classes, by column, where Hugging Face's description tells them.

    Args:
        path: of a table.

    Raises:
        ValueError: the description is damaged; the file is named.
    """
    told = open_schema(path)[1]
    if not told:
        return {}
    with decoding(path):
        features = json.loads(told)["info"]["features"]
        return {
            name: [*map(str, feature.get("names", ()))]
            for name, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }


def target_column(path: Path, target: str, *, regression: bool = False) -> str:
    """Return the column that holds what is learnt.

    Args:
        path: of the table.
        target: its name; empty: the one column that Hugging Face's description marks as classes,
            else the one that is called class, label, target or y.
        regression: whether numbers are learnt, as no description marks.

    Raises:
        ValueError: there is no such column, or there are several.
    """
    kinds = open_schema(path)[0]
    shown = ", ".join([*kinds][:SHOWN]) + (", …" if len(kinds) > SHOWN else "")
    if target:
        if target not in kinds:
            raise ValueError(f"target={target!r}: {path} has no such column; it has {shown}")
        return _one_a_row(target, kinds[target], path)
    marked = [] if regression else [*class_names(path)]
    found = marked or [name for name in kinds if name.lower() in _CALLED]
    if len(found) != 1:
        what = f"{', '.join(found)} may be" if found else "no column is called class or label as"
        wanted = "the numbers" if regression else "the classes"
        raise ValueError(f"{path}: {what} {wanted}; say --target, one of {shown}")
    return _one_a_row(found[0], kinds[found[0]], path)


def _one_a_row(name: str, kind: str, path: Path) -> str:
    if "<" in kind and not kind.startswith("dictionary<"):
        why = f"column {name!r} holds {kind}, and not one class or number a row"
        raise refused(path, why, "name another column, --target, or write one a row")
    return name


def targets_of(values: Targets, name: str, path: Path, *, regression: bool = False) -> Targets:
    """Return a column as what is learnt of each row.

    Args:
        values: of the column, as they were read.
        name: of the column.
        path: of the table, for messages.
        regression: whether numbers are learnt; else classes.

    Raises:
        ValueError: a row has none, or they are no classes, or no numbers.
    """
    kind = values.dtype.kind
    absent = sum(v in (None, "") for v in values) if kind == "O" else 0
    absent += int(np.isnan(values).sum()) if kind == "f" else 0
    if absent:
        raise refused(path, f"has {absent} rows without a {name}", "take them out")
    if regression:
        return _numbers(values, name, path)
    if kind == "f":
        whole = values.astype(np.int64)
        if (whole != values).any():
            odd = values[whole != values][0]
            raise refused(
                path,
                f"column {name!r} holds numbers such as {odd}, which are no classes",
                "learn them as numbers, --regression, or name another column, --target",
            )
        return whole
    return values.astype(np.int64) if kind in "iub" else values.astype(object)


def _numbers(values: Targets, name: str, path: Path) -> npt.NDArray[np.float64]:
    if values.dtype.kind not in "fiu":
        what = "truths" if values.dtype.kind == "b" else f"text such as {str(values[0])!r}"
        raise refused(
            path,
            f"column {name!r} holds {what}, and --regression learns numbers",
            "name another column, --target, or learn classes, without --regression",
        )
    numbers = values.astype(np.float64)
    if not np.isfinite(numbers).all():
        raise refused(path, f"column {name!r} holds infinite numbers", "take the rows out")
    return numbers


def are_hidden(targets: Targets) -> bool:
    """Tell whether all classes are -1, as Hugging Face's data sets hide those of a test.

    Example:
        >>> are_hidden(np.array([-1, -1])), are_hidden(np.array([-1, 1]))
        (True, False)
    """
    return targets.dtype.kind == "i" and bool((targets == -1).all())


def check_numbers(parts: Sequence[Targets], of: object) -> None:
    """Refuse numbers of which nothing can be learnt or told.

    Args:
        parts: the numbers of what is learnt first, of what is tested then.
        of: what to call it in a message.

    Raises:
        ValueError: those of a part are all the same.
    """
    for part, what in zip(parts, ("learn", "test on"), strict=False):
        if len(part) < 2 or (part == part[0]).all():
            why = f"has one number to {what}, {part[0]:g}, in {len(part)} rows"
            raise refused(of, why, "give rows of others, too")


def code_labels(parts: Sequence[Targets], of: object) -> tuple[list[npt.NDArray[np.int64]], int]:
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
        fix = "name the classes, --target"
        if not isinstance(known[0], str):
            fix += ", or learn them as numbers, --regression"
        raise refused(of, f"has {len(known)} classes in {len(parts[0])} rows", fix)
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
