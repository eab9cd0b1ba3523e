"""Audio of utterances: read from files, mixed to one channel, brought to one sample rate."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.machine import needed
from regrow.reading import check_size, damaged, decoding, open_file, refused
from regrow.speech.utterances import Utterance

__all__ = ["RATE", "read_audio", "read_samples", "resample", "write_audio"]

Samples = npt.NDArray[np.float32]

RATE = 16_000
"""Samples a second that features are made of."""

_VIDEO = (".mp4", ".m4a", ".mov", ".mkv", ".webm")
_RATES = 1_000, 768_000  # samples a second: what recorders make


def read_audio(utterance: Utterance, rate: int = RATE) -> Samples:
    """Read what is said in an utterance.

    Several channels are averaged, unless the utterance names one; another sample rate is changed by
    polyphase filtering, so that a recording of 8 kHz has nothing above 4 kHz.

    Args:
        utterance: whose file is read.
        rate: samples a second that are wanted.

    Returns:
        Shape (samples,), in -1..1.

    Raises:
        FileNotFoundError: the file is not there.
        UnreadableError: it is damaged, cut short, silent beyond its end, or of an unknown format.
        ImportError: soundfile, or av for video files, is missing.
    """
    samples, own = read_samples(
        utterance.audio, utterance.start, utterance.duration, utterance.channel
    )
    return resample(samples, own, rate)


def read_samples(
    path: Path, start: float = 0.0, duration: float | None = None, channel: int | None = None
) -> tuple[Samples, int]:
    """Read a part of an audio file; see :func:`read_audio`.

    Returns:
        Samples of one channel, and how many there are in a second.
    """
    if path.suffix.lower() in _VIDEO:
        sound, rate = _read_video(path)
        first = round(start * rate)
        last = len(sound) if duration is None else first + round(duration * rate)
        sound = sound[first:last]
    else:
        sound, rate = _read_sound(path, start, duration)
    if not len(sound):
        raise refused(path, f"has no sound at {start:g} s", "mend its times")
    if channel is not None and channel >= sound.shape[1]:
        raise refused(path, f"has {sound.shape[1]} channels, not {channel + 1}", "mend its table")
    one: Samples = (sound.mean(1) if channel is None else sound[:, channel]).astype(np.float32)
    if not np.isfinite(one).all():
        raise damaged(path, "samples that are no numbers")
    return one, rate


def _read_sound(path: Path, start: float, duration: float | None) -> tuple[Samples, int]:
    with needed("soundfile", "speech"):
        import soundfile  # noqa: PLC0415
    open_file(path).close()  # only a plain file; by its name libsndfile reads it much faster
    with decoding(path), soundfile.SoundFile(path) as sound:
        rate, length = int(sound.samplerate), int(sound.frames)
        if not _RATES[0] <= rate <= _RATES[1]:
            raise damaged(path, f"{rate} samples a second")
        first = round(start * rate)
        wanted = length - first if duration is None else round(duration * rate)
        # A length in seconds is rounded where tables are written: what lacks a little is whole.
        if first + wanted > length + rate // 10:
            raise refused(
                path,
                f"lasts {length / rate:.2f} s, and {start + (duration or 0):.2f} s are needed",
                "mend the times in its table, or get it again",
            )
        wanted = max(0, min(wanted, length - first))
        check_size(path, wanted * sound.channels * 4, max(1, path.stat().st_size))
        sound.seek(min(first, length))
        found: Samples = sound.read(wanted, dtype="float32", always_2d=True)
        # A decoder stops silently where its file was cut short.
        if len(found) < wanted:
            raise damaged(path, f"it ends after {(first + len(found)) / rate:.2f} s")
    return found, rate


def _read_video(path: Path) -> tuple[Samples, int]:
    """Read the first audio stream of a video file."""
    with needed("av", "video"):
        import av  # noqa: PLC0415
    with open_file(path) as file, decoding(path):
        # Named, so that none that could name other files is tried.
        kind = "matroska" if path.suffix.lower() in (".mkv", ".webm") else "mov"
        with av.open(file, "r", format=kind) as container:
            if not container.streams.audio:
                raise refused(path, "has no sound", "extract it to a .wav of the same name")
            stream = container.streams.audio[0]
            parts = [frame.to_ndarray() for frame in container.decode(stream)]
            rate, channels = int(stream.rate), int(stream.channels)
    if not parts:
        raise damaged(path, "no sound in its audio stream")
    sound: npt.NDArray[Any] = np.concatenate(parts, axis=-1)
    if sound.shape[0] != channels:  # not planar: samples of all channels after each other
        sound = sound.reshape(-1, channels).T
    if sound.dtype.kind == "i":
        sound = sound / -float(np.iinfo(sound.dtype).min)
    return np.ascontiguousarray(sound.T.astype(np.float32)), rate


def resample(samples: Samples, rate: int, wanted: int) -> Samples:
    """Change how many samples a second has, by polyphase filtering.

    Args:
        samples: shape (n,).
        rate: of the samples.
        wanted: rate.

    Returns:
        Shape (ceil(n · wanted / rate),).

    Example:
        >>> tone = np.sin(np.arange(800) * 0.3).astype(np.float32)
        >>> resample(tone, 8000, 16000).shape
        (1600,)
    """
    if rate == wanted:
        return samples
    with needed("scipy", "speech"):
        from scipy.signal import resample_poly  # noqa: PLC0415
    common = math.gcd(rate, wanted)
    changed: Samples = resample_poly(samples, wanted // common, rate // common)
    return changed.astype(np.float32)


def write_audio(path: Path, samples: Samples, rate: int = RATE) -> None:
    """Write samples as the format that the file's ending names: FLAC or WAV of 16 bits, Opus.

    Args:
        path: ends in ``.flac``, ``.wav``, ``.opus`` or ``.ogg`` (both are Ogg Opus).
        samples: shape (n,), in -1..1; what is beyond is cut off.
        rate: samples a second.
    """
    with needed("soundfile", "speech"):
        import soundfile  # noqa: PLC0415
    opus = path.suffix in (".opus", ".ogg")
    how = {"format": "OGG", "subtype": "OPUS"} if opus else {"subtype": "PCM_16"}
    soundfile.write(path, np.clip(samples, -1, 1), rate, **how)
