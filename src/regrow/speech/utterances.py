"""An utterance: where its audio lies, what is said, by whom; and corpora of them."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Corpus", "LeftOut", "Utterance", "gathered", "normalise_text"]


@dataclass(frozen=True)
class Utterance:
    """A recording of speech, or a part of one, with its transcript.

    Args:
        id: of the utterance; no other one in the corpus has it.
        audio: the file that it is in.
        text: what is said; empty: unknown.
        speaker: who says it; empty: unknown.
        group: that errors are counted by, such as an accent or age; empty: none.
        start: of the part, in seconds.
        duration: of the part, in seconds; None: to the end of the file.
        channel: of the file; None: the mean of all.

    Raises:
        ValueError: the id is empty, or a time is negative or no number.
    """

    id: str
    audio: Path
    text: str = ""
    speaker: str = ""
    group: str = ""
    start: float = 0.0
    duration: float | None = None
    channel: int | None = None

    def __post_init__(self) -> None:
        if not self.id:
            raise ValueError(f"{self.audio}: an utterance has an empty id: give it a name")
        if not 0 <= self.start < math.inf:
            raise ValueError(f"utterance {self.id}: start={self.start}: must be 0 s or later")
        if self.duration is not None and not 0 < self.duration < math.inf:
            raise ValueError(f"utterance {self.id}: duration={self.duration}: must be above 0 s")


@dataclass(frozen=True)
class LeftOut:
    """Something in a corpus that cannot be used.

    Args:
        name: of an utterance, a line or a file.
        why: it cannot be used, and what to do.
    """

    name: str
    why: str

    def __str__(self) -> str:
        return f"{self.name}: {self.why}"


@dataclass(frozen=True)
class Corpus:
    """Utterances, and what of their corpus cannot be used.

    Args:
        utterances: each with an id of its own.
        left_out: all else, with a reason each.
    """

    utterances: tuple[Utterance, ...]
    left_out: tuple[LeftOut, ...] = ()

    def __len__(self) -> int:
        return len(self.utterances)

    def without(self, left_out: Iterable[LeftOut]) -> Corpus:
        """Return the corpus without some utterances, named by their ids."""
        more = tuple(left_out)
        names = {one.name for one in more}
        rest = tuple(u for u in self.utterances if u.id not in names)
        return Corpus(rest, (*self.left_out, *more))


def gathered(found: Iterable[Utterance | LeftOut], where: object) -> Corpus:
    """Gather what a reader has found; of several utterances of one id the first stays.

    Args:
        found: by the reader.
        where: the file or folder, for the error.

    Raises:
        ValueError: not one utterance can be used.

    Example:
        >>> twice = [Utterance("a", Path("a.wav"), "yes"), Utterance("a", Path("b.wav"), "no")]
        >>> corpus = gathered(twice, "here")
        >>> len(corpus), str(corpus.left_out[0])
        (1, 'a: the id is there twice; b.wav is left out: give it another id')
    """
    kept: dict[str, Utterance] = {}
    left: list[LeftOut] = []
    for one in found:
        if isinstance(one, LeftOut):
            left.append(one)
        elif one.id in kept:
            why = f"the id is there twice; {one.audio} is left out: give it another id"
            left.append(LeftOut(one.id, why))
        else:
            kept[one.id] = one
    if not kept:
        first = f"; the first of {len(left)} problems is: {left[0]}" if left else ""
        raise ValueError(f"{where}: there is no utterance that can be used{first}")
    return Corpus(tuple(kept.values()), tuple(left))


def normalise_text(text: str) -> str:
    """Reduce a transcript to lower-case words: letters, digits, apostrophes, single spaces.

    Compatible forms become one (NFKC), typographic apostrophes the plain one; all other signs
    separate words.

    Example:
        >>> normalise_text("“Don’t  STOP-it,” she said; №2")
        "don't stop it she said no2"
    """
    text = unicodedata.normalize("NFKC", text).lower().replace("’", "'").replace("‘", "'")
    kept = "".join(c if c == "'" or unicodedata.category(c)[0] in "LMN" else " " for c in text)
    words = (word.strip("'") if not word.strip("'") else word for word in kept.split())
    return " ".join(word for word in words if word)
