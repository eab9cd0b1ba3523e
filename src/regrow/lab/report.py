"""One self-contained HTML page: text, figures, tables. No script, no request, nothing to install.

Everything put into a page is escaped, except figures, which are drawn here.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jinja2

from regrow.lab.claims import Claim, Verdict
from regrow.lab.section import Section

__all__ = ["claims_html", "page", "section_html"]


def page(
    title: str,
    source: str,
    findings: Sequence[str],
    sections: Sequence[Section],
    footer: str,
    claims: Sequence[tuple[Claim, Verdict]] = (),
    appendix: Sequence[Section] = (),
) -> str:
    """Make the page.

    Args:
        title: its heading.
        source: what the results are of.
        findings: what was found, in sentences, above everything else.
        sections: the parts, figures first.
        footer: where the results came from and how to make them again.
        claims: what was claimed, and the verdict on it.
        appendix: the parts below the claims.

    Returns:
        HTML.

    Example:
        >>> "&lt;b&gt;" in page("<b>", "", [], [], "")
        True
    """
    return _template("report.html.jinja").render(
        title=title,
        source=source,
        findings=findings,
        sections=sections,
        footer=footer,
        claims=claims,
        appendix=appendix,
    )


def section_html(section: Section) -> str:
    """Write a section without its heading, for a page of another make.

    Example:
        >>> section_html(Section("Title", "1 < 2")).strip()
        '<p>1 &lt; 2</p>'
    """
    return str(_parts().body(section))


def claims_html(judged: Sequence[tuple[Claim, Verdict]]) -> str:
    """Write claims with their rules and verdicts, for a page of another make."""
    return str(_parts().claims(judged))


@functools.cache  # a page of the documentation has many sections
def _template(name: str) -> jinja2.Template:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("regrow.lab", ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template(name)


def _parts() -> Any:
    return _template("parts.html.jinja").module
