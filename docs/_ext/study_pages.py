"""``{study} NAME``: verdicts, figures and tables of a study, from its records in ``results/``."""

from __future__ import annotations

from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from regrow.lab.report import claims_html, section_html, verdicts_html
from regrow.lab.study_page import find
from regrow.studies.registry import load_study

RESULTS = Path(__file__).parents[2] / "results"


class Study(SphinxDirective):
    """The directive; its option is the study's name."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Make the nodes, a section each so that the page's contents list them."""
        name = self.arguments[0]
        found = find((RESULTS / name,), load_study)
        made: list[nodes.Node] = [
            nodes.paragraph(text=found.answer),
            self._raw(verdicts_html(found.verdicts, judged=not found.held)),
        ]
        parts = [(one.title, section_html(one)) for one in found.sections()]
        for title, html in [*parts, ("How each claim was decided", claims_html(found.verdicts))]:
            section = nodes.section(ids=[nodes.make_id(title)])
            section += nodes.title(text=title)
            section += self._raw(html)
            made.append(section)
        return made

    @staticmethod
    def _raw(html: str) -> nodes.Node:
        return nodes.raw("", f'<div class="study">{html}</div>', format="html")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("study", Study)
    return {"parallel_read_safe": True}
