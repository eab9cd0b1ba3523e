"""Values of arguments written on the command line: numbers, tuples, words, and a method's parts."""

from __future__ import annotations

import ast
from typing import Any

__all__ = ["read_value"]


def read_value(text: str) -> Any:
    """Read a value: a Python literal, a part of a method such as ``Block(32)``, else a word.

    Args:
        text: as it was typed. Parts are patterns, allocations, schedules, scores and the start
            ``LargestWeights``; without arguments their brackets may be left out.

    Raises:
        ValueError: a part's arguments are wrong, or something with brackets is no known part.

    Example:
        >>> read_value("0.3"), read_value("Block(32)"), read_value("global")
        (0.3, Block(size=32), 'global')
        >>> read_value("Cosine(0.3, 0.1)")
        Cosine(start=0.3, end=0.1)
    """
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError):
        return text
    except (RecursionError, MemoryError):
        raise ValueError(f"{text[:40]}…: nested too deep to be a value") from None
    if isinstance(tree, ast.Name):
        kind = _parts().get(tree.id)
        return text if kind is None else _made(kind, [], {})
    return _value(tree, text)


def _value(tree: ast.expr, text: str) -> Any:
    if isinstance(tree, ast.Name) and (kind := _parts().get(tree.id)) is not None:
        return _made(kind, [], {})
    if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name):
        if (kind := _parts().get(tree.func.id)) is None:
            raise ValueError(
                f"{text}: no part of a method is called so; known are {', '.join(sorted(_parts()))}"
            )
        given = {key.arg: _value(key.value, text) for key in tree.keywords if key.arg}
        return _made(kind, [_value(one, text) for one in tree.args], given)
    try:
        return ast.literal_eval(tree)
    except (ValueError, TypeError):
        return text
    except (RecursionError, MemoryError):
        raise ValueError(f"{text[:40]}…: nested too deep to be a value") from None


def _made(kind: type, positional: list[Any], given: dict[str, Any]) -> Any:
    try:
        return kind(*positional, **given)
    except TypeError as error:
        raise ValueError(f"{kind.__name__}: {error}") from error


def _parts() -> dict[str, type]:
    from regrow.engine import (  # noqa: PLC0415  (keeps --help fast)
        allocation,
        criteria,
        links,
        patterns,
        schedules,
        scores,
    )
    from regrow.engine.method import Method  # noqa: PLC0415
    from regrow.engine.saliency import LargestWeights  # noqa: PLC0415

    rooms = (allocation, criteria, links, patterns, schedules, scores)
    named = {name: getattr(room, name) for room in rooms for name in room.__all__}
    bases = (allocation.Allocation, patterns.Pattern, schedules.Schedule, scores.Score)
    kinds = {
        name: kind
        for name, kind in named.items()
        if isinstance(kind, type) and kind not in bases and not issubclass(kind, Method)
    }
    return kinds | {"LargestWeights": LargestWeights}
