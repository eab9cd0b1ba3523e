"""Lines of the text files that corpora come with: decoded, numbered, wrong ones named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from regrow.machine import expanded
from regrow.reading import decoding, open_unpacked
from regrow.speech.utterances import LeftOut, Utterance

__all__ = ["audio_in", "json_lines", "made", "number", "pairs", "text_lines"]


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a UTF-8 file that are not empty, with their numbers, without their ends.

    Args:
        path: the file; it may be gzipped.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableError: it is damaged.
    """
    with open_unpacked(path) as file:
        for number, line in enumerate(file, 1):
            with decoding(f"{path}, line {number}"):
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            if text.strip():
                yield number, text


def pairs(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the first word of each line and the rest, which may be empty: Kaldi's tables."""
    for _, line in text_lines(path):
        key, *rest = line.split(None, 1)
        yield key, rest[0].strip() if rest else ""


def json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any] | LeftOut]]:
    """Yield the objects of a file of JSON lines, each with the words that name its line."""
    for number, line in text_lines(path):
        where = f"{path.name}, line {number}"
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield where, LeftOut(where, f"is no JSON ({error}): mend the line")
            continue
        if isinstance(value, dict):
            yield where, value
        else:
            yield where, LeftOut(where, "is no JSON object, as {...}: mend the line")


def number(value: object, what: str, where: str) -> float | LeftOut:
    """Read a number of a field, or say what is wrong with it.

    Example:
        >>> number("2.5", "duration", "line 1"), str(number("long", "duration", "line 1"))
        (2.5, "line 1: duration 'long' is no number: mend it")
    """
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return LeftOut(where, f"{what} {value!r} is no number: mend it")


def audio_in(folder: Path, name: str) -> Path:
    """Return the path of an audio file that a table names: absolute, or in a folder."""
    return folder / expanded(Path(name))


def made(
    key: str,
    audio: Path,
    text: object,
    where: str,
    *,
    speaker: str = "",
    group: str = "",
    start: object = 0.0,
    duration: object = None,
    channel: int | None = None,
) -> Utterance | LeftOut:
    """Make an utterance of fields as they were read, or say what is wrong with them."""
    begin = number(start or 0.0, "start", where)
    lasts = None if duration is None else number(duration, "duration", where)
    if isinstance(begin, LeftOut):
        return begin
    if isinstance(lasts, LeftOut):
        return lasts
    said = text if isinstance(text, str) else ""
    try:
        return Utterance(key, audio, said, speaker, group, begin, lasts, channel)
    except ValueError as error:
        return LeftOut(where, str(error))
