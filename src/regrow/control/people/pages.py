"""Pages that play clips: the one on which they are compared, and a film of one."""

from __future__ import annotations

import html
import json
from dataclasses import asdict
from importlib.resources import files

from regrow.control.people.drawings import Clip

__all__ = ["comparing_page", "film_page"]


def comparing_page() -> str:
    """Return the page on which people compare clips; it asks its server for them."""
    return _whole("page.html")


def film_page(clip: Clip, title: str, words: str) -> str:
    """Return a page of its own that plays a clip over and over.

    Args:
        clip: what is played.
        title: its heading.
        words: what stands below.

    Example:
        >>> page = film_page(Clip((0, 0, 1, 1), 25, [[[0, 0, 0, 1, 1]]]), "A line", "< 1 second")
        >>> "<h1>A line</h1>" in page, "&lt; 1 second" in page, "/*" in page
        (True, True, False)
    """
    text = json.dumps(asdict(clip), separators=(",", ":"))
    page = _whole("film.html").replace("/* clip */", text)
    page = page.replace("/* title */", html.escape(title))
    return page.replace("/* words */", html.escape(words))


def _whole(name: str) -> str:
    """Return a page with the parts that both have: how they look, and what draws a clip."""
    page = _read(name)
    for part in ("look.css", "clips.js"):
        page = page.replace(f"/* {part} */", _read(part).rstrip())
    return page


def _read(name: str) -> str:
    return files("regrow.control.people").joinpath(name).read_text("utf-8")
