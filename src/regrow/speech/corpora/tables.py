"""Corpora that are tables: Kaldi's, Common Voice's, SpeechBrain's, auto_avsr's."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path

from regrow.reading import is_there
from regrow.speech.corpora.lines import audio_in, made, number, pairs, text_lines
from regrow.speech.utterances import Corpus, LeftOut, Utterance, gathered

__all__ = [
    "read_auto_avsr",
    "read_common_voice",
    "read_kaldi",
    "read_speechbrain",
]

_SOME = 100  # files that are looked for, to find where paths start from
_FPS = 25  # of auto_avsr's videos, in whose frames it tells lengths


def read_kaldi(folder: Path, root: Path | None = None) -> Corpus:
    """Read Kaldi's tables: ``wav.scp``, ``text``, and if there, ``utt2spk`` and ``segments``.

    Commands in ``wav.scp`` (lines that end in ``|``) are never run: their utterances are left out.
    A group is what ``utt2group``, else ``spk2gender`` says.

    Args:
        folder: of the tables.
        root: that relative paths start from; None: the tables' folder, or the folder around it
            where one of the first files is there.

    Raises:
        FileNotFoundError: ``wav.scp`` or ``text`` is missing.
        ValueError: there is no utterance.
    """
    twice: list[LeftOut] = []
    wavs, texts = (_kaldi_table(folder / name, twice) for name in ("wav.scp", "text"))
    speakers, groups, genders = (
        _kaldi_table(path, twice) if (path := folder / name).is_file() else {}
        for name in ("utt2spk", "utt2group", "spk2gender")
    )
    root = root or _kaldi_root(folder, wavs)

    def found() -> Iterator[Utterance | LeftOut]:
        yield from twice
        parts = dict.fromkeys(texts, "segments" if (folder / "segments").is_file() else "wav.scp")
        for part in _kaldi_parts(folder, wavs):
            if isinstance(part, LeftOut):
                parts.pop(part.name, None)
                yield part
                continue
            key, recording, start, duration = part
            parts.pop(key, None)
            place = wavs.get(recording)
            if place is None or key not in texts:
                what = f"recording {recording!r}" if place is None else "it"
                table = "wav.scp" if place is None else "text"
                yield LeftOut(key, f"{what} is not in {folder / table}: add a line")
            elif place.endswith("|"):
                why = "wav.scp names a command, and none is run: write its output to a file"
                yield LeftOut(key, why)
            else:
                speaker = speakers.get(key, "")
                group = groups.get(key) or genders.get(speaker, "")
                audio = audio_in(root, place)
                try:
                    yield Utterance(key, audio, texts[key], speaker, group, start, duration)
                except ValueError as error:
                    yield LeftOut(key, str(error))
        for key, table in parts.items():
            yield LeftOut(key, f"it is not in {folder / table}: add a line")

    return gathered(found(), folder)


def _kaldi_table(path: Path, twice: list[LeftOut]) -> dict[str, str]:
    """Read a table; of several lines of one key the first counts, and the others are told."""
    found: dict[str, str] = {}
    for key, rest in pairs(path):
        if key in found:
            why = f"is there twice in {path}; the first line counts: take the other out"
            twice.append(LeftOut(key, why))
        found.setdefault(key, rest)
    return found


def _kaldi_root(folder: Path, wavs: Mapping[str, str]) -> Path:
    some = list(wavs.values())[:_SOME]  # one file may be missing
    roots = (folder, *list(folder.parents)[:2])
    here = (root for root in roots if any(is_there(audio_in(root, name)) for name in some))
    return next(here, folder)


def _kaldi_parts(
    folder: Path, wavs: Mapping[str, str]
) -> Iterator[tuple[str, str, float, float | None] | LeftOut]:
    """Yield each utterance with its recording, start and duration."""
    segments = folder / "segments"
    if not segments.is_file():
        for key in wavs:
            yield key, key, 0.0, None
        return
    for line, (key, rest) in enumerate(pairs(segments), 1):
        fields = rest.split()
        try:
            recording, start, end = fields[0], float(fields[1]), float(fields[2])
        except (IndexError, ValueError):
            why = f"segments, line {line}: {rest!r} is no recording, start and end: mend it"
            yield LeftOut(key, why)
            continue
        yield key, recording, start, None if end < 0 else end - start


def read_common_voice(path: Path, group: str = "accents") -> Corpus:
    """Read a table of Common Voice, such as ``en/train.tsv``, with ``clips`` beside it.

    Fields are not quoted: a quotation mark is a part of what is said.

    Args:
        path: of the table.
        group: the column that groups are taken from: "accents" ("accent" in older releases),
            "gender", "age" ...

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: there is no utterance, or a column is missing.
    """
    columns: list[str] = []

    def found() -> Iterator[Utterance | LeftOut]:
        for line, text in text_lines(path):
            fields = text.split("\t")
            if not columns:
                columns.extend(fields)
                for needed in ("client_id", "path", "sentence"):
                    if needed not in columns:
                        raise ValueError(f"{path}: column {needed!r} is missing")
                continue
            where = f"{path.name}, line {line}"
            if len(fields) != len(columns):
                why = f"has {len(fields)} fields, and the first line {len(columns)}: mend it"
                yield LeftOut(where, why)
                continue
            row = dict(zip(columns, fields, strict=True))
            name = Path(row["path"])
            if not name.name:
                yield LeftOut(where, f"path {row['path']!r} names no file: mend it")
                continue
            named = name if name.suffix else name.with_suffix(".mp3")
            who = row.get(group, row.get(group.removesuffix("s"), ""))
            audio = path.parent / "clips" / named
            yield Utterance(name.stem, audio, row["sentence"], row["client_id"], who)

    return gathered(found(), path)


def read_speechbrain(path: Path, root: Path | None = None) -> Corpus:
    """Read a CSV file of SpeechBrain: columns ID, duration, wav, spk_id, wrd.

    Args:
        path: of the table.
        root: stands for ``$data_root`` in paths; None: the table's folder.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: there is no utterance, or a column is missing, or quotes are not closed.
    """
    root = (root or path.parent).absolute()  # with it in its place, a path is whole
    columns: list[str] = []

    def found() -> Iterator[Utterance | LeftOut]:
        for line, fields in _csv_rows(path):
            if not columns:
                columns.extend(field.strip() for field in fields)
                for needed in ("ID", "wav", "wrd"):
                    if needed not in columns:
                        raise ValueError(f"{path}: column {needed!r} is missing")
                continue
            where = f"{path.name}, line {line}"
            if len(fields) != len(columns):
                why = f"has {len(fields)} fields, and the first line {len(columns)}: mend it"
                yield LeftOut(where, why)
                continue
            row = dict(zip(columns, (field.strip() for field in fields), strict=True))
            name = row["wav"].replace("$data_root", str(root)).replace("{data_root}", str(root))
            yield made(
                row["ID"],
                audio_in(root, name),
                row["wrd"],
                where,
                speaker=row.get("spk_id", ""),
                duration=row.get("duration") or None,
            )

    return gathered(found(), path)


def read_auto_avsr(path: Path) -> Corpus:
    """Read a table of auto_avsr: ``root/labels/lrs3_train_transcript_lengths_seg16s.csv``.

    Its lines, without a header, are: data set, path of the video, length in frames at 25 a second,
    token ids. The audio is the ``.wav`` at the video's place under ``root/dataset``, its transcript
    the ``.txt`` at the same place under ``root/dataset``, with ``_video_`` in it replaced by
    ``_text_``.

    Args:
        path: of the table.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: there is no utterance.

    Source: github.com/mpc001/auto_avsr, preparation.
    """
    root = path.parent.parent

    def found() -> Iterator[Utterance | LeftOut]:
        for line, text in text_lines(path):
            where = f"{path.name}, line {line}"
            fields = [field.strip() for field in text.split(",")]
            if len(fields) != 4:
                yield LeftOut(where, f"has {len(fields)} fields, and 4 are needed: mend it")
                continue
            dataset, place, frames, _ = fields
            length = number(frames, "length", where)
            if isinstance(length, LeftOut):
                yield length
                continue
            audio = (root / dataset / place).with_suffix(".wav")
            said = _auto_avsr_text(root / dataset, place)
            if said is None:
                yield LeftOut(where, f"there is no transcript of {place} under {root / dataset}")
                continue
            key = str(Path(place).with_suffix(""))
            yield made(key, audio, said, where, duration=length / _FPS)

    return gathered(found(), path)


def _auto_avsr_text(folder: Path, place: str) -> str | None:
    path = (folder / place.replace("_video_", "_text_")).with_suffix(".txt")
    if not is_there(path):
        return None
    return " ".join(line.strip() for _, line in text_lines(path))


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a quoted CSV file; a quote that is never closed is refused where it opens.

    A row may go on over lines, but a row that goes on to the end of the file has lost a quote.
    """
    lines = (line + "\n" for _, line in text_lines(path))
    reader = csv.reader(lines, strict=True, skipinitialspace=True)
    begin = 1
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise ValueError(
                f"{path}, in the row that begins at line {begin}: {error}: close its quotes, or "
                "write them twice"
            ) from error
        yield begin, row
        begin = reader.line_num + 1
