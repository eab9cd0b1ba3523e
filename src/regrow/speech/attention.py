"""Self-attention that knows how far apart two frames are."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["RelativeAttention", "distances", "shifted"]


def distances(length: int, width: int, device: torch.device | str = "cpu") -> Tensor:
    """Return sinusoids of the distances length - 1, ..., 0, ..., -(length - 1).

    Args:
        length: of a sequence.
        width: of the sinusoids, an even number.
        device: where they are wanted.

    Returns:
        Shape (2 · length - 1, width).

    Example:
        >>> distances(2, 2)[1].tolist()  # distance 0
        [0.0, 1.0]
    """
    far = torch.arange(length - 1, -length, -1, device=device, dtype=torch.float32)
    rates = torch.exp(
        torch.arange(0, width, 2, device=device, dtype=torch.float32) * (-math.log(1e4) / width)
    )
    angles = far[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


def shifted(scores: Tensor) -> Tensor:
    """Turn scores by distance into scores by position: row i, column j has distance i - j.

    Args:
        scores: shape (..., length, 2 · length - 1), distances from length - 1 down.

    Returns:
        Shape (..., length, length).

    Source: Dai et al. 2019 (Transformer-XL), appendix B.

    Example:
        >>> shifted(torch.tensor([[1, 0, -1], [1, 0, -1]])).tolist()
        [[0, -1], [1, 0]]
    """
    *rest, length, columns = scores.shape
    padded = functional.pad(scores, (1, 0)).reshape(*rest, columns + 1, length)
    apart: Tensor = padded[..., 1:, :].reshape(*rest, length, columns)
    return apart[..., :length]


class RelativeAttention(nn.Module):
    """Attention with scores (q + u)·k + (q + v)·r, where r is a projected sinusoid of the distance.

    Args:
        width: of inputs and outputs.
        heads: that share the width.
        dropout: of the attention.

    Source: Dai et al. 2019; as in the Conformer (Gulati et al. 2020).
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if width % (2 * heads):
            raise ValueError(f"width={width}: must be a multiple of 2 · heads = {2 * heads}")
        self.heads, self.dropout = heads, dropout
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.distance = nn.Linear(width, width, bias=False)
        self.content_bias = nn.Parameter(torch.zeros(heads, 1, width // heads))
        self.distance_bias = nn.Parameter(torch.zeros(heads, 1, width // heads))

    def forward(self, x: Tensor, far: Tensor, inside: Tensor) -> Tensor:
        """Let every frame look at all frames of its utterance.

        Args:
            x: shape (n, length, width).
            far: of :func:`distances`.
            inside: bool, shape (n, length): False where an utterance has ended.
        """
        query, key, value = (self._split(layer(x)) for layer in (self.query, self.key, self.value))
        place = self._split(self.distance(far.to(x.dtype))[None])
        apart = shifted((query + self.distance_bias) @ place.transpose(-1, -2))
        scale = 1 / math.sqrt(query.shape[-1])
        mask = (apart * scale).masked_fill(~inside[:, None, None, :], -torch.inf)
        found = functional.scaled_dot_product_attention(
            (query + self.content_bias).to(value.dtype),
            key,
            value,
            attn_mask=mask.to(value.dtype),
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.out(found.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def _split(self, x: Tensor) -> Tensor:
        heads: Tensor = x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return heads
