"""Checks of options: a bad value is refused before anything is computed or written for it."""

from __future__ import annotations

import os
from collections.abc import Sequence

__all__ = ["check_between", "check_jobs", "check_no_empty", "check_text", "check_threads"]

_THREADS = 64  # more than a machine has cores only slows it down; far more end in a crash
_VALUE_NEEDED = "give a value, or leave the option out"


def check_between(name: str, value: float, low: float, high: float) -> None:
    """Refuse a number outside of a range, ends included.

    Raises:
        ValueError: it is outside, or NaN.

    Example:
        >>> check_between("seeds", 0, 1, 1000)
        Traceback (most recent call last):
        ValueError: seeds=0: must be at least 1 and at most 1000
    """
    if not low <= value <= high:
        raise ValueError(f"{name}={value}: must be at least {low} and at most {high}")


def check_jobs(jobs: int) -> None:
    """Refuse a number of processes that is none."""
    if jobs < 1 and jobs != -1:
        raise ValueError(f"jobs={jobs}: must be at least 1, or -1 for one a core")


def check_threads(threads: int | None) -> None:
    """Refuse a number of threads that torch cannot start; None is as torch has it."""
    if threads is not None:
        check_between("threads", threads, 1, max(_THREADS, os.cpu_count() or 1))


def check_text(name: str, value: str) -> None:
    r"""Refuse what is no text, as names of files may be: records could not hold it.

    Example:
        >>> check_text("folder", "a\udcff")
        Traceback (most recent call last):
        ValueError: folder='a\udcff': is not in UTF-8; rename it
    """
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name}={value!r}: is not in UTF-8; rename it") from None


def check_no_empty(words: Sequence[str]) -> None:
    """Refuse an empty argument, which would be taken for the current folder.

    Args:
        words: of the command line.

    Raises:
        ValueError: one is empty.

    Example:
        >>> check_no_empty(["report", "--csv", ""])
        Traceback (most recent call last):
        ValueError: --csv '': is empty; give a value, or leave the option out
    """
    for before, word in zip(["", *words], words, strict=False):
        if word.strip() == "":
            option = before if before.startswith("--") else "an argument"
            raise ValueError(f"{option} {word!r}: is empty; {_VALUE_NEEDED}")
        if word.startswith("--") and word.endswith("="):
            raise ValueError(f"{word[:-1]} '': is empty; {_VALUE_NEEDED}")
