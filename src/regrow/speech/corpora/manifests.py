"""Corpora that are manifests of JSON lines: NeMo's and lhotse's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from regrow.speech.corpora.lines import audio_in, json_lines, made, number
from regrow.speech.utterances import Corpus, LeftOut, Utterance, gathered

__all__ = ["read_lhotse", "read_nemo"]


def read_nemo(path: Path) -> Corpus:
    """Read a NeMo manifest: JSON lines with ``audio_filepath``, ``text``, ``duration``.

    ``offset``, ``speaker``, ``group`` and ``id`` count where they are; else an id is the line's
    number and the file's name.

    Args:
        path: of the manifest; relative paths in it start from its folder.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: there is no utterance.
    """

    def found() -> Iterator[Utterance | LeftOut]:
        for n, (where, line) in enumerate(json_lines(path), 1):
            if isinstance(line, LeftOut):
                yield line
                continue
            name = line.get("audio_filepath")
            if not isinstance(name, str) or not name:
                yield LeftOut(where, "has no audio_filepath: add it")
                continue
            key = line.get("id") or f"{n:06}-{Path(name).stem}"
            yield made(
                str(key),
                audio_in(path.parent, name),
                line.get("text"),
                where,
                speaker=str(line.get("speaker", "")),
                group=str(line.get("group", "")),
                start=line.get("offset", 0.0),
                duration=line.get("duration"),
            )

    return gathered(found(), path)


def read_lhotse(path: Path) -> Corpus:
    """Read a lhotse manifest: cuts, or supervisions with ``recordings`` beside them; JSON lines.

    Read without lhotse: a recording is a file; what is computed (mixed, padded, resampled, features
    only) is left out, and :func:`regrow.adapters.lhotse.corpus_of` takes it from lhotse.

    Args:
        path: of ``cuts.jsonl.gz``, ``*_cuts_*.jsonl.gz`` or ``supervisions.jsonl.gz``.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: there is no utterance.
    """
    lines = list(json_lines(path))
    cuts = any("supervisions" in line for _, line in lines if isinstance(line, dict))
    found = _lhotse_cuts(lines) if cuts else _lhotse_supervisions(path, lines)
    return gathered(found, path)


Lines = list[tuple[str, "dict[str, Any] | LeftOut"]]


def _lhotse_supervisions(path: Path, lines: Lines) -> Iterator[Utterance | LeftOut]:
    if "supervisions" not in path.name:
        raise ValueError(
            f"{path}: neither lines with audio_filepath, as NeMo's, nor lhotse's cuts nor "
            "supervisions: give one of these manifests"
        )
    beside = path.with_name(path.name.replace("supervisions", "recordings"))
    recordings = {
        str(line.get("id")): line for _, line in json_lines(beside) if isinstance(line, dict)
    }
    for where, line in lines:
        if isinstance(line, LeftOut):
            yield line
        elif (recording := recordings.get(str(line.get("recording_id")))) is None:
            yield LeftOut(where, f"its recording is not in {beside.name}: add it")
        else:
            yield _lhotse_part(where, line, recording, 0.0)


def _lhotse_cuts(lines: Lines) -> Iterator[Utterance | LeftOut]:
    for where, line in lines:
        if isinstance(line, LeftOut):
            yield line
            continue
        recording, parts = line.get("recording"), line.get("supervisions")
        if not isinstance(recording, dict) or not isinstance(parts, list):
            why = f"is no cut of one recording ({line.get('type', 'unknown')}): read it with lhotse"
            yield LeftOut(where, why)
        elif len(parts) != 1 or not isinstance(parts[0], dict):
            yield LeftOut(
                where, f"has {len(parts)} supervisions, and 1 is needed: trim cuts to them"
            )
        else:
            begin = number(line.get("start", 0.0), "start", where)
            if isinstance(begin, LeftOut):
                yield begin
            else:  # a supervision's start counts from that of its cut
                yield _lhotse_part(where, {"id": line.get("id")} | parts[0], recording, begin)


def _lhotse_part(
    where: str, part: Mapping[str, Any], recording: Mapping[str, Any], begin: float
) -> Utterance | LeftOut:
    sources = recording.get("sources")
    source = sources[0] if isinstance(sources, list) and len(sources) == 1 else {}
    place = source.get("source") if isinstance(source, dict) else None
    if source.get("type") != "file" or not isinstance(place, str) or recording.get("transforms"):
        return LeftOut(where, "its recording is not one plain file: read it with lhotse")
    start = number(part.get("start", 0.0), "start", where)
    if isinstance(start, LeftOut):
        return start
    channel = part.get("channel", 0)
    single = len(recording.get("channel_ids") or [0]) == 1
    return made(
        str(part.get("id") or ""),
        Path(place),
        part.get("text"),
        where,
        speaker=str(part.get("speaker") or ""),
        group=str(part.get("gender") or ""),
        start=max(0.0, begin + start),
        duration=part.get("duration"),
        channel=None if single or not isinstance(channel, int) else channel,
    )
