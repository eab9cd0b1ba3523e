"""Networks that hide what does not matter: a soft mask for every frame, learnt with the critic."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from regrow.control.pixels.networks import convolved
from regrow.engine.checks import check_choice

__all__ = ["Masker", "MaskerKind", "Threshold", "binarised", "multiply_adds"]

MaskerKind = Literal["full", "half", "strided", "shared"]
Threshold = Literal["fixed", "mean", "quantile"]


class Masker(nn.Module):
    """Three convolutions of 3×3 and a sigmoid: how much of every pixel is kept, 0 to 1.

    All frames go through the same weights. ``full`` is the published one: 10,433 parameters, at
    the full resolution. Ours ask for less:

    - ``half``: the same network on frames averaged over 2×2 pixels; the mask is enlarged.
    - ``strided``: the first convolution has stride 2, the last makes the four pixels of each place.
    - ``shared``: what the encoder's first convolution makes of all frames, then two convolutions
      that make the four pixels of each place for every frame.

    Args:
        kind: which of them.
        frames: in an observation.
        filters: of hidden layers; of ``shared``, as the encoder's.

    Example:
        >>> masker = Masker("full")
        >>> sum(p.numel() for p in masker.parameters()), masker(torch.zeros(2, 9, 20, 20)).shape
        (10433, torch.Size([2, 3, 20, 20]))

    Source: MaDi (AAMAS 2024, arXiv 2312.15339), ``full``; the others are ours.
    """

    def __init__(self, kind: MaskerKind = "full", frames: int = 3, filters: int = 32) -> None:
        super().__init__()
        check_choice(kind, get_args(MaskerKind), "masker")
        self.kind, self.frames = kind, frames
        shared = kind == "shared"
        outputs = {"full": 1, "half": 1, "strided": 4, "shared": 4 * frames}[kind]
        stride = 2 if kind == "strided" else 1
        if not shared:
            self.first = nn.Conv2d(3, filters, 3, stride=stride, padding=1)
        self.second = nn.Conv2d(filters, filters, 3, padding=1)
        self.last = nn.Conv2d(filters, outputs, 3, padding=1)

    def forward(self, images: Tensor, first: nn.Conv2d | None = None) -> Tensor:
        """Return masks, (B, frames, H, W).

        Args:
            images: in 0..1, (B, 3 · frames, H, W).
            first: the encoder's first convolution, for ``shared``.
        """
        return torch.sigmoid(self.logits(images, first))

    def logits(self, images: Tensor, first: nn.Conv2d | None = None) -> Tensor:
        """Return masks before the sigmoid."""
        b, _, *size = images.shape
        if self.kind == "shared":
            assert first is not None
            shared = convolved(first, images)
            return _enlarged(functional.pixel_shuffle(self._head(shared), 2), size)
        x = _like(images.reshape(b * self.frames, 3, *size), images)
        if self.kind == "half":
            x = functional.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)
        x = self._head(convolved(self.first, x))
        if self.kind == "strided":
            x = functional.pixel_shuffle(x, 2)[..., : size[0], : size[1]]
        return _enlarged(x, size).reshape(b, self.frames, *size)

    def _head(self, x: Tensor) -> Tensor:
        x = self.second(functional.relu(x))
        return convolved(self.last, functional.relu(x))


def _like(x: Tensor, other: Tensor) -> Tensor:
    """Lay channels last if another tensor has them there."""
    last = other.is_contiguous(memory_format=torch.channels_last)
    return x.contiguous(memory_format=torch.channels_last) if last else x


def _enlarged(x: Tensor, size: list[int]) -> Tensor:
    if list(x.shape[2:]) == size:
        return x
    return functional.interpolate(x, size, mode="bilinear", align_corners=False)


def binarised(mask: Tensor, threshold: Threshold, level: float) -> Tensor:
    """Return a mask of 0 and 1, through which gradients go as through the soft one.

    Args:
        mask: in 0..1, (B, frames, H, W).
        threshold: what is above ``level`` is kept (fixed), what is above the frame's mean, or the
            share ``level`` of a frame's pixels that is highest (quantile).
        level: in 0..1.

    Example:
        >>> mask = torch.tensor([[[[0.2, 0.3], [0.4, 0.9]]]])
        >>> binarised(mask, "quantile", 0.5).flatten().tolist()
        [0.0, 0.0, 1.0, 1.0]

    Differs from MaDi's code: gradients are those of the soft mask (straight-through), without
    which a hard mask never learns; means and quantiles are those of a frame, not of a batch.
    """
    soft = mask.detach()
    if threshold == "fixed":
        hard = soft > level
    elif threshold == "mean":
        hard = soft > soft.mean((-2, -1), keepdim=True)
    else:
        pixels = soft.flatten(-2)
        kept = max(1, round(level * pixels.shape[-1]))
        hard = soft >= pixels.topk(kept, -1).values[..., -1:, None]
    return mask + (hard.to(mask.dtype) - mask).detach()


def multiply_adds(masker: Masker, size: int, encoder_filters: int = 32) -> int:
    """Count multiplications of a mask of one observation, biases and enlarging left out.

    Args:
        masker: any kind.
        size: of square frames.
        encoder_filters: of the encoder's first convolution, which ``shared`` runs once more.

    Example:
        >>> [round(multiply_adds(Masker(k), 84) / 1e6, 1) for k in ("full", "half", "strided")]
        [219.5, 54.9, 59.4]
    """
    filters, outputs = masker.second.out_channels, masker.last.out_channels
    side = {"full": size, "shared": (size - 3) // 2 + 1}.get(masker.kind, -(-size // 2))
    if masker.kind == "shared":
        kernel = 9 * (3 * masker.frames * encoder_filters + filters * filters + filters * outputs)
        return side**2 * kernel
    return masker.frames * side**2 * 9 * (3 * filters + filters * filters + filters * outputs)
