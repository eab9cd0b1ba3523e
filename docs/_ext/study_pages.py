"""``{study} NAME``: verdicts, figures and tables of a study, from its records in ``results/``."""

from __future__ import annotations

from html import escape
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from regrow.lab.report import Folded, Section, Table, figure_style
from regrow.lab.study_page import Found, find
from regrow.studies.registry import load_study

RESULTS = Path(__file__).parents[2] / "results"


def verdicts(found: Found) -> str:
    """Write the claims with their rules and what the records say of them."""
    lines = ["<dl>"]
    for claim, verdict in found.verdicts:
        said = f"{verdict.outcome}: {verdict}" if str(verdict) else verdict.outcome
        lines.append(
            f"<dt>{escape(claim.sentence)} <em>({escape(claim.source)})</em></dt>"
            f"<dd><p><strong>{escape(said[0].upper() + said[1:])}.</strong></p>"
            f"<p>Rule: {escape(claim.rule)}</p></dd>"
        )
    return "\n".join([*lines, "</dl>"])


def table(content: Table) -> str:
    """Write a table as the theme expects it."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in content.columns)
    rows = "\n".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in content.rows
    )
    return (
        '<div class="table-wrapper"><table class="docutils"><thead><tr>'
        f"{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def part(section: Section) -> str:
    """Write a section without its heading."""
    html = f"<p>{escape(section.text)}</p>" if section.text else ""
    if section.figure:
        caption = f"<figcaption>{escape(section.caption)}</figcaption>" if section.caption else ""
        html += f'<figure class="study">{section.figure}{caption}</figure>'
    html += table(section.table) if section.table else ""
    html += f"<pre>{escape(section.code)}</pre>" if section.code else ""
    return html + "\n".join(map(folded, section.folded))


def folded(content: Folded) -> str:
    """Write what is shown when its summary is clicked."""
    text = f"<pre>{escape(content.text)}</pre>" if content.text else ""
    inside = text + (table(content.table) if content.table else "")
    return f"<details><summary>{escape(content.summary)}</summary>{inside}</details>"


class Study(SphinxDirective):
    """The directive; its option is the study's name."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Make the nodes, a section each so that the page's contents list them."""
        name = self.arguments[0]
        found = find((RESULTS / name,), load_study)
        made: list[nodes.Node] = [self._raw(verdicts(found))]
        with figure_style():
            contents = found.study.sections(found.records)
        for content in contents:
            section = nodes.section(ids=[nodes.make_id(content.title)])
            section += nodes.title(text=content.title)
            section += self._raw(part(content))
            made.append(section)
        return made

    @staticmethod
    def _raw(html: str) -> nodes.Node:
        return nodes.raw("", html, format="html")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("study", Study)
    return {"parallel_read_safe": True}
