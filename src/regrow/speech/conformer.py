"""The Conformer: a subsampled sequence of frames, seen by attention and convolution in turn."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from regrow.speech.attention import RelativeAttention, distances
from regrow.speech.features import MELS

__all__ = ["STRIDE", "Conformer", "ConformerBlock", "Subsampling", "mask_of", "steps_of"]

STRIDE = 4
"""Frames of a step of the encoder, which are 40 ms, or 640 samples at 16 kHz."""


def steps_of(frames: Tensor, stride: int = STRIDE) -> Tensor:
    """Return how many steps so many frames become: ⌈frames / stride⌉.

    Example:
        >>> steps_of(torch.tensor([1, 4, 5])).tolist()
        [1, 1, 2]
    """
    return (frames + stride - 1) // stride


def mask_of(lengths: Tensor, longest: int) -> Tensor:
    """Return what lies inside of utterances: bool, shape (n, longest).

    Example:
        >>> mask_of(torch.tensor([1, 2]), 3).tolist()
        [[True, False, False], [True, True, False]]
    """
    return torch.arange(longest, device=lengths.device) < lengths[:, None]


class Subsampling(nn.Module):
    """Two convolutions over time and mel bands that halve both, and a projection.

    Args:
        width: of a step.
        channels: of the convolutions.
        mels: of a frame.
    """

    def __init__(self, width: int, channels: int, mels: int = MELS) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, channels, 3, stride=2, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        bands = (mels + 3) // 4
        self.out = nn.Linear(channels * bands, width)
        self.norm = nn.LayerNorm(width)  # without it, training begins much later

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return steps, shape (n, steps, width), and how many each utterance has.

        Args:
            frames: shape (n, frames, mels).
            lengths: int64, shape (n,): frames of each.
        """
        x = frames[:, None]
        for layer in (self.first, self.second):
            # What was padded must be as zero as what is beyond the end of an utterance alone.
            x = functional.silu(layer(x * mask_of(lengths, x.shape[2])[:, None, :, None]))
            lengths = (lengths + 1) // 2
        return self.norm(self.out(x.transpose(1, 2).flatten(2))), lengths


class _FeedForward(nn.Sequential):
    def __init__(self, width: int, inner: int, dropout: float) -> None:
        super().__init__(
            nn.LayerNorm(width),
            nn.Linear(width, inner),
            nn.SiLU(),
            nn.Dropout(dropout),
            nn.Linear(inner, width),
            nn.Dropout(dropout),
        )


class _Convolution(nn.Module):
    def __init__(self, width: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, 2 * width)
        self.along = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm_along = nn.LayerNorm(width)
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, inside: Tensor) -> Tensor:
        x = functional.glu(self.widen(self.norm(x)), dim=-1) * inside[..., None]
        x = self.along(x.transpose(1, 2)).transpose(1, 2)
        return self.dropout(self.out(functional.silu(self.norm_along(x))))  # type: ignore[no-any-return]


class ConformerBlock(nn.Module):
    """Half a feed-forward layer, attention, convolution, the other half.

    Args:
        width: of a step.
        heads: of the attention.
        inner: width inside the feed-forward layers.
        kernel: of the convolution over time, an odd number.
        dropout: of all layers.

    Source: Gulati et al. 2020, section 2.

    Differs from the paper: a layer norm follows the convolution, not a batch norm, so that what an
    utterance comes out as does not hang on the others in its batch.
    """

    def __init__(self, width: int, heads: int, inner: int, kernel: int, dropout: float) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"kernel={kernel}: must be odd")
        self.before = _FeedForward(width, inner, dropout)
        self.norm = nn.LayerNorm(width)
        self.attention = RelativeAttention(width, heads, dropout)
        self.dropout = nn.Dropout(dropout)
        self.convolution = _Convolution(width, kernel, dropout)
        self.after = _FeedForward(width, inner, dropout)
        self.last = nn.LayerNorm(width)

    def forward(self, x: Tensor, far: Tensor, inside: Tensor) -> Tensor:
        """Compute a block; the arguments are those of its attention."""
        x = x + 0.5 * self.before(x)
        x = x + self.dropout(self.attention(self.norm(x), far, inside))
        x = x + self.convolution(x, inside)
        x = x + 0.5 * self.after(x)
        return self.last(x)  # type: ignore[no-any-return]


class Conformer(nn.Module):
    """An encoder of speech: one step for every 4 frames.

    Args:
        width: of a step.
        layers: blocks.
        heads: of attention.
        inner: width inside the feed-forward layers; None: 4 · width.
        kernel: of convolutions over time.
        channels: of the convolutions that subsample.
        dropout: of all layers.
        mels: of a frame.

    Source: Gulati et al. 2020, arXiv 2005.08100.

    Example:
        >>> encoder = Conformer(16, 1, 2, channels=4)
        >>> steps, lengths = encoder(torch.zeros(2, 9, 80), torch.tensor([9, 4]))
        >>> steps.shape, lengths.tolist()
        (torch.Size([2, 3, 16]), [3, 1])
    """

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        inner: int | None = None,
        kernel: int = 31,
        channels: int = 256,
        dropout: float = 0.1,
        mels: int = MELS,
    ) -> None:
        super().__init__()
        self.width = width
        self.subsampling = Subsampling(width, channels, mels)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            ConformerBlock(width, heads, inner or 4 * width, kernel, dropout) for _ in range(layers)
        )

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return steps, shape (n, steps, width), and how many each utterance has."""
        x, _, lengths = self.halves(frames, lengths)
        return x, lengths

    def halves(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return steps, what they are after half of the blocks, and how many there are."""
        x, lengths = self.subsampling(frames, lengths)
        x = middle = self.dropout(x)
        inside = mask_of(lengths, x.shape[1])
        far = distances(x.shape[1], self.width, x.device)
        for number, block in enumerate(self.blocks, 1):
            x = block(x, far, inside)
            if number == (len(self.blocks) + 1) // 2:
                middle = x
        return x, middle, lengths
