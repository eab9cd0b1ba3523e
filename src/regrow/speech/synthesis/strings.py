"""Puts recordings of single words together, one after the other, as utterances of a corpus."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.speech.audio import RATE, read_audio, write_audio
from regrow.speech.synthesis.generate import MANIFEST
from regrow.speech.utterances import Utterance

__all__ = ["write_strings"]

_PAUSES = 0.05, 0.25  # seconds between words


def write_strings(folder: Path, strings: Sequence[Sequence[Utterance]]) -> Path:
    """Write a corpus and its manifest, in the format of NeMo; an utterance a string.

    Between words, before the first and after the last there is silence of 0.05 to 0.25 s.

    Args:
        folder: where it is made.
        strings: recordings of each utterance, of one speaker.

    Returns:
        The manifest; group is the number of words.

    Raises:
        ValueError: a string is empty.
        UnreadableError: a recording is damaged.
    """
    (folder / "audio").mkdir(parents=True)
    lines = [_written(folder, f"{number:07}", parts) for number, parts in enumerate(strings)]
    whole = folder / f"{MANIFEST}.part"
    whole.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return whole.replace(folder / MANIFEST)


def _written(folder: Path, name: str, parts: Sequence[Utterance]) -> dict[str, Any]:
    """Write one string, and return its line."""
    if not parts:
        raise ValueError(f"string {name} has no recording: leave it out")
    draw = random.Random(f"{name} {parts[0].id}")
    sounds = [_pause(draw)]
    for part in parts:
        sounds += [read_audio(part), _pause(draw)]
    samples = np.concatenate(sounds)
    path = folder / "audio" / f"{name}.flac"
    write_audio(path, samples)
    return {
        "id": name,
        "audio_filepath": f"audio/{path.name}",
        "duration": round(len(samples) / RATE, 3),
        "text": " ".join(part.text for part in parts),
        "speaker": parts[0].speaker,
        "group": f"{len(parts)} words" if len(parts) > 1 else "1 word",
    }


def _pause(draw: random.Random) -> npt.NDArray[np.float32]:
    return np.zeros(int(RATE * draw.uniform(*_PAUSES)), np.float32)
