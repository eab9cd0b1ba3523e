"""Checks of arguments: a bad one is refused with an error that says what is allowed."""

from __future__ import annotations

from numbers import Real
from operator import index
from typing import SupportsIndex

__all__ = ["check_choice", "check_integer", "check_number", "check_type"]


def check_type(value: object, kind: type | tuple[type, ...], argument: str, example: str) -> None:
    """Raise TypeError unless the value is of this kind; a bool does not pass for a number."""
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        names = " or ".join(k.__name__ for k in kinds)
        raise TypeError(f"{argument}={value!r}: {names} is needed, such as {example}")


def check_integer(value: object, argument: str, least: int | None = None) -> int:
    """Return an integer of any type as Python's own; a bool or 3.0 is none and raises TypeError.

    Raises:
        ValueError: it is below the least that is allowed.

    Example:
        >>> import numpy as np
        >>> check_integer(np.int64(3), "seed")
        3
        >>> check_integer(0, "batch_size", least=1)
        Traceback (most recent call last):
        ValueError: batch_size=0: must be at least 1
    """
    kind = str(getattr(value, "dtype", type(value).__name__))
    if isinstance(value, SupportsIndex) and "bool" not in kind:
        try:
            found = index(value)
        except TypeError:  # an array, or a tensor of floats
            pass
        else:
            if least is not None and found < least:
                raise ValueError(f"{argument}={found}: must be at least {least}")
            return found
    raise TypeError(f"{argument}={value!r}: an integer is needed, such as 3; not {kind}")


def check_number(value: object, argument: str, example: str) -> None:
    """Raise TypeError unless the value is a number, Python's or NumPy's; a bool is none.

    Example:
        >>> check_number("0.7", "keep", "0.7")
        Traceback (most recent call last):
        TypeError: keep='0.7': a number is needed, such as 0.7
    """
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{argument}={value!r}: a number is needed, such as {example}")


def check_choice(value: object, allowed: tuple[object, ...], argument: str) -> None:
    """Raise ValueError unless the value is one of those allowed."""
    if value not in allowed:
        raise ValueError(f"{argument}={value!r}: must be one of {', '.join(map(repr, allowed))}")
