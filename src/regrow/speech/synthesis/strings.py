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
from regrow.speech.synthesis.generate import MANIFEST, Defects, add_noise, copied
from regrow.speech.utterances import Utterance

__all__ = ["write_strings"]

_PAUSES = 0.05, 0.25  # seconds between words


def write_strings(
    folder: Path,
    strings: Sequence[Sequence[Utterance]],
    defects: Defects | None = None,
    seed: int = 0,
) -> Path:
    """Write a corpus and its manifest, in the format of NeMo; an utterance a string.

    Between words, before the first and after the last there is silence of 0.05 to 0.25 s.

    Args:
        folder: where it is made.
        strings: recordings of each utterance, of one speaker.
        defects: that are put in; None: none. A copy is of a string before it, and a wrong
            transcript one of another string, of about as many words.
        seed: of the defects.

    Returns:
        The manifest; group is the number of words, or "noisy", "wrong", "copy" where there is a
        defect, with ``snr`` in dB, ``spoken`` (what is really said) or ``copy_of``.

    Raises:
        ValueError: a string is empty.
        UnreadableError: a recording is damaged.
    """
    (folder / "audio").mkdir(parents=True)
    texts = [" ".join(part.text for part in parts) for parts in strings]
    lines: list[dict[str, Any]] = []
    for number, parts in enumerate(strings):
        draw = random.Random(f"{seed} {number}")
        defect = defects.drawn(draw) if defects else "clean"
        if defect == "copy" and lines:
            lines.append(copied(folder, f"{number:07}", draw.choice(lines)))
            continue
        line, samples = _spoken(f"{number:07}", parts)
        if defect == "noisy":
            line |= {"group": defect, "snr": round(draw.uniform(-5, 20), 1)}
            samples = add_noise(samples, line["snr"], draw.getrandbits(32))
            samples /= max(1.0, float(np.abs(samples).max()))
        if defect == "wrong" and (others := [text for text in texts if text != line["text"]]):
            some = [draw.choice(others) for _ in range(8)]
            other = min(some, key=lambda text: abs(len(text.split()) - len(parts)))
            line |= {"group": defect, "spoken": line["text"], "text": other}
        write_audio(folder / line["audio_filepath"], samples)
        lines.append(line)
    whole = folder / f"{MANIFEST}.part"
    whole.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return whole.replace(folder / MANIFEST)


def _spoken(
    name: str, parts: Sequence[Utterance]
) -> tuple[dict[str, Any], npt.NDArray[np.float32]]:
    """Return the line of one string, and its sound."""
    if not parts:
        raise ValueError(f"string {name} has no recording: leave it out")
    draw = random.Random(f"{name} {parts[0].id}")
    sounds = [_pause(draw)]
    for part in parts:
        sounds += [read_audio(part), _pause(draw)]
    samples = np.concatenate(sounds)
    line = {
        "id": name,
        "audio_filepath": f"audio/{name}.flac",
        "duration": round(len(samples) / RATE, 3),
        "text": " ".join(part.text for part in parts),
        "speaker": parts[0].speaker,
        "group": f"{len(parts)} words" if len(parts) > 1 else "1 word",
    }
    return line, samples


def _pause(draw: random.Random) -> npt.NDArray[np.float32]:
    return np.zeros(int(RATE * draw.uniform(*_PAUSES)), np.float32)
