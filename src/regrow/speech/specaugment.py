"""SpecAugment: parts of an utterance, in time and in frequency, are hidden in training."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["SpecAugment"]


class SpecAugment(nn.Module):
    """Sets random bands of frequency and stretches of time to 0, the mean, in training only.

    Widths are drawn evenly from 0 to the largest, for each utterance by itself. Nothing gets
    shorter: no computation is saved; see :mod:`regrow.speech.granularity` for what saves some.

    Args:
        bands: of frequency that are hidden.
        widest_band: in mel bands.
        stretches: of time that are hidden.
        longest_stretch: as a share of the utterance.

    Source: Park et al. 2019; adaptive in time as in Park et al. 2020. Without time warping.
    """

    def __init__(
        self,
        bands: int = 2,
        widest_band: int = 27,
        stretches: int = 5,
        longest_stretch: float = 0.05,
    ) -> None:
        super().__init__()
        self.bands, self.widest_band = bands, widest_band
        self.stretches, self.longest_stretch = stretches, longest_stretch

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Hide parts of utterances.

        Args:
            frames: shape (n, frames, mels).
            lengths: int64, shape (n,).
        """
        if not self.training:
            return frames
        _, time, mels = frames.shape
        whole = torch.full_like(lengths, mels)
        bands = _drawn(whole, torch.full_like(lengths, self.widest_band), self.bands, mels)
        longest = (lengths * self.longest_stretch).long()
        times = _drawn(lengths, longest, self.stretches, time)
        return frames.masked_fill(bands[:, None, :] | times[..., None], 0.0)


def _drawn(sizes: Tensor, longest: Tensor, number: int, along: int) -> Tensor:
    """Draw stretches inside of sizes: bool, shape (n, along), True where one of them is."""
    shape = len(sizes), number, 1
    device = sizes.device
    length = (torch.rand(shape, device=device) * (longest[:, None, None] + 1)).floor()
    free = (sizes[:, None, None] - length).clamp(min=0)
    start = (torch.rand(shape, device=device) * (free + 1)).floor()
    place = torch.arange(along, device=device)
    return ((place >= start) & (place < start + length)).any(1)
