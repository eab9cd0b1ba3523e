"""Granularities of data pruning in time: points or chunks of an utterance are removed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from regrow.speech.conformer import STRIDE, steps_of

__all__ = ["TimePruning"]


@dataclass(frozen=True)
class TimePruning:
    """Removes steps of utterances, alone or in chunks: what is left is moved together.

    A step is the recogniser's stride, 4 frames or 40 ms: cuts lie at its multiples. Of an utterance
    of s steps with labels that need m (:func:`regrow.speech.ctc.needed_steps`), exactly
    max(round(keep · s), min(m, s)) stay: what could be aligned before can be aligned after. Chunks
    stay in the order of their scores; of the last one only the first steps may.

    Args:
        keep: the share of steps that stay.
        chunk: steps in a chunk: 10 is 0.4 s, 1 removes single time points. Where chunks begin is
            drawn for each utterance.
        by: which chunks stay: "random" ones, drawn anew in every epoch, or the "loud" ones, of the
            highest mean feature, which keep what is said and remove pauses.
        stride: frames of a step: that of the recogniser. Of samples in place of frames it is 640
            for auto_avsr's model.

    Raises:
        ValueError: an argument is out of range.

    Source: time-wise pruning of DDP-ASR (arXiv 2406.18373): points against chunks. The length of
    its chunks, how they are chosen, and whether samples or frames are cut is not public; these are
    arguments here.

    Example:
        >>> frames = torch.arange(40.0).reshape(1, 40, 1)
        >>> half = TimePruning(keep=0.5, chunk=2)
        >>> left, lengths = half(frames, torch.tensor([40]), torch.tensor([1]), torch.tensor([7]))
        >>> left.shape, lengths.tolist()
        (torch.Size([1, 20, 1]), [20])
    """

    keep: float = 0.7
    chunk: int = 10
    by: Literal["random", "loud"] = "random"
    stride: int = STRIDE

    def __post_init__(self) -> None:
        if not 0 < self.keep <= 1:
            raise ValueError(f"keep={self.keep}: must be above 0 and at most 1")
        if self.chunk < 1:
            raise ValueError(f"chunk={self.chunk}: must be at least 1 step")
        if self.stride < 1:
            raise ValueError(f"stride={self.stride}: must be at least 1 frame")
        if self.by not in ("random", "loud"):
            raise ValueError(f"by={self.by!r}: must be 'random' or 'loud'")

    def steps_kept(self, steps: Tensor, needed: Tensor) -> Tensor:
        """Return how many steps stay, int64.

        Args:
            steps: of whole utterances.
            needed: to align their labels.
        """
        return torch.maximum((self.keep * steps).round().long(), torch.minimum(needed, steps))

    def __call__(
        self, frames: Tensor, lengths: Tensor, needed: Tensor, ids: Tensor, key: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Remove steps from a batch.

        Args:
            frames: shape (n, frames, mels).
            lengths: int64, shape (n,): frames of each.
            needed: int64, shape (n,): steps that its labels need.
            ids: int64, shape (n,): of the utterances.
            key: of this epoch: an utterance's draw follows from key and id alone.

        Returns:
            The frames that are left, shape (n, frames left, mels), and new lengths.
        """
        steps = steps_of(lengths, self.stride)
        kept = self._kept(frames, steps, self.steps_kept(steps, needed), ids, key)
        time = torch.arange(frames.shape[1], device=frames.device)
        stays = kept[:, time // self.stride] & (time < lengths[:, None])
        left = stays.sum(1)
        place = (~stays).long().argsort(dim=1, stable=True)[:, : int(left.max())]
        found = frames.gather(1, place[..., None].expand(-1, -1, frames.shape[2]))
        inside = torch.arange(found.shape[1], device=frames.device) < left[:, None]
        return found * inside[..., None], left

    def _kept(self, frames: Tensor, steps: Tensor, wanted: Tensor, ids: Tensor, key: int) -> Tensor:
        """Return which steps stay: bool, shape (n, most steps)."""
        most = -(-frames.shape[1] // self.stride)
        place = torch.arange(most, device=frames.device)
        offset = (_drawn(key, ids, torch.full_like(ids, -1)) * self.chunk).long()
        chunk = (place + offset[:, None]) // self.chunk  # of each step
        inside = place < steps[:, None]
        score = self._scores(frames, chunk, inside, ids, key)
        order = torch.where(inside, score, -torch.inf).argsort(dim=1, descending=True, stable=True)
        rank = torch.empty_like(order)
        rank.scatter_(1, order, place.expand_as(order))
        return rank < wanted[:, None]

    def _scores(
        self, frames: Tensor, chunk: Tensor, inside: Tensor, ids: Tensor, key: int
    ) -> Tensor:
        """Return the score of each step's chunk: equal in a chunk, and only there."""
        if self.by == "random":
            return _drawn(key, ids[:, None], chunk)
        n, most = chunk.shape
        level = frames.mean(2)
        level = torch.nn.functional.pad(level, (0, most * self.stride - level.shape[1]))
        level = level.unflatten(1, (most, self.stride)).mean(2).double()
        chunks = int(chunk.max()) + 1
        total = torch.zeros(n, chunks, dtype=torch.float64, device=frames.device)
        count = torch.zeros_like(total)
        total.scatter_add_(1, chunk, level * inside)
        count.scatter_add_(1, chunk, inside.double())
        return (total / count.clamp(min=1)).gather(1, chunk)


# Odd 64-bit constants of SplitMix64, as signed numbers.
_MIX = (-0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15)


def _drawn(key: int, *parts: Tensor) -> Tensor:
    """Return numbers in [0, 1) that are hashes of a key and whole numbers, the same on any device.

    Source: the finaliser of SplitMix64 (Steele et al. 2014).
    """
    x = torch.full_like(parts[0], key)
    for part in parts:
        x = x + part * _MIX[0]
        for shift, factor in ((30, _MIX[1]), (27, _MIX[2])):
            x = (x ^ ((x >> shift) & ((1 << (64 - shift)) - 1))) * factor
        x = x ^ ((x >> 31) & ((1 << 33) - 1))
    return ((x >> 11) & ((1 << 53) - 1)).double() / (1 << 53)
