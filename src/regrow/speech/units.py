"""Units of text that a recogniser writes: characters, words, or pieces of SentencePiece."""

from __future__ import annotations

import base64
import io
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from regrow.machine import needed

__all__ = ["BLANK", "Characters", "Pieces", "Units", "Words", "make_units", "units_from"]

BLANK = 0
"""The number of CTC's blank; units are numbered from 1 on."""


class Units(ABC):
    """Turns text into numbers from 1 on, and back."""

    @property
    @abstractmethod
    def size(self) -> int:
        """How many numbers there are, the blank included."""

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Return the numbers of a normalised text.

        Raises:
            ValueError: a part of the text has no number.
        """

    @abstractmethod
    def decode(self, numbers: Sequence[int]) -> str:
        """Return the text of numbers."""

    @abstractmethod
    def told(self) -> dict[str, Any]:
        """Return plain data that :func:`units_from` makes them of again."""


@dataclass(frozen=True)
class Characters(Units):
    """Single characters.

    Args:
        letters: each once.

    Example:
        >>> units = Characters(" aet")
        >>> units.encode("tea"), units.decode([4, 3, 2])
        ([4, 3, 2], 'tea')
    """

    letters: str

    @property
    def size(self) -> int:
        """How many numbers there are, the blank included."""
        return len(self.letters) + 1

    def encode(self, text: str) -> list[int]:
        """Return the number of each character."""
        numbers = [self.letters.find(letter) + 1 for letter in text]
        if BLANK in numbers:
            letter = text[numbers.index(BLANK)]
            raise ValueError(f"{text!r}: the character {letter!r} is none of {self.letters!r}")
        return numbers

    def decode(self, numbers: Sequence[int]) -> str:
        """Return the characters."""
        return " ".join("".join(self.letters[n - 1] for n in numbers).split())

    def told(self) -> dict[str, Any]:
        """Return the letters."""
        return {"kind": "characters", "letters": self.letters}


@dataclass(frozen=True)
class Words(Units):
    """Whole words; the first stands for all that are not in the list.

    Args:
        words: each once; the first is what an unknown word is read and written as.

    Example:
        >>> units = Words(("<unknown>", "one", "two"))
        >>> units.encode("two tea"), units.decode([3, 1])
        ([3, 1], 'two <unknown>')
    """

    words: tuple[str, ...]

    @property
    def size(self) -> int:
        """How many numbers there are, the blank included."""
        return len(self.words) + 1

    def encode(self, text: str) -> list[int]:
        """Return the number of each word."""
        numbers = {word: n for n, word in enumerate(self.words, 1)}
        return [numbers.get(word, 1) for word in text.split()]

    def decode(self, numbers: Sequence[int]) -> str:
        """Return the words."""
        return " ".join(self.words[n - 1] for n in numbers)

    def told(self) -> dict[str, Any]:
        """Return the words."""
        return {"kind": "words", "words": list(self.words)}


class Pieces(Units):
    """Pieces of words, as a model of SentencePiece cuts them.

    Args:
        model: the bytes of a trained model.

    Source: Kudo and Richardson 2018.
    """

    def __init__(self, model: bytes) -> None:
        with needed("sentencepiece", "speech"):
            import sentencepiece  # noqa: PLC0415
        self._model = model
        self._pieces: Any = sentencepiece.SentencePieceProcessor(model_proto=model)

    @property
    def size(self) -> int:
        """How many numbers there are, the blank included."""
        return int(self._pieces.vocab_size()) + 1

    def encode(self, text: str) -> list[int]:
        """Return the numbers of the pieces."""
        return [n + 1 for n in self._pieces.encode(text)]

    def decode(self, numbers: Sequence[int]) -> str:
        """Return the text of the pieces."""
        return str(self._pieces.decode([n - 1 for n in numbers]))

    def told(self) -> dict[str, Any]:
        """Return the model, as text."""
        return {"kind": "pieces", "model": base64.b64encode(self._model).decode()}


def make_units(kind: str, texts: Iterable[str], size: int = 500) -> Units:
    """Make units from the texts that are learnt.

    Args:
        kind: "characters", "words", or "pieces" of SentencePiece's unigram model.
        texts: normalised.
        size: how many words or pieces at most; of words the most frequent.

    Raises:
        ValueError: the kind is unknown, the texts are empty, or have more letters than pieces.

    Example:
        >>> make_units("words", ["one two", "two"]).told()["words"]
        ['<unknown>', 'two', 'one']
    """
    texts = list(texts)
    if not any(texts):
        raise ValueError("texts: there is not one word: give transcripts")
    if kind == "characters":
        return Characters("".join(sorted(set("".join(texts)) | {" "})))
    if kind == "words":
        counts = Counter(word for text in texts for word in text.split())
        most = sorted(counts, key=lambda word: (-counts[word], word))[:size]
        return Words(("<unknown>", *most))
    if kind == "pieces":
        return Pieces(_trained(texts, size))
    raise ValueError(f"units={kind!r}: must be characters, words or pieces")


def _trained(texts: Sequence[str], size: int) -> bytes:
    with needed("sentencepiece", "speech"):
        import sentencepiece  # noqa: PLC0415
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            vocab_size=size,
            hard_vocab_limit=False,  # fewer, where the texts have no more
            model_type="unigram",
            character_coverage=1.0,
            bos_id=-1,
            eos_id=-1,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        why = str(error).splitlines()[-1].split("] ")[-1]
        raise ValueError(f"unit_count={size}: SentencePiece makes no such model: {why}") from error
    return model.getvalue()


def units_from(told: Mapping[str, Any]) -> Units:
    """Make units again from what :meth:`Units.told` returned.

    Example:
        >>> units_from(Characters("ab").told())
        Characters(letters='ab')
    """
    if told["kind"] == "characters":
        return Characters(told["letters"])
    if told["kind"] == "words":
        return Words(tuple(told["words"]))
    return Pieces(base64.b64decode(told["model"]))
