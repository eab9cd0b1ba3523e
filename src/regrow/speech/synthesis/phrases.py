"""Sentences to be read: the examples of WordNet, or the lines of a text file."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from regrow.machine import expanded
from regrow.reading import damaged
from regrow.speech.corpora.lines import text_lines
from regrow.speech.utterances import normalise_text

__all__ = ["WORDNET", "read_glosses", "read_phrases"]

WORDNET = Path("/usr/share/wordnet")
"""Where Debian's ``wordnet-base`` puts it."""

_FILES = ("data.adj", "data.adv", "data.noun", "data.verb")
_QUOTED = re.compile(r'"([^"]+)"')
_WORDS = re.compile(r"[a-z]+('[a-z]+)?( [a-z]+('[a-z]+)?)+")
_HELD_OUT = 10  # every so many phrases are for testing


def read_phrases(
    path: Path = WORDNET, part: Literal["train", "test", "all"] = "all", fewest: int = 3
) -> list[str]:
    """Return phrases of plain words, each once, in an order of their own.

    Phrases with digits, foreign letters or abbreviations are left out, for nobody knows how they
    are read. Which are for testing, one in ten, follows from each phrase alone.

    Args:
        path: WordNet's folder, whose quoted examples are taken; or a text file, a phrase a line.
        part: "train", "test", or "all".
        fewest: words in a phrase.

    Raises:
        FileNotFoundError: WordNet's files, or the file, are not there.
        ValueError: there is no phrase, or no such part.
    """
    if part not in ("train", "test", "all"):
        raise ValueError(f"part={part!r}: must be 'train', 'test' or 'all'")
    path = expanded(path)
    found: set[str] = set()
    for text in _quoted(path) if path.is_dir() else (line for _, line in text_lines(path)):
        phrase = normalise_text(text)
        if _WORDS.fullmatch(phrase) and len(phrase.split()) >= fewest:
            found.add(phrase)
    if not found:
        raise ValueError(f"{path}: there is no phrase of {fewest} or more words")
    keys = {phrase: hashlib.sha256(phrase.encode()).digest() for phrase in found}
    kept = (p for p in found if part == "all" or (keys[p][0] % _HELD_OUT == 0) == (part == "test"))
    return sorted(kept, key=keys.__getitem__)


def _quoted(folder: Path) -> list[str]:
    missing = [name for name in _FILES if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder}: no {missing[0]}: install Debian's wordnet-base, or give a file of phrases"
        )
    glosses = (gloss for name in _FILES for _, gloss in read_glosses(folder / name))
    return [quote for gloss in glosses for quote in _QUOTED.findall(gloss)]


def read_glosses(path: Path) -> Iterator[tuple[int, str]]:
    """Yield what a file of WordNet explains: the number of the lexicographer file, and the gloss.

    Args:
        path: such as ``data.noun``: a synset a line, its fields before a bar and its gloss behind.

    Raises:
        UnreadableError: a line is none of WordNet.

    Source: wndb(5WN) of WordNet 3.0.
    """
    for number, line in text_lines(path):
        fields, bar, gloss = line.partition("| ")
        if line.startswith(" "):  # the licence
            continue
        kind = fields.split(" ", 2)[1:2]
        if not bar or not kind or not kind[0].isdecimal():
            raise damaged(path, f"line {number} is no synset with a gloss")
        yield int(kind[0]), gloss.strip()
