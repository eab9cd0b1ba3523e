"""Small repairs of docstrings on their way into the reference; nothing is added or taken away."""

from __future__ import annotations

import re

from sphinx.application import Sphinx

COLON = "\ue000"  # stands for a colon that napoleon would take for the end of a type


def escape(text: str) -> str:
    """Keep |w| and (out, in, *kernel) from being read as markup; code stays as it is."""
    code = r"^ *(?:>>>|\.\.\. ).*$|``.*?``"
    markup = r"\||(?<=, )\*(?=\w)"
    return re.sub(rf"({code})|({markup})", lambda m: m[1] or rf"\{m[2]}", text, flags=re.MULTILINE)


def before_napoleon(app: Sphinx, what: str, *rest: object) -> None:
    """Escape markup, and hide colons in sentences that tell what is returned."""
    lines = rest[-1]
    assert isinstance(lines, list)
    lines[:] = escape("\n".join(lines)).split("\n")
    returns = what in ("property", "attribute")
    for i, line in enumerate(lines):
        if returns:
            lines[i] = line.replace(": ", f"{COLON} ").removesuffix("\n")
        returns = line == "Returns:" or (returns and bool(line.strip()) and what != "property")


def after_napoleon(app: Sphinx, what: str, *rest: object) -> None:
    """Bring the colons back."""
    lines = rest[-1]
    assert isinstance(lines, list)
    lines[:] = [line.replace(COLON, ":") for line in lines]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register both."""
    app.connect("autodoc-process-docstring", before_napoleon, priority=400)
    app.connect("autodoc-process-docstring", after_napoleon, priority=600)
    return {"parallel_read_safe": True}
