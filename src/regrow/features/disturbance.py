"""Disturbs inputs by noise and dropout, from one random number of 16 bits each."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["disturbed_", "kept_share"]

_LEVELS = 1 << 16
_A_WORD = 4  # numbers of 16 bits

# grad where input > threshold, else 0: one pass of vector instructions, where a product with
# booleans, or torch.where, takes several times as long.
above = torch.ops.aten.threshold_backward


def kept_share(dropout: float) -> float:
    """Return the share of inputs that dropout leaves, as it is drawn: a multiple of 2⁻¹⁶.

    Example:
        >>> kept_share(0.25), kept_share(0.999999) * 65536
        (0.75, 1.0)
    """
    return max(round(_LEVELS * (1 - dropout)), 1) / _LEVELS


def disturbed_(x: Tensor, noise: float, dropout: float, generator: torch.Generator) -> Tensor:
    """Return (x + ν) ∘ κ, with κ = 1 where an input is kept, else 0; x itself may change.

    A number u is drawn for each input, uniform on 2¹⁶ levels. The input is kept where u is among
    the highest levels. There u is uniform still, so that less its mean it is the noise as well:
    what is kept and by how much it is moved are independent.

    Args:
        x: float32, of any shape.
        noise: standard deviation of ν, which is uniform.
        dropout: the share of inputs set to zero. What is kept is not divided by the share.
        generator: a CPU generator.

    Example:
        >>> x = disturbed_(torch.ones(20_000), 0.0, 0.25, torch.Generator().manual_seed(0))
        >>> x.unique().tolist(), round(float(x.mean()), 2)
        ([0.0, 1.0], 0.75)
    """
    levels = round(kept_share(dropout) * _LEVELS)
    lowest = _LEVELS // 2 - levels
    words = torch.empty(-(-x.numel() // _A_WORD), dtype=torch.int64, device="cpu")
    words.random_(-(2**63), None, generator=generator)  # the whole word
    drawn = words.view(torch.int16)[: x.numel()].view(x.shape)
    centre = lowest + (levels - 1) / 2
    centred = drawn - centre
    if levels > 1:
        x.add_(centred, alpha=noise / math.sqrt((levels**2 - 1) / 12))
    kept: Tensor = above(x, centred, lowest - 0.5 - centre)
    return kept
