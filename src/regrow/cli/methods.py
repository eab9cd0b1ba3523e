"""``regrow methods``."""

from __future__ import annotations

from regrow.cli.listed import kept_list
from regrow.spelling import begun_by, did_you_mean

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
    begun = begun_by(name, known.method)
    if len(begun) != 1:
        meant = "" if begun else did_you_mean(name, known.method)
        raise ValueError(
            f"method {name!r}: must be one of {', '.join(begun or known.method)}{meant}"
        )
    print(known.method[begun[0]])
