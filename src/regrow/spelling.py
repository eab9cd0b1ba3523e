"""Which known name was meant by one that was typed."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["begun_by", "did_you_mean", "the_one"]


def begun_by(name: str, known: Iterable[str]) -> list[str]:
    """Return the known names that a name may stand for: the one that it is, else those it begins.

    Args:
        name: in letters of either case.
        known: all names.

    Example:
        >>> begun_by("rigl", ["RigL", "RigLITOP"]), begun_by("ri", ["RigL", "RigLITOP"])
        (['RigL'], ['RigL', 'RigLITOP'])
    """
    begun = [one for one in known if one.lower().startswith(name.lower())]
    return [one for one in begun if len(one) == len(name)] or begun


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a question that names what is spelt most alike; empty if nothing is.

    Args:
        name: that is none of the known ones.
        known: all names.

    Example:
        >>> did_you_mean("trian", ["train", "demo"]), did_you_mean("xyz", ["train"])
        ('; did you mean train?', '')
    """
    lower = {one.lower(): one for one in known}
    found = get_close_matches(name.lower(), lower, n=1)
    return f"; did you mean {lower[found[0]]}?" if found else ""


def the_one(kind: str, name: str, known: Iterable[str]) -> str:
    """Return the one known name that a name is, or begins.

    Args:
        kind: what is named, for the message.
        name: in letters of either case.
        known: all names.

    Raises:
        ValueError: there is none, or there are several.

    Example:
        >>> the_one("method", "syn", ["RigL", "SynFlow"])
        'SynFlow'
    """
    names = list(known)
    begun = begun_by(name, names)
    if len(begun) != 1:
        meant = "" if begun else did_you_mean(name, names)
        raise ValueError(f"{kind} {name!r}: must be one of {', '.join(begun or names)}{meant}")
    return begun[0]
