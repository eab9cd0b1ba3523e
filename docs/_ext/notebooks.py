"""Pages that are notebooks, as files to download: a line at the head of each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
from sphinx.application import Sphinx

HEAD = re.compile(r"\A---\nfile_format: mystnb\n.*?\n---\n", re.DOTALL)
CELL = re.compile(r"^```\{code-cell\} python\n(.*?)^```\n", re.MULTILINE | re.DOTALL)


def notebook(text: str) -> nbformat.NotebookNode:
    """Make a notebook of a page: what stands between cells is Markdown."""
    made = nbformat.v4.new_notebook(cells=list(_cells(HEAD.sub("", text))))
    made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    for number, cell in enumerate(made.cells):
        cell["id"] = f"cell-{number}"  # not drawn: the same page is the same file
    nbformat.validate(made)
    return made


def _cells(text: str) -> Iterator[nbformat.NotebookNode]:
    for place, part in enumerate(CELL.split(text)):
        make = nbformat.v4.new_code_cell if place % 2 else nbformat.v4.new_markdown_cell
        if part.strip():
            yield make(_plain(part.strip()) if not place % 2 else part.rstrip())


def _plain(text: str) -> str:
    """Write what only these pages understand as what every reader of Markdown does."""
    text = re.sub(r"\{[\w:]+\}`~?([^`<]+?)`", r"`\1`", text)
    text = re.sub(r"\[([^\]]+)\]\((?!https?:)[^)]+\)", r"\1", text)
    return re.sub(r"^\([\w-]+\)=\n", "", text, flags=re.MULTILINE)


def on_read(app: Sphinx, name: str, source: list[str]) -> None:
    """Write the file, and a line that leads to it under the page's title."""
    if not HEAD.match(source[0]):
        return
    folder = Path(app.outdir) / "notebooks"
    folder.mkdir(parents=True, exist_ok=True)
    file = f"{Path(name).name}.ipynb"
    nbformat.write(notebook(source[0]), folder / file)
    up = "../" * name.count("/")
    words = "Download this page as a notebook"
    line = f'<p class="download"><a href="{up}notebooks/{file}" download>{words}</a></p>'
    source[0] = re.sub(r"(?m)^(# .*)$", lambda title: f"{title[1]}\n\n{line}", source[0], count=1)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register it."""
    app.connect("source-read", on_read)
    return {"parallel_read_safe": True}
