"""Makes corpora of read speech: voices read phrases; noise, wrong texts and copies are known."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.speech.audio import RATE, write_audio
from regrow.speech.synthesis.voices import Voice, speak

__all__ = ["MANIFEST", "Defects", "add_noise", "copied", "generate"]

MANIFEST = "manifest.jsonl"
_BLOCK = 50  # utterances that one process makes at a time


@dataclass(frozen=True)
class Defects:
    """What is wrong with how many utterances: one in a group each, none with two defects.

    Args:
        noisy: the share with noise, at -5 to 20 dB.
        wrong: the share with the transcript of another utterance.
        copies: the share that are copies of utterances, to the last sample.

    Raises:
        ValueError: a share is out of range.
    """

    noisy: float = 0.0
    wrong: float = 0.0
    copies: float = 0.0

    def __post_init__(self) -> None:
        shares = self.noisy, self.wrong, self.copies
        if not (all(0 <= share <= 1 for share in shares) and sum(shares) <= 1):
            raise ValueError(f"{self}: shares must lie in 0..1, all together, too")

    def drawn(self, draw: random.Random) -> str:
        """Draw a group: "clean", "noisy", "wrong" or "copy".

        Example:
            >>> Defects(noisy=1.0).drawn(random.Random(0))
            'noisy'
        """
        place = draw.random()
        for name, share in (("noisy", self.noisy), ("wrong", self.wrong), ("copy", self.copies)):
            if place < share:
                return name
            place -= share
        return "clean"


@dataclass(frozen=True)
class _Plan:
    """All that decides what is made, for every process."""

    folder: Path
    ending: str
    engine: Any
    voices: tuple[str, ...]
    phrases: tuple[str, ...]
    defects: Defects
    seed: int
    words: tuple[int, int]


def generate(
    folder: Path,
    voices: Sequence[str],
    phrases: Sequence[str],
    *,
    hours: float,
    engine: str = "espeak",
    defects: Defects | None = None,
    words: tuple[int, int] = (4, 20),
    seed: int = 0,
    workers: int = 1,
    ending: str = ".flac",
    tell: Callable[[float], None] = lambda hours: None,
) -> Path:
    """Make a corpus and its manifest, in the format of NeMo.

    Utterance i follows from seed and i alone, however many processes make it; they are made until
    there are so many hours. A line has ``id``, ``audio_filepath``, ``duration``, ``text``,
    ``speaker`` (the voice), ``group`` ("clean", "noisy", "wrong", "copy"), and ``snr`` in dB,
    ``spoken`` (what is really said) or ``copy_of`` where there is a defect.

    Args:
        folder: where it is made; it has no manifest yet.
        voices: names of voices that read.
        phrases: that are read, each put together of one or more.
        hours: of speech.
        engine: "espeak" or "flite".
        defects: that are put in; None: none.
        words: the fewest and most in an utterance, about.
        seed: of all that is drawn.
        workers: processes.
        ending: of audio files: ".flac", ".wav" or ".opus".
        tell: is told the hours there are, now and then.

    Returns:
        The manifest.

    Raises:
        ValueError: an argument is out of range, or there is a manifest.
        ImportError: espeakng-loader or soundfile is missing.
    """
    if not 0 < hours < math.inf:
        raise ValueError(f"hours={hours}: must be above 0")
    if engine not in ("espeak", "flite"):
        raise ValueError(f"engine={engine!r}: must be 'espeak' or 'flite'")
    if not voices or not phrases:
        raise ValueError(f"{len(voices)} voices and {len(phrases)} phrases: give some of both")
    if workers < 1:
        raise ValueError(f"workers={workers}: must be at least 1")
    manifest = folder / MANIFEST
    if manifest.exists():
        raise ValueError(f"folder={folder}: has a {MANIFEST} already: name another one")
    try:
        (folder / "audio").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"folder={folder}: {error.strerror}; name a folder that can be written to"
        ) from error
    defects = defects or Defects()
    plan = _Plan(folder, ending, engine, tuple(voices), tuple(phrases), defects, seed, words)
    lines: list[dict[str, Any]] = []
    seconds = 0.0
    for line in _made(plan, workers):
        lines.append(line)
        seconds += line["duration"]
        if len(lines) % _BLOCK == 0:
            tell(seconds / 3600)
        if seconds >= 3600 * hours:
            break
    known = {line["id"] for line in lines}
    for path in (folder / "audio").iterdir():  # made ahead by other processes
        if path.stem not in known:
            path.unlink()
    part = manifest.with_suffix(".part")
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    part.write_text(text, encoding="utf-8")
    return part.replace(manifest)


def _made(plan: _Plan, workers: int) -> Iterator[dict[str, Any]]:
    """Yield the lines of utterances without an end, in their order."""
    if workers == 1:
        block = 0
        while True:
            yield from _block(plan, block)
            block += 1
    # Threads of torch do not survive a fork.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        waiting = [pool.submit(_block, plan, block) for block in range(2 * workers)]
        block = len(waiting)
        try:
            while True:
                yield from waiting.pop(0).result()
                waiting.append(pool.submit(_block, plan, block))
                block += 1
        finally:
            for one in waiting:
                one.cancel()


def _block(plan: _Plan, block: int) -> list[dict[str, Any]]:
    """Make a block of utterances; copies are of one before in the same block."""
    lines: list[dict[str, Any]] = []
    for i in range(block * _BLOCK, (block + 1) * _BLOCK):
        draw = random.Random(f"{plan.seed} {i}")
        group = plan.defects.drawn(draw)
        if group == "copy" and lines:
            lines.append(copied(plan.folder, f"{i:07}", draw.choice(lines)))
        else:
            lines.append(_spoken(plan, i, draw, "clean" if group == "copy" else group))
    return lines


def _spoken(plan: _Plan, i: int, draw: random.Random, group: str) -> dict[str, Any]:
    said = _sentence(plan, draw)
    voice = Voice(
        plan.engine, draw.choice(plan.voices), draw.randint(90, 160), draw.randint(25, 75)
    )
    samples = speak(voice, said)
    line: dict[str, Any] = {"id": f"{i:07}", "text": said, "speaker": voice.name, "group": group}
    if group == "noisy":
        line["snr"] = round(draw.uniform(-5, 20), 1)
        samples = add_noise(samples, line["snr"], draw.getrandbits(32))
    if group == "wrong":
        line["spoken"], line["text"] = said, _another(plan, draw, said)
    # Nothing is told apart by its loudness.
    samples = samples * (draw.uniform(0.1, 0.9) / max(1e-3, float(np.abs(samples).max())))
    path = plan.folder / "audio" / f"{line['id']}{plan.ending}"
    write_audio(path, samples)
    return {
        **line,
        "audio_filepath": f"audio/{path.name}",
        "duration": round(len(samples) / RATE, 3),
    }


def copied(folder: Path, name: str, line: dict[str, Any]) -> dict[str, Any]:
    """Copy an utterance: a file of its own, to the last sample.

    Args:
        folder: of the corpus.
        name: id of the copy.
        line: of the manifest, of what is copied.

    Returns:
        The copy's line, of group "copy"; ``copy_of`` is the first of which there are copies.
    """
    source = folder / line["audio_filepath"]
    target = source.with_stem(name)
    target.write_bytes(source.read_bytes())
    first = line.get("copy_of", line["id"])
    own = {"id": name, "group": "copy", "copy_of": first}
    return {**line, **own, "audio_filepath": f"audio/{target.name}"}


def _sentence(plan: _Plan, draw: random.Random) -> str:
    """Put phrases together until there are words enough."""
    low, high = plan.words
    wanted = draw.randint(low, high)
    words = draw.choice(plan.phrases).split()
    while len(words) < wanted:
        more = draw.choice(plan.phrases).split()
        if len(words) >= low and len(words) + len(more) > high:
            break
        words += more
    return " ".join(words)


def _another(plan: _Plan, draw: random.Random, said: str) -> str:
    """Draw a sentence that is not what was said, of about as many words."""
    wanted = len(said.split())
    others = (_sentence(plan, draw) for _ in range(8))
    return min(
        (text for text in others if text != said), key=lambda t: abs(len(t.split()) - wanted)
    )


def add_noise(samples: npt.NDArray[np.float32], snr: float, seed: int) -> npt.NDArray[np.float32]:
    """Add noise whose power falls with frequency as that of rooms does: pink noise.

    Args:
        samples: shape (n,).
        snr: the ratio of the powers of speech and noise, in dB.
        seed: of the noise.

    Returns:
        Shape (n,), not limited to -1..1.
    """
    draw = np.random.default_rng(seed)
    spectrum = np.fft.rfft(draw.normal(size=len(samples)))
    spectrum /= np.sqrt(np.maximum(1, np.arange(len(spectrum))))
    noise = np.fft.irfft(spectrum, len(samples))
    wanted = np.mean(samples**2) / 10 ** (snr / 10)
    found: npt.NDArray[np.float32] = samples + noise * np.sqrt(wanted / np.mean(noise**2))
    return found.astype(np.float32)
