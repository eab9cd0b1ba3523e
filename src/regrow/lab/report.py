"""One self-contained HTML page: text, figures, tables. No script, no request, nothing to install.

Everything put into a page is escaped, except figures, which are drawn here.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Any

import jinja2

from regrow.lab.claims import Claim, Verdict, size, span
from regrow.lab.section import Section

__all__ = ["claims_html", "page", "section_html", "verdicts_html"]


def page(
    title: str,
    source: str,
    findings: Sequence[str],
    sections: Sequence[Section],
    footer: str,
    claims: Sequence[tuple[Claim, Verdict]] = (),
    appendix: Sequence[Section] = (),
    judged: bool = True,
) -> str:
    """Make the page: the answer, the verdicts, what was asked, the contents, the parts.

    Args:
        title: its heading.
        source: what the results are of.
        findings: what was found, in sentences, above everything else; the first is the answer.
        sections: the parts, figures first.
        footer: where the results came from and how to make them again.
        claims: what was claimed, and the verdict on it.
        appendix: the parts below the rules of the claims.
        judged: whether verdicts are shown; else claims are shown with their effects alone.

    Returns:
        HTML.

    Example:
        >>> "&lt;b&gt;" in page("<b>", "", [], [], "")
        True
    """
    rules = [Section(_RULES, "")] if claims else []
    parts = _with_anchors([*sections, *rules, *appendix])
    return _template("report.html.jinja").render(
        title=title,
        source=source,
        findings=findings,
        parts=parts,
        contents=_contents(parts),
        rules=_RULES,
        footer=footer,
        claims=claims,
        judged=judged,
    )


def section_html(section: Section) -> str:
    """Write a section without its heading, for a page of another make.

    Example:
        >>> section_html(Section("Title", "1 < 2")).strip()
        '<p>1 &lt; 2</p>'
    """
    return str(_parts().body(section))


def verdicts_html(claims: Sequence[tuple[Claim, Verdict]], *, judged: bool = True) -> str:
    """Write claims with verdict, effect and interval as a table, for a page of another make.

    Its links lead to :func:`claims_html` on the same page.
    """
    return str(_parts().verdicts(claims, judged))


def claims_html(claims: Sequence[tuple[Claim, Verdict]]) -> str:
    """Write claims with their rules and verdicts, for a page of another make."""
    return str(_parts().claims(claims))


_RULES, _VERDICTS = "How each claim was decided", "verdicts"


def _with_anchors(sections: Sequence[Section]) -> list[tuple[str, Section]]:
    """Name sections for links, each in its own way."""
    found: dict[str, Section] = {}
    for section in sections:
        plain = re.sub(r"[^a-z0-9]+", "-", section.title.lower()).strip("-") or "part"
        name, number = plain, 2
        while name in found or name == _VERDICTS:
            name, number = f"{plain}-{number}", number + 1
        found[name] = section
    return list(found.items())


def _contents(parts: Sequence[tuple[str, Section]]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Gather neighbours whose titles begin alike, up to a colon, under one entry.

    Example:
        >>> _contents([("a", Section("Gains: MNIST", "")), ("b", Section("Gains: CIFAR", ""))])
        [('Gains', [('a', 'MNIST'), ('b', 'CIFAR')])]
    """
    made: list[tuple[str, list[tuple[str, str]]]] = []
    for name, section in parts:
        head, _, rest = section.title.partition(": ")
        if made and made[-1][0] == head and rest:
            made[-1][1].append((name, rest))
        else:
            made.append((head, [(name, rest)]))
    return made


@functools.cache  # a page of the documentation has many sections
def _template(name: str) -> jinja2.Template:
    room = jinja2.Environment(
        loader=jinja2.PackageLoader("regrow.lab", ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    room.filters |= {"span": span, "size": size}
    return room.get_template(name)


def _parts() -> Any:
    return _template("parts.html.jinja").module
