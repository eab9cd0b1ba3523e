"""Checks of arguments: a bad one is refused with an error that says what is allowed."""

from __future__ import annotations

__all__ = ["check_choice", "check_type"]


def check_type(value: object, kind: type | tuple[type, ...], argument: str, example: str) -> None:
    """Raise TypeError unless the value is of this kind; a bool does not pass for a number."""
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        names = " or ".join(k.__name__ for k in kinds)
        raise TypeError(f"{argument}={value!r}: {names} is needed, such as {example}")


def check_choice(value: object, allowed: tuple[object, ...], argument: str) -> None:
    """Raise ValueError unless the value is one of those allowed."""
    if value not in allowed:
        raise ValueError(f"{argument}={value!r}: must be one of {', '.join(map(repr, allowed))}")
