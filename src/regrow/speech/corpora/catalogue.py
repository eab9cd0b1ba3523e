"""Opens a corpus by what its folder or file looks like."""

from __future__ import annotations

import csv
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from regrow.machine import expanded
from regrow.speech.corpora.lines import text_lines
from regrow.speech.corpora.manifests import read_lhotse, read_nemo
from regrow.speech.corpora.tables import (
    read_auto_avsr,
    read_common_voice,
    read_kaldi,
    read_speechbrain,
)
from regrow.speech.corpora.trees import (
    read_asterisk,
    read_librispeech,
    read_lrs3,
    read_spoken_digits,
)
from regrow.speech.utterances import Corpus

__all__ = ["open_corpus"]

_KNOWN = (
    "Kaldi's tables (wav.scp, text), LibriSpeech (*.trans.txt), LRS3 (00001.txt, .mp4), the Free "
    "Spoken Digit Dataset (recordings/3_tom_7.wav), a voice of Asterisk's prompts; files of NeMo "
    "(.json, .jsonl), lhotse (.jsonl.gz, .jsonl), Common Voice (.tsv), SpeechBrain and auto_avsr "
    "(.csv)"
)
_PROMPTS = Path("/usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz")


def open_corpus(path: Path) -> Corpus:
    """Read a corpus, whichever of the known formats it has.

    Args:
        path: a folder or a table, as published; a split of the spoken digits is ``FOLDER:train``
            or ``FOLDER:test``.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: it has none of the formats, or there is no utterance.
    """
    path = expanded(path)
    if path.is_dir():
        return _folder_reader(path)(path)
    if path.exists():
        return _table_reader(path)(path)
    place, _, split = str(path).rpartition(":")
    if split not in ("train", "test") or not (folder := Path(place)).is_dir():
        raise FileNotFoundError(f"{path}: there is no such file or folder")
    if not _holds_digits(folder):
        raise ValueError(
            f"{path}: {split} is a split of the Free Spoken Digit Dataset, which {folder} is not: "
            f"name a folder or a table, such as {folder / split}"
        )
    return read_spoken_digits(folder, split)


def _folder_reader(folder: Path) -> Callable[[Path], Corpus]:
    if (folder / "wav.scp").is_file():
        return read_kaldi
    for name in ("manifest.jsonl", "manifest.json"):
        if (folder / name).is_file():
            return lambda path: read_nemo(path / name)
    if _holds_digits(folder):
        return read_spoken_digits
    if next(folder.rglob("*.trans.txt"), None):
        return read_librispeech
    if (folder / "auth-thankyou.wav").is_file():
        own = folder / "core-sounds-en.txt"
        return lambda path: read_asterisk(path, own if own.is_file() else _PROMPTS)
    if any(_first(table).startswith("Text:") for table in list(folder.rglob("*.txt"))[:1]):
        return read_lrs3
    raise ValueError(f"{folder}: no corpus of a known format; known are {_KNOWN}")


def _holds_digits(folder: Path) -> bool:
    recordings = folder / "recordings"
    return any((recordings if recordings.is_dir() else folder).glob("[0-9]_*_[0-9]*.*"))


def _table_reader(path: Path) -> Callable[[Path], Corpus]:
    suffixes = "".join(path.suffixes[-2:])
    if suffixes.endswith((".jsonl.gz", ".jsonl", ".json")):
        some = islice(text_lines(path), 100)  # the first may be damaged
        return read_nemo if any('"audio_filepath"' in line for _, line in some) else read_lhotse
    if path.suffix == ".tsv":
        return read_common_voice
    if path.suffix == ".csv":
        header = [field.strip() for field in next(csv.reader([_first(path)]), [])]
        return read_speechbrain if "ID" in header or len(header) != 4 else read_auto_avsr
    raise ValueError(f"{path}: no corpus of a known format; known are {_KNOWN}")


def _first(path: Path) -> str:
    return next((line for _, line in text_lines(path)), "")
