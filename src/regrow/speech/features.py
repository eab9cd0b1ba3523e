"""Features of speech: log-mel frames, computed once and kept."""

from __future__ import annotations

import bisect
import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from regrow.data.kept import Arrays, kept
from regrow.speech.audio import RATE, read_audio, resample
from regrow.speech.utterances import Corpus, LeftOut, Utterance

__all__ = [
    "FRAME",
    "HOP",
    "MELS",
    "Features",
    "at_speed",
    "frames_in",
    "log_mel",
    "make_features",
    "mel_filters",
    "normalised",
    "sent",
    "standardise",
]

MELS = 80
"""Numbers in a frame."""

FRAME = 25e-3
"""Length of a frame, in seconds."""

HOP = 10e-3
"""From each frame to the next, in seconds."""

_LOWEST, _FLOOR = 20.0, 1e-10  # Hz; power below which there is silence
_RANGE = 8 * math.log(10)  # 80 dB: what is more below the loudest is silence, too
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
    What is more than 80 dB below the loudest is raised to that: else pauses without any noise,
    which synthesisers make and editors put in, would be all that a band has to tell.

    Args:
        frames: shape (frames, mels): logarithms.

    Source: the range is Whisper's (Radford et al. 2022).
    """
    frames = frames.clamp(min=frames.max() - _RANGE)
    centred = frames - frames.mean(0)
    return centred / centred.square().mean(0).sqrt().clamp(min=1e-2)


def normalised(samples: npt.NDArray[np.float32], device: torch.device | str = "cpu") -> Tensor:
    """Compute the frames that recognisers take, from samples at 16 kHz."""
    return standardise(log_mel(torch.from_numpy(samples).to(device)))


@dataclass(frozen=True, eq=False)
class Features:
    """Frames of many utterances.

    Args:
        blocks: float16, shape (frames, mels) each: on a CPU mapped from files, on a GPU one.
        starts: int64, shape (utterances,): each one's first frame, counted through all blocks; none
            lies in two blocks.
        lengths: int64, shape (utterances,): frames of each.
    """

    blocks: tuple[Tensor, ...]
    starts: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, *parts: tuple[Tensor, Tensor]) -> Features:
        """Make them of blocks whose utterances follow each other: frames, and their lengths.

        Example:
            >>> found = Features.of((torch.zeros(5, 80), torch.tensor([3, 2])))
            >>> found.starts.tolist(), found[1].shape
            ([0, 3], torch.Size([2, 80]))
        """
        lengths = torch.cat([own for _, own in parts])
        return cls(tuple(frames for frames, _ in parts), lengths.cumsum(0) - lengths, lengths)

    @classmethod
    def joined(cls, parts: Sequence[Features]) -> Features:
        """Put utterances one after the other; no frame is copied."""
        before = itertools.accumulate((part.frames for part in parts), initial=0)
        starts = torch.cat([part.starts + n for part, n in zip(parts, before, strict=False)])
        blocks = tuple(block for part in parts for block in part.blocks)
        return cls(blocks, starts, torch.cat([part.lengths for part in parts]))

    def only(self, mask: Tensor) -> Features:
        """Return some of the utterances, mask: bool, shape (utterances,); no frame is copied."""
        return Features(self.blocks, self.starts[mask], self.lengths[mask])

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def frames(self) -> int:
        """How many frames the blocks have."""
        return sum(map(len, self.blocks))

    @property
    def seconds(self) -> float:
        """How long all utterances last."""
        return float(self.lengths.sum()) * HOP

    def __getitem__(self, index: int) -> Tensor:
        start, length = int(self.starts[index]), int(self.lengths[index])
        block = bisect.bisect_right(self._edges, start) - 1
        return self.blocks[block][start - self._edges[block] :][:length]

    @functools.cached_property
    def _edges(self) -> list[int]:
        """Where blocks begin."""
        return [0, *itertools.accumulate(map(len, self.blocks[:-1]))]

    def to(self, device: torch.device) -> Features:
        """Put the frames on a device, as one block; on a CPU they stay where they are."""
        if device.type == "cpu":
            return self
        whole = torch.empty(
            self.frames, self.blocks[0].shape[1], dtype=torch.float16, device=device
        )
        for edge, block in zip(self._edges, self.blocks, strict=True):
            whole[edge : edge + len(block)] = block
        return Features((whole,), self.starts, self.lengths)

    @functools.cached_property
    def _starts_at_frames(self) -> Tensor:
        return self.starts.to(self.blocks[0].device)

    def padded(self, ids: Tensor, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """Gather utterances as float32, shape (n, most frames, mels), and their lengths.

        What is beyond an end is 0. Frames that are on a GPU stay there, and it is not waited for.

        Args:
            ids: int64, shape (n,), on the CPU: which.
            device: where both are wanted.
        """
        own, at = self.lengths[ids], self.blocks[0].device
        lengths = sent(own, torch.device(device))
        if at.type == "cpu":
            rows = [self[i] for i in ids.tolist()]
            return pad_sequence(rows, batch_first=True).float().to(device), lengths
        time = torch.arange(int(own.max()), device=at)
        place = self._starts_at_frames[sent(ids, at)][:, None] + time
        inside = time < lengths.to(at)[:, None]
        found = self.blocks[0][torch.where(inside, place, 0)].float() * inside[..., None]
        return found.to(device), lengths


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a small tensor to a device without waiting for what that is doing."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def make_features(
    corpus: Corpus,
    *,
    speed: float = 1.0,
    device: torch.device | str = "cpu",
    workers: int = 2,
) -> tuple[Corpus, Features]:
    """Compute the frames of a corpus, or take them from the cache.

    Frames are kept in the user's cache, by a thousand utterances; of several processes one computes
    them and the others wait. A changed file is read anew.

    Args:
        corpus: whose audio is read.
        speed: at which it is played, by resampling: above 1 it is shorter and higher.
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
            ["log-mel", 2, RATE, MELS, *([] if speed == 1 else [speed]), *map(_source, shard)],
            functools.partial(_frames_of, shard, speed, device, workers),
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
    blocks = [(torch.from_numpy(arrays["frames"]), arrays["lengths"]) for arrays in made]
    return rest, Features.of(*((f, torch.from_numpy(own[own > 0])) for f, own in blocks))


def _shards(utterances: Sequence[Utterance]) -> Iterator[Sequence[Utterance]]:
    for start in range(0, len(utterances), _SHARD):
        yield utterances[start : start + _SHARD]


def _source(utterance: Utterance) -> tuple[Any, ...]:
    """Return all that an utterance's frames hang on; its text is not among it."""
    try:
        stat = utterance.audio.stat()
        state = stat.st_size, stat.st_mtime_ns
    except (OSError, ValueError):  # not there, or of a name that no file can have
        state = 0, 0
    part = utterance.start, utterance.duration, utterance.channel
    return str(utterance.audio.absolute()), *state, *part


def _frames_of(
    utterances: Sequence[Utterance], speed: float, device: torch.device | str, workers: int
) -> Arrays:
    """Compute the frames of some utterances; one that cannot be read has none, and a reason."""
    frames, lengths, problems = [], [], []
    with ThreadPoolExecutor(workers) as threads:
        for found in threads.map(functools.partial(_read, speed=speed), utterances):
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


def _read(utterance: Utterance, speed: float) -> npt.NDArray[np.float32] | str:
    try:
        samples = read_audio(utterance)
    except (OSError, ValueError) as error:
        return str(error)
    return samples if speed == 1 else at_speed(samples, speed)


def at_speed(samples: npt.NDArray[np.float32], speed: float) -> npt.NDArray[np.float32]:
    """Play samples faster or slower by resampling; what would be shorter than a frame stays.

    Args:
        samples: shape (n,), at 16 kHz.
        speed: 1.1 makes 10 s of speech 9.1 s, and 10 % higher.

    Source: Ko et al. 2015, Audio augmentation for speech recognition.

    Example:
        >>> len(at_speed(np.zeros(1100, np.float32), 1.1))
        1000
    """
    ratio = Fraction(speed).limit_denominator(1000)
    changed = resample(samples, ratio.numerator, ratio.denominator)
    return changed if frames_in(len(changed)) else samples
