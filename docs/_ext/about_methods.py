"""What a method's class says of itself, as reStructuredText: nothing here is written twice."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterable

from method_facts import NEEDED, sample

import regrow
from regrow.catalogue import defaults


def paragraphs(kind: type, *starts: str, but: bool = False) -> str:
    """Return the paragraphs of a docstring that start so, or all but those."""
    parts = inspect.cleandoc(kind.__doc__ or "").split("\n\n")
    return "\n\n".join(part for part in parts if part.startswith(starts) is not but)


def meanings(kind: type) -> dict[str, str]:
    """Return what the docstrings of a class and its bases say of each argument."""
    text = "\n".join(paragraphs(base, "Args:") for base in reversed(kind.__mro__))
    entries = re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", text, re.MULTILINE)
    return {name: " ".join(words.split()) for name, words in entries}


def table(rows: Iterable[Iterable[str]], widths: str, header: int = 1) -> str:
    """Write a table."""
    lines = [".. list-table::", f"   :header-rows: {header}", f"   :widths: {widths}", ""]
    for row in rows:
        lines += [f"   {'  -' if i else '* -'} {cell}" for i, cell in enumerate(row)]
    return "\n".join(lines)


def settings(kind: type[regrow.Method]) -> list[list[str]]:
    """List the arguments: the method's own first, then those it fixes, then the common ones."""
    method, own, said = sample(kind), defaults(kind), meanings(kind)
    rows = []
    for field in dataclasses.fields(kind):
        rank = 1 if not field.init else 0 if field.name in own else 2
        name = (f"**{field.name}**", f"{field.name} (fixed)", field.name)[rank]
        needed = field.name == "density" or field.name in NEEDED
        value = "needed" if needed and field.init else f"``{getattr(method, field.name)!r}``"
        if field.init or field.name != "start":
            rows.append((rank, [name, value, said.get(field.name, "")]))
    return [
        ["argument", "default", "meaning"],
        *(row for _, row in sorted(rows, key=lambda r: r[0])),
    ]
