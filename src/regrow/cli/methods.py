"""``regrow methods``."""

from __future__ import annotations

__all__ = ["methods"]


def methods(name: str | None = None, /) -> None:
    """List the methods with their sources, or tell all about one.

    Args:
        name: A method's name, or how it begins; without one, all are listed.
    """
    from regrow.catalogue import describe, listing  # noqa: PLC0415  (keeps --help fast)

    print(listing() if name is None else describe(name))
