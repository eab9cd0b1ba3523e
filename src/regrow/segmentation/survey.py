"""Looks through the cases of a data set once: which are fit, and how all are to be prepared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from regrow.reading import UnreadableError
from regrow.segmentation.cases import LeftOut, Volume, read_case
from regrow.segmentation.folders import Case, Folder
from regrow.segmentation.normalise import channel_of
from regrow.segmentation.planning import Facts, Preparation, facts_of, plan_of
from regrow.segmentation.preprocessed import read_preprocessed

__all__ = ["Survey", "plan", "read", "survey"]

_DRAWN = 10_000_000  # intensities of the foreground of all cases together


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


def survey(folder: Folder, cases: Sequence[Case] | None = None) -> Survey:
    """Read all cases once; those that cannot be used are listed, and do not end it.

    Args:
        folder: the data set.
        cases: of it; None: all that have labels.

    Raises:
        ValueError: no case can be used; the message says why the first ones cannot.
    """
    chosen = folder.cases if cases is None else tuple(cases)
    ct = any(channel_of(name) == "ct" for name in folder.channels)
    drawn = _DRAWN // max(len(chosen), 1) if ct else 0
    facts, left_out = {}, []
    for case in chosen:
        try:
            facts[case.name] = facts_of(read(case, folder), drawn, folder.ignore)
        except (UnreadableError, OSError) as error:
            left_out.append(LeftOut(case.name, str(error)))
    if not facts:
        shown = "; ".join(f"{out.name}: {out.why}" for out in left_out[:3])
        raise ValueError(f"{folder.path}: none of {len(chosen)} cases can be used: {shown}")
    return Survey(facts, tuple(left_out))


def plan(folder: Folder, known: Survey, names: Sequence[str]) -> Preparation:
    """Plan by training cases only, so that validation stays unseen.

    Args:
        folder: the data set.
        known: of its cases.
        names: of the training cases; those left out are passed over.
    """
    return plan_of([known.facts[n] for n in names if n in known.facts], folder.channels)
