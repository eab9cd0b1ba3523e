"""Directives for the pages of methods.

``{of-method} NAME PART`` writes one part: about, facts, defaults or differences.
``{all-methods}`` writes the table of all.
"""

from __future__ import annotations

from about_methods import paragraphs, settings, table
from docstrings import escape
from docutils import nodes
from method_facts import facts
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import regrow
from regrow.catalogue import source

SECTIONS = ("Args:", "Example:", "Raises:", "Differs")


class MethodPart(SphinxDirective):
    """One part of a method's page."""

    required_arguments = 2

    def run(self) -> list[nodes.Node]:
        """Write it as reStructuredText, as docstrings are."""
        kind = regrow.METHODS[self.arguments[0]]
        parts = {
            "about": paragraphs(kind, *SECTIONS, but=True),
            "facts": table(facts(kind), "45 55", header=0),
            "defaults": table(settings(kind), "20 32 48"),
            "differences": paragraphs(kind, "Differs") or "The docstring states none.",
        }
        return self.parse_text_to_nodes(as_rst(parts[self.arguments[1]]))


class AllMethods(SphinxDirective):
    """The table of all methods."""

    def run(self) -> list[nodes.Node]:
        """Write it as reStructuredText."""
        rows = [["method", "what it does", "source"]]
        for name, kind in regrow.METHODS.items():
            first = " ".join(paragraphs(kind, but=True).split("\n\n")[0].split())
            rows.append([f":doc:`{name} </methods/{name}>`", first, source(kind)])
        return self.parse_text_to_nodes(as_rst(table(rows, "14 52 34")))


def as_rst(text: str) -> str:
    """Fence reStructuredText, so that it is read as such."""
    return f"```{{eval-rst}}\n{escape(text)}\n```"


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives."""
    app.add_directive("of-method", MethodPart)
    app.add_directive("all-methods", AllMethods)
    return {"parallel_read_safe": True}
