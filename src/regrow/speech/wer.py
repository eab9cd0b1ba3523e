"""Errors of recognised text: words and characters, of utterances, groups and a whole corpus."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from regrow.machine import needed

__all__ = ["Errors", "bootstrap", "errors_of", "rate"]


@dataclass(frozen=True)
class Errors:
    """Errors of one utterance.

    Args:
        words: in the transcript.
        word_errors: words substituted, left out and put in.
        characters: in the transcript, spaces included.
        character_errors: of them.
    """

    words: int
    word_errors: int
    characters: int
    character_errors: int


def errors_of(said: str, heard: str) -> Errors:
    """Count the errors of a recognised text by the alignment with fewest of them.

    Args:
        said: the transcript, normalised.
        heard: the recognised text, normalised.

    Raises:
        ImportError: jiwer is missing.
        ValueError: the transcript is empty.

    Source: jiwer counts.
    """
    if not said.strip():
        raise ValueError("said='': an empty transcript has no error rate: leave it out")
    with needed("jiwer", "speech"):
        import jiwer  # noqa: PLC0415
    words = jiwer.process_words(said, heard)
    letters = jiwer.process_characters(said, heard)
    word_errors, character_errors = (
        found.substitutions + found.deletions + found.insertions for found in (words, letters)
    )
    return Errors(len(said.split()), word_errors, len(said), character_errors)


def rate(errors: Iterable[Errors], characters: bool = False) -> float:
    """Return the word error rate of several utterances: all errors over all words.

    Args:
        errors: of each.
        characters: return the character error rate.

    Example:
        >>> rate([Errors(3, 1, 9, 2), Errors(1, 1, 3, 0)])
        0.5
    """
    found = list(errors)
    wrong = sum(e.character_errors if characters else e.word_errors for e in found)
    return wrong / sum(e.characters if characters else e.words for e in found)


def bootstrap(
    errors: Sequence[Errors],
    together: Sequence[str],
    *,
    draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Return an interval of the word error rate over speakers that might have been tested.

    Speakers are drawn with replacement, all utterances of one at once, for their errors go
    together. Of fewer than two speakers utterances are drawn: that interval is of one voice only.

    Args:
        errors: of each utterance.
        together: of each, whose it is; utterances without a name stand for themselves.
        draws: how many.
        level: of the interval.
        seed: of the draws.

    Source: Bisani and Ney 2004, by speakers.

    Example:
        >>> bootstrap([Errors(10, 1, 50, 1)] * 4, ["a", "b", "c", "d"])
        (0.1, 0.1)
    """
    if len(set(together)) < 2:
        together = [""] * len(errors)
    sums: dict[str, list[int]] = {}
    for number, (one, name) in enumerate(zip(errors, together, strict=True)):
        of = sums.setdefault(name or f"\0{number}", [0, 0])
        of[0] += one.word_errors
        of[1] += one.words
    table = np.array(list(sums.values()))
    draw = np.random.default_rng(seed)
    drawn = table[draw.integers(len(table), size=(draws, len(table)))].sum(1)
    rates = drawn[:, 0] / drawn[:, 1]
    low, high = np.quantile(rates, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
