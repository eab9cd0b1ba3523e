"""What was heard in utterances: recognised in batches, told as rows, summed up as error rates."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from regrow.speech.data import Part
from regrow.speech.decode import greedy
from regrow.speech.features import HOP, Features
from regrow.speech.recogniser import Heard
from regrow.speech.utterances import Utterance, normalise_text
from regrow.speech.wer import Errors, bootstrap, errors_of, rate

__all__ = [
    "TESTED",
    "TRAINED",
    "part_errors",
    "recognise",
    "rows_of",
    "summary",
    "trained_rows",
    "write_rows",
]

TESTED, TRAINED = "tested.jsonl", "trained.jsonl"
"""Names of files with rows."""

_SECONDS = 400.0  # of audio that are recognised at once


def recognise(
    outputs: Callable[[tuple[Tensor, Tensor]], Heard],
    features: Features,
    ids: Tensor,
    device: torch.device,
    decode: Callable[[Tensor, Tensor], list[list[int]]] = greedy,
) -> list[list[int]]:
    """Recognise utterances, those of about equal length at once.

    Args:
        outputs: of the recogniser, for frames and lengths.
        features: of the utterances.
        ids: int64: which of them.
        device: where frames are wanted.
        decode: turns scores and steps into numbers of units.

    Returns:
        Numbers of units, in the order of the ids.
    """
    heard: list[list[int]] = [[] for _ in range(len(ids))]
    order = features.lengths[ids].argsort(descending=True, stable=True)
    start = 0
    while start < len(order):
        longest = int(features.lengths[ids[order[start]]]) * HOP
        some = order[start : start + max(1, int(_SECONDS / longest))]
        found = outputs(features.padded(ids[some], device))
        for place, numbers in zip(some.tolist(), decode(found.log_probs, found.steps), strict=True):
            heard[place] = numbers
        start += len(some)
    return heard


def part_errors(part: Part, heard: Sequence[str]) -> list[Errors]:
    """Return the errors of what was heard in each utterance."""
    return [
        errors_of(said, normalise_text(text)) for said, text in zip(part.texts, heard, strict=True)
    ]


def rows_of(corpus: str, part: Part, heard: Sequence[str]) -> list[dict[str, Any]]:
    """Return a row for each tested utterance: what it is, what was said and heard, errors.

    Args:
        corpus: its name.
        part: the utterances.
        heard: in each of them.
    """
    seconds = (part.features.lengths.double() * HOP).tolist()
    return [
        {
            "corpus": corpus,
            **_named(utterance, lasts),
            "said": said,
            "heard": text,
            **asdict(errors),
        }
        for utterance, lasts, said, text, errors in zip(
            part.utterances, seconds, part.texts, heard, part_errors(part, heard), strict=True
        )
    ]


def trained_rows(learnt: Part, losses: Tensor, seen: Tensor) -> list[dict[str, Any]]:
    """Return a row for each utterance that is learnt from: its last loss, how often it was seen.

    Args:
        learnt: the utterances.
        losses: shape (n,), the last of each; NaN: none.
        seen: shape (n,), how many there were.
    """
    seconds = (learnt.features.lengths.double() * HOP).tolist()
    return [
        {
            **_named(utterance, lasts),
            "said": said,
            "loss": None if math.isnan(loss) else loss,
            "seen": times,
        }
        for utterance, lasts, said, loss, times in zip(
            learnt.utterances,
            seconds,
            learnt.texts,
            losses.tolist(),
            seen.tolist(),
            strict=True,
        )
    ]


def _named(utterance: Utterance, seconds: float) -> dict[str, Any]:
    return {
        "id": utterance.id,
        "audio": str(utterance.audio.absolute()),
        "start": utterance.start,
        "duration": utterance.duration,
        "channel": utterance.channel,
        "seconds": round(seconds, 2),
        "speaker": utterance.speaker,
        "group": utterance.group,
    }


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return error rates of tested utterances, over all, by corpus and by group.

    Args:
        rows: of ``tested.jsonl``.
    """
    by_corpus = {row["corpus"] for row in rows}
    by_group = {(row["corpus"], row["group"]) for row in rows if row["group"]}
    return {
        **_rates(rows),
        "by_corpus": {
            name: _rates([r for r in rows if r["corpus"] == name]) for name in sorted(by_corpus)
        },
        "by_group": {
            f"{name}: {group}": _rates(
                [r for r in rows if (r["corpus"], r["group"]) == (name, group)]
            )
            for name, group in sorted(by_group)
        },
    }


def _rates(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    errors = [
        Errors(r["words"], r["word_errors"], r["characters"], r["character_errors"]) for r in rows
    ]
    low, high = bootstrap(errors, [r["speaker"] for r in rows])
    return {
        "wer": rate(errors),
        "low": low,
        "high": high,
        "cer": rate(errors, characters=True),
        "utterances": len(rows),
    }


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as lines of JSON."""
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8")
