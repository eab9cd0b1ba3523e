"""Vision transformers."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from regrow.vision.models.depth import leave_out

__all__ = ["Attention", "TransformerBlock", "VisionTransformer", "deit", "patch_for"]

_HEAD = 64  # width of a head, in every DeiT


class Attention(nn.Module):
    """Multi-head self-attention: concat_h(softmax(Q_h K_hᵀ / √d) V_h) Wᵀ + b.

    Args:
        width: of a token.
        heads: how many; each is 64 wide, whatever the width of a token.

    Source: Vaswani et al. 2017 (arXiv 1706.03762), section 3.2.

    Example:
        >>> Attention(8, heads=2)(torch.zeros(1, 5, 8)).shape
        torch.Size([1, 5, 8])
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * heads * _HEAD)
        self.out = nn.Linear(heads * _HEAD, width)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the layer for tokens (batch, tokens, width)."""
        split = self.qkv(x).unflatten(2, (3, self.heads, _HEAD))
        queries, keys, values = split.permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(queries, keys, values)
        attended: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return attended


class TransformerBlock(nn.Module):
    """Attention and a perceptron, each after a norm and beside a shortcut.

    Args:
        width: of a token; the perceptron's hidden layer is four times as wide.
        heads: of the attention.
        drop: the probability of leaving out either for a sample in training.

    Source: Dosovitskiy et al. 2021 (arXiv 2010.11929), equations 2 and 3.

    Example:
        >>> TransformerBlock(8, heads=1)(torch.zeros(1, 5, 8)).shape
        torch.Size([1, 5, 8])
    """

    def __init__(self, width: int, heads: int, drop: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.hidden = nn.Linear(width, 4 * width)
        self.out = nn.Linear(4 * width, width)
        self.drop = drop

    def forward(self, x: Tensor) -> Tensor:
        """Compute the block for tokens (batch, tokens, width)."""
        drop = self.drop if self.training else 0.0
        x = x + leave_out(self.attention(self.norm1(x)), drop)
        hidden = nn.functional.gelu(self.hidden(self.norm2(x)))
        return x + leave_out(self.out(hidden), drop)


class VisionTransformer(nn.Module):
    """A transformer over the patches of an image, with a class token and learnt positions.

    Args:
        shape: of an image: (channels, height, width); both sides are multiples of the patch.
        classes: outputs.
        width: of a token.
        heads: of every block.
        depth: blocks.
        patch: side of a patch, in pixels.
        stochastic_depth: the probability of leaving out the last block; earlier ones less, in
            proportion to their depth, the first never.

    Raises:
        ValueError: the patches do not fill the image.

    Source: Dosovitskiy et al. 2021 (arXiv 2010.11929), section 3.1.

    Example:
        >>> model = VisionTransformer((1, 8, 8), 10, width=16, heads=1, depth=2, patch=4)
        >>> model(torch.zeros(2, 1, 8, 8)).shape, tuple(model.positions.shape)
        (torch.Size([2, 10]), (5, 16))
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int,
        *,
        width: int,
        heads: int,
        depth: int,
        patch: int,
        stochastic_depth: float = 0.0,
    ) -> None:
        super().__init__()
        channels, *sides = shape
        if any(side < patch or side % patch for side in sides):
            raise ValueError(
                f"images of {sides[0]}×{sides[1]} pixels: both sides must be multiples of the "
                f"patch's, {patch}; resize or crop them"
            )
        self.patches = nn.Conv2d(channels, width, patch, stride=patch)
        self.token = nn.Parameter(torch.empty(width))
        tokens = 1 + (sides[0] // patch) * (sides[1] // patch)
        self.positions = nn.Parameter(torch.empty(tokens, width))
        drops = [stochastic_depth * i / max(1, depth - 1) for i in range(depth)]
        self.blocks = nn.Sequential(*(TransformerBlock(width, heads, drop) for drop in drops))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, classes)
        for tensor in (self.token, self.positions):
            nn.init.trunc_normal_(tensor, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores of classes for images (batch, channels, height, width)."""
        patches = self.patches(x).flatten(2).transpose(1, 2)
        token = self.token.expand(len(x), 1, -1)
        tokens = torch.cat([token, patches], 1) + self.positions
        scores: Tensor = self.head(self.norm(self.blocks(tokens)[:, 0]))
        return scores


_HEADS = {"tiny": 3, "small": 6, "base": 12}


def deit(
    size: Literal["tiny", "small", "base"],
    shape: tuple[int, int, int] = (3, 224, 224),
    classes: int = 1000,
    *,
    width: int | None = None,
    stochastic_depth: float = 0.1,
) -> VisionTransformer:
    """Build DeiT, without the distillation token.

    Args:
        size: "tiny" (tokens 192 wide, 3 heads), "small" (384, 6) or "base" (768, 12).
        shape: of an image: (channels, height, width); patches are those of :func:`patch_for`.
        classes: outputs.
        width: of a token; None is the paper's. Heads stay 64 wide: there is one for every 64, at
            least one.
        stochastic_depth: the probability of leaving out the last block.

    Raises:
        ValueError: there is no such size, or the patches do not fill the image.

    Source: Touvron et al. 2021 (arXiv 2012.12877), tables 1 and 9. Weights start as in its public
    code: linear layers, positions and token from a normal distribution of deviation 0.02, cut off
    at ±2; biases at 0.

    Differs from the paper: patches of images below 128 pixels are smaller than 16.

    Example:
        >>> sum(p.numel() for p in deit("tiny").parameters())
        5717416
    """
    if size not in _HEADS:
        raise ValueError(f"size={size!r}: must be one of {', '.join(_HEADS)}")
    width = width or _HEAD * _HEADS[size]
    return VisionTransformer(
        shape,
        classes,
        width=width,
        heads=max(1, round(width / _HEAD)),
        depth=12,
        patch=patch_for(shape),
        stochastic_depth=stochastic_depth,
    )


def patch_for(shape: tuple[int, int, int]) -> int:
    """Return the side of a patch: 16 from 128 pixels on, 8 from 64, 4 from 16, 2 below.

    So an image of 32×32 pixels has 64 patches, one of 224×224 has 196.

    Args:
        shape: of an image: (channels, height, width); the shorter side counts.

    Example:
        >>> [patch_for((3, side, side)) for side in (8, 32, 64, 224)]
        [2, 4, 8, 16]
    """
    shorter = min(shape[1:])
    return next(patch for least, patch in ((128, 16), (64, 8), (16, 4), (0, 2)) if shorter >= least)
