"""Corpora that are trees of files: LibriSpeech, LRS3, spoken digits, Asterisk's prompts."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from regrow.data.places import Places
from regrow.reading import UnreadableError, is_there
from regrow.speech.corpora.lines import pairs, text_lines
from regrow.speech.utterances import Corpus, LeftOut, Utterance, gathered

__all__ = [
    "digit_strings",
    "find_spoken_digits",
    "read_asterisk",
    "read_librispeech",
    "read_lrs3",
    "read_spoken_digits",
]

_DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
_DIGIT_NAME = re.compile(r"(\d)_(.+)_(\d+)")
_LRS3_COLUMNS = ["WORD", "START", "END", "ASDSCORE"]


def read_librispeech(folder: Path) -> Corpus:
    """Read LibriSpeech, or one split of it: ``speaker/chapter/speaker-chapter.trans.txt``.

    Args:
        folder: that holds the speakers' folders, or those of the splits; utterances of several
            splits keep their splits' names as groups.

    Raises:
        ValueError: there is no utterance.

    Source: Panayotov et al. 2015; openslr.org/12.
    """

    def found() -> Iterator[Utterance | LeftOut]:
        for table in sorted(folder.rglob("*.trans.txt")):
            chapter = table.parent
            split = chapter.parent.parent
            group = split.name if split != folder else ""
            for key, text in pairs(table):
                audio = chapter / f"{key}.flac"
                speaker = key.split("-")[0]
                if is_there(audio):
                    yield Utterance(key, audio, text, speaker, group)
                else:
                    yield LeftOut(key, f"{audio} is not there: get the corpus again")

    return gathered(found(), folder)


def read_lrs3(folder: Path, longest: float = 16.0) -> Corpus:
    """Read LRS3 as published: ``{pretrain,trainval,test}/video/00001.{mp4,txt}``.

    Long recordings of ``pretrain`` have a table of words and times; they are cut after words into
    parts that are not longer than a limit, whose ids end in _00, _01 and so on. Audio is a ``.wav``
    beside the video, if there is one, else the video's own.

    Args:
        folder: that holds the parts, or one part.
        longest: part, in seconds.

    Raises:
        ValueError: there is no utterance, or the limit is not above 0.

    Source: Afouras et al. 2018; parts of 16 s as auto_avsr cuts them.
    """
    if not longest > 0:
        raise ValueError(f"longest={longest}: must be above 0 s")

    def found() -> Iterator[Utterance | LeftOut]:
        for table in sorted(folder.rglob("*.txt")):
            name = "/".join(table.relative_to(folder).with_suffix("").parts)
            sound = table.with_suffix(".wav")
            audio = sound if sound.is_file() else table.with_suffix(".mp4")
            if not audio.is_file():
                yield LeftOut(name, f"{audio} is not there: get the corpus again")
                continue
            try:
                yield from _lrs3_parts(table, name, audio, longest)
            except (UnreadableError, ValueError) as error:
                yield LeftOut(name, str(error))

    return gathered(found(), folder)


def _lrs3_parts(
    table: Path, name: str, audio: Path, longest: float
) -> Iterator[Utterance | LeftOut]:
    lines = [line for _, line in text_lines(table)]
    if not lines or not lines[0].startswith("Text:"):
        raise ValueError(f"{table}: the first line does not begin with 'Text:'")
    speaker = table.parent.name  # a folder is a video; the corpus has one speaker a video
    text = re.sub(r"[{}]", "", lines[0].removeprefix("Text:"))
    rows = [line.split() for line in lines[1:]]
    header = next((i for i, row in enumerate(rows) if row[:3] == _LRS3_COLUMNS[:3]), None)
    if header is None or "pretrain" not in table.parts:
        yield Utterance(name, audio, " ".join(text.split()), speaker)
        return
    words = []
    for row in rows[header + 1 :]:
        if len(row) < 3:
            raise ValueError(f"{table}: {' '.join(row)!r} is no row of word, start, end")
        words.append((row[0], float(row[1]), float(row[2])))
    for number, part in enumerate(_cut(words, longest)):
        start, end = part[0][1], part[-1][2]
        text = " ".join(word for word, _, _ in part)
        key = f"{name}_{number:02}"
        if end > start:
            yield Utterance(key, audio, text, speaker, "", start, end - start)
        else:
            yield LeftOut(key, f"{table}: it ends at {end:g} s, and begins at {start:g} s: mend it")


def _cut(
    words: Iterable[tuple[str, float, float]], longest: float
) -> Iterator[list[tuple[str, float, float]]]:
    """Cut words with times into parts that are not longer than a limit, or one word."""
    part: list[tuple[str, float, float]] = []
    for word in words:
        if part and word[2] - part[0][1] > longest:
            yield part
            part = []
        part.append(word)
    if part:
        yield part


def find_spoken_digits(data_dir: str | Path | None = None) -> Path:
    """Return the folder of the Free Spoken Digit Dataset.

    Args:
        data_dir: the folder that holds ``free-spoken-digit-dataset``; else the usual places.

    Raises:
        FileNotFoundError: it is nowhere; the message says where it was looked for.
    """
    return Places("free-spoken-digit-dataset", data_dir).find(
        lambda folder: folder if (folder / "recordings").is_dir() else None,
        "recordings",
        "github.com/Jakobovski/free-spoken-digit-dataset",
    )


def read_spoken_digits(folder: Path, split: str = "") -> Corpus:
    """Read the Free Spoken Digit Dataset: ``recordings/{digit}_{speaker}_{index}``, WAV or FLAC.

    Args:
        folder: the data set's, or its ``recordings``.
        split: "test" (index 0 to 4, the published split), "train" (all others), or "" for all.

    Raises:
        ValueError: there is no utterance, or no such split.

    Source: github.com/Jakobovski/free-spoken-digit-dataset.
    """
    if split not in ("", "train", "test"):
        raise ValueError(f"split={split!r}: must be 'train', 'test', or '' for all")
    inner = folder / "recordings"

    def found() -> Iterator[Utterance]:
        for audio in sorted((inner if inner.is_dir() else folder).iterdir()):
            if audio.suffix.lower() not in (".wav", ".flac"):
                continue
            if (match := _DIGIT_NAME.fullmatch(audio.stem)) is None:
                continue
            digit, speaker, index = match.groups()
            if split and (int(index) < 5) != (split == "test"):
                continue
            yield Utterance(audio.stem, audio, _DIGITS[int(digit)], speaker)

    return gathered(found(), folder)


def digit_strings(corpus: Corpus, lengths: tuple[int, int], seed: int) -> list[list[Utterance]]:
    """Draw strings of digits: recordings of one speaker, each in one string.

    Args:
        corpus: of single digits.
        lengths: the least and the largest number of digits in a string.
        seed: of the order.

    Returns:
        The recordings of each string; what they say, one after the other, is its transcript.

    Raises:
        ValueError: the lengths are no range of numbers from 1 on.

    Example:
        >>> digits = [Utterance(f"{d}_tom_0", Path(f"{d}.wav"), _DIGITS[d], "tom") for d in (1, 2)]
        >>> strings = digit_strings(Corpus(tuple(digits)), (2, 2), seed=0)
        >>> sorted(one.text for one in strings[0])
        ['one', 'two']
    """
    low, high = lengths
    if not 1 <= low <= high:
        raise ValueError(f"lengths={lengths}: must be two numbers from 1 on, ascending")
    draw = random.Random(seed)
    strings: list[list[Utterance]] = []
    for speaker in sorted({u.speaker for u in corpus.utterances}):
        own = [u for u in corpus.utterances if u.speaker == speaker]
        draw.shuffle(own)
        while len(own) >= low:
            n = min(draw.randint(low, high), len(own))
            strings.append([own.pop() for _ in range(n)])
    return strings


def read_asterisk(sounds: Path, transcripts: Path) -> Corpus:
    """Read Asterisk's prompts, as Debian's ``asterisk-core-sounds-*`` and ``-prompt-*`` have them.

    Lines that are comments, sounds in brackets, silence, or of files that are not there, are left
    out silently: the list is of all prompts, a package has some.

    Args:
        sounds: the folder of a voice, such as ``/usr/share/asterisk/sounds/en_US_f_Allison``.
        transcripts: ``core-sounds-en.txt``, gzipped or not: lines ``name: text``.

    Raises:
        ValueError: there is no utterance.
    """

    def found() -> Iterator[Utterance]:
        for _, line in text_lines(transcripts):
            name, colon, text = line.partition(":")
            name, text = name.strip(), text.strip()
            skipped = line.startswith(";") or name.startswith("silence/") or "[" in text
            if not colon or skipped or not text:
                continue
            audio = next((a for e in (".wav", ".flac") if is_there(a := sounds / (name + e))), None)
            if audio is not None:
                yield Utterance(name, audio, text, sounds.name)

    return gathered(found(), sounds)
