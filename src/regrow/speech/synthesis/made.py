"""Corpora that are made when they are first asked for, and kept in the user's cache."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from regrow.data.places import Places
from regrow.machine import cache_folder, needed
from regrow.speech.corpora.trees import digit_strings, find_spoken_digits, read_spoken_digits
from regrow.speech.synthesis.generate import MANIFEST, Defects, generate
from regrow.speech.synthesis.phrases import WORDNET, read_phrases
from regrow.speech.synthesis.strings import write_strings
from regrow.speech.synthesis.voices import espeak_voices, flite_voices

__all__ = ["DIGITS", "Made"]

DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


@dataclass(frozen=True, kw_only=True)
class Made:
    """A corpus that follows from these words and numbers alone.

    Args:
        what: "sentences": synthetic voices read WordNet's examples; "digits": they read single
            digits in a row; "strings": real recordings of digits, several of one speaker.
        part: other voices, phrases and recordings are in "train" than in "test".
        hours: of speech; "strings" have as much as the recordings give.
        words: the fewest and the most in an utterance.
        common: sentences of the so many most frequent words only; 0: of all.
        engine: that reads sentences and digits; flite has voices for "test" only.
        noisy: the share with noise.
        wrong: the share with the transcript of another utterance.
        copies: the share that are copies of others.
        rounds: how often each recording of "strings" is used, in other strings.
        seed: of all that is drawn.

    Raises:
        ValueError: an argument is out of range.
    """

    what: Literal["sentences", "digits", "strings"]
    part: Literal["train", "test"]
    hours: float = 1.0
    words: tuple[int, int] = (4, 20)
    common: int = 0
    engine: Literal["espeak", "flite"] = "espeak"
    noisy: float = 0.0
    wrong: float = 0.0
    copies: float = 0.0
    rounds: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.what not in (kinds := ("sentences", "digits", "strings")):
            raise ValueError(f"what={self.what!r}: must be one of {', '.join(kinds)}")
        if self.engine == "flite" and self.part == "train":
            raise ValueError("engine='flite': its voices are for part='test'")
        if self.rounds < 1 or self.common < 0:
            raise ValueError(f"{self}: rounds must be at least 1, common at least 0")
        strings = self.what == "strings"
        for name in ("hours", "engine") if strings else ("rounds",):
            if (value := getattr(self, name)) != getattr(Made, name):
                raise ValueError(
                    f"{name}={value!r} does not go with what={self.what!r}: leave it out"
                )
        if self.common and self.what != "sentences":
            raise ValueError(f"common={self.common} is of what='sentences': leave it out")
        self.defects  # noqa: B018 refuses shares

    @property
    def defects(self) -> Defects:
        """What is wrong with how many utterances."""
        return Defects(self.noisy, self.wrong, self.copies)

    def folder(self, data_dir: str | Path | None = None, workers: int = 1) -> Path:
        """Return the corpus's folder; of several processes one makes it, and the others wait.

        Args:
            data_dir: the folder of data: "strings" need the Free Spoken Digit Dataset, sentences
                WordNet (:meth:`phrases`).
            workers: processes that make it.

        Raises:
            FileNotFoundError: recordings or phrases are not there.
            ImportError: espeakng-loader is missing.
            OSError: the cache cannot be written.
        """
        with needed("filelock", "lab"):
            from filelock import FileLock  # noqa: PLC0415
        key = hashlib.blake2b(repr(self).encode(), digest_size=8).hexdigest()
        place = cache_folder() / "made" / f"{self.what}-{self.part}-{key}"
        if not (place / MANIFEST).is_file():
            place.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(place.with_suffix(".lock")):
                if not (place / MANIFEST).is_file():
                    shutil.rmtree(place, ignore_errors=True)  # of a process that was killed
                    self._make(place, data_dir, workers)
        return place

    def _make(self, place: Path, data_dir: str | Path | None, workers: int) -> None:
        if self.what == "strings":
            corpus = read_spoken_digits(find_spoken_digits(data_dir), self.part)
            seeds = range(self.seed, self.seed + self.rounds)
            strings = [s for n in seeds for s in digit_strings(corpus, self.words, n)]
            write_strings(place, strings, self.defects, self.seed)
            return
        espeak = self.engine == "espeak"
        generate(
            place,
            espeak_voices(self.part) if espeak else flite_voices(),
            DIGITS if self.what == "digits" else self.phrases(data_dir),
            hours=self.hours,
            engine=self.engine,
            defects=self.defects,
            words=self.words,
            seed=self.seed,
            workers=workers,
        )

    def phrases(self, data_dir: str | Path | None = None) -> list[str]:
        """Return the phrases that are read.

        They are those of ``wordnet/phrases.txt.gz``, a phrase a line, in the folder of data, or of
        Debian's ``wordnet-base``.

        Raises:
            FileNotFoundError: neither is there.
        """
        files = (folder / "phrases.txt.gz" for folder in Places("wordnet", data_dir).folders)
        path = next((file for file in files if file.is_file()), WORDNET)
        own = read_phrases(path, self.part)
        return _of_common_words(own, read_phrases(path), self.common) if self.common else own


def _of_common_words(phrases: Sequence[str], whole: Sequence[str], common: int) -> list[str]:
    """Return the phrases of which all words are among the most frequent of a whole."""
    counts = Counter(word for phrase in whole for word in phrase.split())
    known = set(sorted(counts, key=lambda word: (-counts[word], word))[:common])
    return [phrase for phrase in phrases if known.issuperset(phrase.split())]
