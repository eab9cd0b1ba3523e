"""``{study} NAME``: answer, verdicts, figures and tables of a study, from ``results/``."""

from __future__ import annotations

from pathlib import Path

from docutils import nodes
from measured import unsaid
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from regrow.lab.report import claims_html, section_html, verdicts_html
from regrow.lab.study_page import find
from regrow.studies.registry import load_study

logger = logging.getLogger(__name__)
RESULTS = Path(__file__).parents[2] / "results"


class Study(SphinxDirective):
    """The directive; its option is the study's name."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Make the nodes, a section each so that the page's contents list them."""
        name = self.arguments[0]
        found = find((RESULTS / name,), load_study)
        self._answer_first(found.answer)
        made: list[nodes.Node] = [
            self._raw(verdicts_html(found.verdicts, judged=not found.held)),
        ]
        parts = [(one.title, section_html(one)) for one in found.sections()]
        for title, html in [*parts, ("How each claim was decided", claims_html(found.verdicts))]:
            section = nodes.section(ids=[nodes.make_id(title)])
            section += nodes.title(text=title)
            section += self._raw(html)
            made.append(section)
        self._hold("".join(part.astext() for one in made for part in one.findall(nodes.raw)))
        return made

    def _answer_first(self, answer: str) -> None:
        """Put the answer below the page's title: who reads no further knows it."""
        top = next(self.state.document.findall(nodes.section))
        top.insert(1, nodes.block_quote("", nodes.paragraph(text=answer)))

    def _hold(self, said: str) -> None:
        """Warn of numbers in the page's text that these records do not say."""
        for fault in unsaid(Path(self.env.doc2path(self.env.docname)).read_text("utf-8"), said):
            logger.warning(fault, location=self.env.docname)

    @staticmethod
    def _raw(html: str) -> nodes.Node:
        return nodes.raw("", f'<div class="study">{html}</div>', format="html")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("study", Study)
    return {"parallel_read_safe": True}
