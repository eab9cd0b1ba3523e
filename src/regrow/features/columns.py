"""Names the columns of a data frame that hold no numbers, where scikit-learn names none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

__all__ = ["naming_columns"]

_SHOWN = 8  # names in an error
_DATES = ("date", "time", "duration")
_TEXTS = ("object", "str", "string", "utf8", "category", "categorical", "enum")


@contextmanager
def naming_columns(table: Any) -> Iterator[None]:
    """Check a table inside; if it is a data frame with text or dates, the error names the columns.

    Dates and times are refused before: as numbers they would be nanoseconds.

    Args:
        table: what an estimator was given; of pandas, polars or the like it has names of columns.

    Raises:
        ValueError: columns hold text, or dates and times.

    Example:
        >>> class Frame(dict):
        ...     columns = property(list)
        >>> with naming_columns(Frame(heat=[80.0], kind=["green"])):
        ...     float("green")
        Traceback (most recent call last):
        ValueError: X has columns that are no numbers: 'kind' (text); encode them first, ...
    """
    if dated := _odd(table, look=False):
        raise _no_numbers(dated)
    try:
        yield
    except (TypeError, ValueError) as error:
        if odd := _odd(table, look=True):
            raise _no_numbers(odd) from error
        raise


def _no_numbers(odd: list[str]) -> ValueError:
    shown = ", ".join(odd[:_SHOWN]) + (f" and {len(odd) - _SHOWN} more" * (len(odd) > _SHOWN))
    return ValueError(
        f"X has columns that are no numbers: {shown}; encode them first, such as by "
        "sklearn.preprocessing.OneHotEncoder or as days since a date, or leave them out"
    )


def _odd(table: Any, *, look: bool) -> list[str]:
    """List the columns of a data frame that hold text or dates, with which of them.

    Args:
        table: of any kind; one without names of columns has none.
        look: whether values of columns of any type are looked at.
    """
    names = getattr(table, "columns", None)
    if names is None:
        return []
    odd = []
    for name in names:
        column = table[name]
        kind = str(getattr(column, "dtype", "object")).lower()
        if any(word in kind for word in _DATES):
            odd.append(f"{name!r} (dates or times)")
        elif (
            look and kind.partition("(")[0].partition("[")[0] in _TEXTS and not _is_numeric(column)
        ):
            odd.append(f"{name!r} (text)")
    return odd


def _is_numeric(column: Any) -> bool:
    try:
        np.asarray(column).astype(np.float64)
    except (TypeError, ValueError):
        return False
    return True
