"""Looks through the cases of a data set once: which are fit, and how all are to be prepared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from regrow.data.kept import Arrays, kept
from regrow.data.trees import stamp
from regrow.engine.ranks import rank_and_ranks
from regrow.reading import UnreadableError
from regrow.segmentation.cases import LeftOut, Volume, read_case
from regrow.segmentation.folders import Case, Folder
from regrow.segmentation.normalise import channel_of
from regrow.segmentation.planning import Facts, Preparation, facts_of, plan_of
from regrow.segmentation.preprocessed import read_preprocessed

__all__ = ["Survey", "over_cases", "plan", "read", "survey"]

Result = TypeVar("Result")

_DRAWN = 10_000_000  # intensities of the foreground of all cases together
_RULE = 2  # raised when the same files are read, or refused, differently
_AT_ONCE = 4  # cases; a large one takes gigabytes while it is prepared


@dataclass(frozen=True)
class Survey:
    """What is known of cases before any is prepared.

    Args:
        facts: of each fit case, by name.
        left_out: the others, and why.
    """

    facts: dict[str, Facts]
    left_out: tuple[LeftOut, ...]


def read(case: Case, folder: Folder) -> Volume:
    """Read a case of a folder, published or preprocessed.

    Raises:
        FileNotFoundError: one of its files is missing.
        UnreadableError: it is unfit; the message says which file, why, and what mends it.
    """
    if folder.preprocessed is None:
        return read_case(case, len(folder.channels), folder.values)
    return read_preprocessed(case, len(folder.channels), folder.values, folder.preprocessed)


def survey(
    folder: Folder, cases: Sequence[Case] | None = None, tell: Callable[[str], object] = str
) -> Survey:
    """Read all cases once; those that cannot be used are listed, and do not end it.

    What was found is kept in the user's cache, and holds as long as a case's files do not change.

    Args:
        folder: the data set.
        cases: of it; None: all that have labels.
        tell: takes a few words on how far it is.

    Raises:
        ValueError: no case can be used; the message says why the first ones cannot.
    """
    chosen = folder.cases if cases is None else tuple(cases)
    ct = any(channel_of(name) == "ct" for name in folder.channels)
    drawn = _DRAWN // max(len(chosen), 1) if ct else 0

    def look(case: Case) -> Facts | LeftOut:
        try:
            return _facts(case, folder, drawn)
        except (UnreadableError, OSError) as error:
            return LeftOut(case.name, str(error).removeprefix(f"case {case.name}").lstrip(": "))

    found = over_cases(look, chosen, "looked through", tell)
    facts = {name: one for name, one in found.items() if isinstance(one, Facts)}
    left_out = [one for one in found.values() if isinstance(one, LeftOut)]
    if not facts:
        shown = "; ".join(f"{out.name}: {out.why}" for out in left_out[:3])
        raise ValueError(f"{folder.path}: none of {len(chosen)} cases can be used: {shown}")
    return Survey(facts, tuple(left_out))


def _facts(case: Case, folder: Folder, drawn: int) -> Facts:
    def make() -> Arrays:
        found = facts_of(read(case, folder), drawn, folder.ignore)
        told = {**vars(found), "values": sorted(found.values)}
        return {name: np.asarray(value) for name, value in told.items()}

    rules = _RULE, len(folder.channels), sorted(folder.values), folder.ignore, folder.preprocessed
    sources = [*map(stamp, case.files), drawn, *rules]
    arrays = kept(case.name, sources, make, folder="volumes-facts", alone=True)
    z, y, x = arrays["spacing"].tolist()
    shape, values = tuple(arrays["shape"].tolist()), frozenset(arrays["values"].tolist())
    kept_share, foreground = float(arrays["kept"]), np.array(arrays["foreground"])
    return Facts(case.name, shape, (z, y, x), kept_share, values, foreground)


def over_cases(
    work: Callable[[Case], Result], cases: Sequence[Case], words: str, tell: Callable[[str], object]
) -> dict[str, Result]:
    """Do something with each case, some at a time; each rank begins with its own share.

    Args:
        work: what is done, mostly outside of Python's lock.
        cases: all of them.
        words: for what is done.
        tell: takes a few words on how far it is.

    Returns:
        What came out, by name, in the order of cases.
    """
    rank, ranks = rank_and_ranks()
    first = rank * len(cases) // ranks
    order = [*cases[first:], *cases[:first]]
    done: dict[str, Result] = {}
    with ThreadPoolExecutor(min(_AT_ONCE, torch.get_num_threads())) as pool:
        for case, made in zip(order, pool.map(work, order), strict=True):
            done[case.name] = made
            tell(f"{words} {len(done)} of {len(cases)} cases")
    return {case.name: done[case.name] for case in cases}


def plan(folder: Folder, known: Survey, names: Sequence[str]) -> Preparation:
    """Plan by training cases only, so that validation stays unseen.

    Args:
        folder: the data set.
        known: of its cases.
        names: of the training cases; those left out are passed over.
    """
    return plan_of([known.facts[n] for n in names if n in known.facts], folder.channels)
