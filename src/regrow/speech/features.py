"""Features of speech: log-mel frames, computed once and kept."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from regrow.data.kept import Arrays, kept
from regrow.speech.audio import RATE, read_audio
from regrow.speech.utterances import Corpus, LeftOut, Utterance

__all__ = [
    "FRAME",
    "HOP",
    "MELS",
    "Features",
    "frames_in",
    "log_mel",
    "make_features",
    "mel_filters",
    "normalised",
    "standardise",
]

MELS = 80
"""Numbers in a frame."""

FRAME = 25e-3
"""Length of a frame, in seconds."""

HOP = 10e-3
"""From each frame to the next, in seconds."""

_LOWEST, _FLOOR = 20.0, 1e-10  # Hz; power below which there is silence
_SHARD = 1_000  # utterances that are kept in one place


def mel_filters(rate: int = RATE, mels: int = MELS, points: int | None = None) -> Tensor:
    """Return triangular filters, equally wide on the mel scale 2595 log₁₀(1 + f/700).

    Args:
        rate: samples a second.
        mels: how many filters, between 20 Hz and half the rate.
        points: of the Fourier transform; None: as many as a frame has samples.

    Returns:
        Shape (points // 2 + 1, mels).

    Source: O'Shaughnessy 1987; HTK's scale.
    """
    points = points or round(FRAME * rate)
    low, high = (2595.0 * math.log10(1.0 + hertz / 700.0) for hertz in (_LOWEST, rate / 2))
    edges = torch.linspace(low, high, mels + 2, dtype=torch.float64)
    edges = 700.0 * (10.0 ** (edges / 2595.0) - 1.0)
    bins = torch.linspace(0, rate / 2, points // 2 + 1, dtype=torch.float64)
    rise = (bins[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - bins[:, None]) / (edges[2:] - edges[1:-1])
    return torch.minimum(rise, fall).clamp(min=0).float()


def frames_in(samples: int, rate: int = RATE) -> int:
    """Return how many frames lie whole in so many samples.

    Example:
        >>> frames_in(399), frames_in(400), frames_in(16000)
        (0, 1, 98)
    """
    frame, hop = round(FRAME * rate), round(HOP * rate)
    return 0 if samples < frame else 1 + (samples - frame) // hop


def log_mel(samples: Tensor, rate: int = RATE, mels: int = MELS) -> Tensor:
    """Compute log-mel frames: ln(max(filters · |STFT|², 1e-10)), Hann windows of 25 ms every 10 ms.

    Args:
        samples: shape (n,), of one utterance.
        rate: samples a second.
        mels: numbers in a frame.

    Returns:
        Shape (frames, mels), where frames is :func:`frames_in`.

    Raises:
        ValueError: there is not one frame.

    Example:
        >>> log_mel(torch.zeros(1000)).shape
        torch.Size([4, 80])
    """
    frame, hop = round(FRAME * rate), round(HOP * rate)
    if len(samples) < frame:
        raise ValueError(
            f"lasts {1000 * len(samples) / rate:.0f} ms, and one frame {1000 * FRAME:.0f} ms: "
            "leave it out, or record longer"
        )
    window, filters = _tools(rate, mels, samples.device)
    spectrum: Tensor = torch.stft(
        samples, frame, hop, window=window, center=False, return_complex=True
    ).abs()
    return (spectrum.square().T @ filters).clamp(min=_FLOOR).log()


@functools.lru_cache(maxsize=8)
def _tools(rate: int, mels: int, device: torch.device) -> tuple[Tensor, Tensor]:
    window = torch.hann_window(round(FRAME * rate), device=device)
    return window, mel_filters(rate, mels).to(device)


def standardise(frames: Tensor) -> Tensor:
    """Give each mel band of an utterance mean 0 and deviation 1 over time.

    What a microphone or a room does to a band is so taken out. A band that never changes is 0.

    Args:
        frames: shape (frames, mels).
    """
    centred = frames - frames.mean(0)
    return centred / centred.square().mean(0).sqrt().clamp(min=1e-2)


def normalised(samples: npt.NDArray[np.float32], device: torch.device | str = "cpu") -> Tensor:
    """Compute the frames that recognisers take, from samples at 16 kHz."""
    return standardise(log_mel(torch.from_numpy(samples).to(device)))


@dataclass(frozen=True, eq=False)
class Features:
    """Frames of many utterances, one after the other.

    Args:
        frames: float16, shape (all frames, mels); may be mapped from files.
        lengths: int64, shape (utterances,): frames of each.
    """

    frames: Tensor
    lengths: Tensor

    @functools.cached_property
    def starts(self) -> Tensor:
        """Where each utterance's frames begin."""
        return self.lengths.cumsum(0) - self.lengths

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def seconds(self) -> float:
        """How long all of it lasts."""
        return float(self.lengths.sum()) * HOP

    def __getitem__(self, index: int) -> Tensor:
        start = int(self.starts[index])
        return self.frames[start : start + int(self.lengths[index])]

    def to(self, device: torch.device) -> Features:
        """Move the frames to a device."""
        return Features(self.frames.to(device), self.lengths)

    def padded(self, ids: Tensor, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """Gather utterances as float32, shape (n, most frames, mels), and their lengths.

        Frames lie at their own device while they are gathered; what is beyond an end is 0.

        Args:
            ids: int64, shape (n,): which.
            device: where both are wanted.
        """
        lengths = self.lengths[ids]
        at = self.frames.device
        time = torch.arange(int(lengths.max()), device=at)
        place = self.starts[ids].to(at)[:, None] + time
        inside = time < lengths.to(at)[:, None]
        found = self.frames[torch.where(inside, place, 0)].float() * inside[..., None]
        return found.to(device), lengths.to(device)


def make_features(
    corpus: Corpus, *, device: torch.device | str = "cpu", workers: int = 2
) -> tuple[Corpus, Features]:
    """Compute the frames of a corpus, or take them from the cache.

    Frames are kept in the user's cache, by a thousand utterances; of several processes one computes
    them and the others wait. A changed file is read anew.

    Args:
        corpus: whose audio is read.
        device: where frames are computed.
        workers: threads that read audio.

    Returns:
        The corpus without what could not be read, with a reason for each; and the features of all
        others, in its order.

    Raises:
        ValueError: nothing could be read.
        ImportError: soundfile is missing.
    """
    made = [
        kept(
            "speech",
            ["log-mel", 1, RATE, MELS, *map(_source, shard)],
            functools.partial(_frames_of, shard, device, workers),
            folder="features",
            alone=True,
        )
        for shard in _shards(corpus.utterances)
    ]
    left = [
        LeftOut(utterance.id, str(why))
        for shard, arrays in zip(_shards(corpus.utterances), made, strict=True)
        for utterance, why in zip(shard, arrays["problems"], strict=True)
        if why
    ]
    rest = corpus.without(left)
    if not rest.utterances:
        raise ValueError(f"not one of {len(corpus)} utterances can be used; the first: {left[0]}")
    lengths = np.concatenate([arrays["lengths"] for arrays in made])
    frames = np.concatenate([arrays["frames"] for arrays in made])
    return rest, Features(torch.from_numpy(frames), torch.from_numpy(lengths[lengths > 0]))


def _shards(utterances: Sequence[Utterance]) -> Iterator[Sequence[Utterance]]:
    for start in range(0, len(utterances), _SHARD):
        yield utterances[start : start + _SHARD]


def _source(utterance: Utterance) -> tuple[Any, ...]:
    """Return all that an utterance's frames hang on; its text is not among it."""
    try:
        stat = utterance.audio.stat()
        state = stat.st_size, stat.st_mtime_ns
    except OSError:
        state = 0, 0
    part = utterance.start, utterance.duration, utterance.channel
    return str(utterance.audio.absolute()), *state, *part


def _frames_of(utterances: Sequence[Utterance], device: torch.device | str, workers: int) -> Arrays:
    """Compute the frames of some utterances; one that cannot be read has none, and a reason."""
    frames, lengths, problems = [], [], []
    with ThreadPoolExecutor(workers) as threads:
        for found in threads.map(_read, utterances):
            one, why = torch.zeros(0, MELS), found if isinstance(found, str) else ""
            if not isinstance(found, str):
                try:
                    one = normalised(found, device)
                except ValueError as error:
                    why = str(error)
            frames.append(one.half().cpu().numpy())
            lengths.append(len(one))
            problems.append(why)
    return {
        "frames": np.concatenate(frames),
        "lengths": np.array(lengths, dtype=np.int64),
        "problems": np.array(problems, dtype=np.str_),
    }


def _read(utterance: Utterance) -> npt.NDArray[np.float32] | str:
    try:
        return read_audio(utterance)
    except (OSError, ValueError) as error:
        return str(error)
