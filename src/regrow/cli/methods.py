"""``regrow methods``."""

from __future__ import annotations

from regrow.cli.listed import kept_list
from regrow.spelling import the_one

__all__ = ["methods"]


def methods(name: str | None = None, /) -> None:
    """List the methods with their sources, or tell all about one.

    Args:
        name: A method's name, or how it begins; without one, all are listed.
    """
    known = kept_list()
    if name is None:
        print(known.methods)
        return
    print(known.method[the_one("method", name, known.method)])
