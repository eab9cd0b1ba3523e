"""The registered methods, told from their own docstrings and defaults."""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap

from regrow.engine.dynamic import Dynamic
from regrow.engine.method import Method
from regrow.engine.methods import METHODS
from regrow.spelling import the_one

__all__ = ["brief", "defaults", "describe", "find_method", "listing", "signature", "source"]

# What a method chooses: shown whether or not it is its own.
_CHOICES = ("drop", "grow", "drop_fraction", "update_every", "stop_at", "allocation")
_LONG = 60  # characters
_UNBROKEN = "\0"  # stands for a space inside an argument while lines are broken


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


def brief(value: object) -> str:
    """Return how a default is written, less what is a default itself, and what is too long to read.

    Example:
        >>> from regrow.engine.schedules import Cosine
        >>> brief(Cosine(0.5)), brief(Cosine(0.5, 0.1))
        ('Cosine(0.5)', 'Cosine(0.5, end=0.1)')
    """
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return repr(value)
    parts = []
    for field in dataclasses.fields(value):
        own = getattr(value, field.name)
        if own != field.default:
            needed = field.default is dataclasses.MISSING
            parts.append(brief(own) if needed else f"{field.name}={brief(own)}")
    inside = ", ".join(parts)
    return f"{type(value).__name__}({inside if len(inside) < _LONG else '…'})"


def signature(method: type[Method]) -> str:
    """Return how a method is written: what it needs, what it chooses, what sets it apart.

    Example:
        >>> import regrow
        >>> print(signature(regrow.RigL))
        RigL(density=..., drop=Magnitude(), grow=Gradient(), drop_fraction=Cosine(0.3),
            update_every=100, stop_at=0.75, allocation=ERK(), replaces_step=True)
    """
    fields = {field.name: field for field in dataclasses.fields(method) if field.init}
    shown = {n: "..." for n, field in fields.items() if field.default is dataclasses.MISSING}
    if "density" not in fields:  # then nothing is shared among layers
        del fields["allocation"]
    own = [name for name in defaults(method) if name not in _CHOICES]
    for name in (*_CHOICES, *own):
        if name in fields and name not in shown:
            shown[name] = brief(fields[name].default)
    call = ", ".join(
        f"{argument}={value}".replace(" ", _UNBROKEN) for argument, value in shown.items()
    )
    text = textwrap.fill(
        f"{method.__name__}({call})", 92, subsequent_indent="    ", break_long_words=False
    )
    return text.replace(_UNBROKEN, " ")


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

    Args:
        name: its name in letters of either case, or a beginning that no other name has.

    Raises:
        ValueError: there is no such method, or there are several.

    Example:
        >>> print(describe("random").splitlines()[3])
        Drop at random, grow at random: the control that shows what choosing is worth.
    """
    method = find_method(name)
    return f"{signature(method)}\n\n{inspect.getdoc(method)}"


def find_method(name: str) -> type[Method]:
    """Return the one method of this name, or whose name begins so.

    Args:
        name: in letters of either case.

    Raises:
        ValueError: there is no such method, or there are several.

    Example:
        >>> find_method("rigl").__name__, find_method("syn").__name__
        ('RigL', 'SynFlow')
    """
    return METHODS[the_one("method", name, METHODS)]
