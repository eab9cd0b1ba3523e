"""``.. every-name::``: all that the reference lists, a line each, by page."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

from about_methods import table
from docstrings import escape
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

DIRECTIVE = re.compile(
    r"^\.\. auto(module|class|function|data):: ([\w.]+)[^\n]*\n((?:   :.*\n?)*)", re.MULTILINE
)


def names(page: str) -> Iterator[tuple[str, object]]:
    """Return what a page of the reference documents, by full name, as autodoc chooses it."""
    for kind, name, options in DIRECTIVE.findall(page):
        if kind != "module":
            yield name, pkgutil.resolve_name(name)
            continue
        given = dict(re.findall(r":([\w-]+):(.*)", options))
        listed = set(re.findall(r"\w+", given.get("members", "")))
        left_out = set(re.findall(r"\w+", given.get("exclude-members", "")))
        module = importlib.import_module(name)
        for public in getattr(module, "__all__", ()) if "members" in given else ():
            found = getattr(module, public)
            own = getattr(found, "__module__", "") == name or "imported-members" in given
            wanted = (public in listed if listed else own) and public not in left_out
            if wanted and (inspect.isclass(found) or inspect.isfunction(found)):
                yield f"{name}.{public}", found


def first_line(symbol: object) -> str:
    """Return the first sentence of a docstring, its links as code."""
    said = " ".join((inspect.getdoc(symbol) or "").split("\n\n")[0].split())
    said = said.replace("**", r"\**")
    return escape(re.sub(r":[\w:]+:`~?(?:[\w.]*\.)?([^`]+)`", r"``\1``", said))


class EveryName(SphinxDirective):
    """A table a page."""

    def run(self) -> list[object]:  # type: ignore[override]
        """Write them as reStructuredText."""
        folder, made = Path(self.env.srcdir) / "api", []
        for name in re.findall(
            r"^   ([a-z-]+)$", (folder / "index.rst").read_text("utf-8"), re.MULTILINE
        ):
            page = (folder / f"{name}.rst").read_text("utf-8")
            rows = sorted(
                [full.rpartition(".")[2], full, first_line(symbol)] for full, symbol in names(page)
            )
            if not rows:
                continue
            listed = [[f":py:obj:`{short} <{full}>`", said] for short, full, said in rows]
            title = page.strip().split("\n")[0]
            made += [f".. rubric:: :doc:`{title} <{name}>`", ""]
            made += [table([["name", "what it is"], *listed], "30 70"), ""]
        return list(self.parse_text_to_nodes("\n".join(made)))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register it."""
    app.add_directive("every-name", EveryName)
    return {"parallel_read_safe": True}
