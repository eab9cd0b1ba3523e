"""The registered methods, told from their own docstrings and defaults."""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap

from regrow.engine.dynamic import Dense, Dynamic, Method
from regrow.engine.methods import METHODS

__all__ = ["defaults", "describe", "listing", "signature", "source"]


def defaults(method: type[Method]) -> dict[str, str]:
    """Return what sets a method apart from :class:`regrow.Dynamic`: its own defaults, by argument.

    Arguments without a default are marked as needed.

    Example:
        >>> import regrow
        >>> defaults(regrow.SETITOP)["update_every"]
        '1500'
    """
    common = {field.name: field.default for field in dataclasses.fields(Dynamic)}
    own = {}
    for field in dataclasses.fields(method):
        if field.name == "density" or not field.init:
            continue
        if field.default is dataclasses.MISSING:
            own[field.name] = "(needed)"
        elif field.default != common.get(field.name, dataclasses.MISSING):
            own[field.name] = repr(field.default)
    return own


def source(method: type[Method]) -> str:
    """Return the paper a method is from, as its docstring says.

    Example:
        >>> import regrow
        >>> source(regrow.RigL)
        'Evci et al. 2020 (arXiv 1911.11134)'
    """
    text = " ".join((inspect.getdoc(method) or "").split())
    found = re.search(r"Source: (.*?\d{4}(?: \([^)]*\)|[^()]*\))?)", text)
    return found.group(1) if found else "a control"


def signature(method: type[Method]) -> str:
    """Return how a method is written, with what sets it apart from :class:`regrow.Dynamic`.

    Example:
        >>> import regrow
        >>> signature(regrow.RigL)
        'RigL(density=..., replaces_step=True)'
    """
    arguments = {"density": "..."} | defaults(method) if method is not Dense else {}
    call = ", ".join(f"{argument}={value}" for argument, value in arguments.items())
    return textwrap.fill(
        f"{method.__name__}({call})", 92, subsequent_indent="    ", break_long_words=False
    )


def listing() -> str:
    """Return all registered methods: how each is written, what it does, where it is from.

    Example:
        >>> for line in listing().splitlines()[:3]:
        ...     print(line)
        Dense()
          Keep every weight: the run all others are compared with.
          a control
    """
    entries = []
    for method in METHODS.values():
        first = (inspect.getdoc(method) or "").splitlines()[0]
        entries.append(f"{signature(method)}\n  {first}\n  {source(method)}")
    more = "regrow methods NAME: the rule, the defaults, the differences from the paper."
    return "\n\n".join([*entries, more])


def describe(name: str) -> str:
    """Return all about one method: how it is written, and its docstring.

    Raises:
        ValueError: there is no such method.

    Example:
        >>> print(describe("static").splitlines()[0])
        Static(density=...)
    """
    by_lower = {known.lower(): known for known in METHODS}
    if name.lower() not in by_lower:
        raise ValueError(f"name={name!r}: must be one of {', '.join(METHODS)}")
    method = METHODS[by_lower[name.lower()]]
    return f"{signature(method)}\n\n{inspect.getdoc(method)}"
