"""Attention to what is near: masks of the nearest tokens, and products under such masks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["EncoderLayer", "attend", "heads_of", "nearest", "squared_distances"]


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Return squared distances, shape (..., n, m), of positions (..., n, d) and (..., m, d).

    They are sums of squared differences: a product of matrices would lose decimetres at 200 m.
    """
    apart = (a[..., :, None, i] - b[..., None, :, i] for i in range(a.shape[-1]))
    total = next(apart).square_()
    for one in apart:
        total.addcmul_(one, one)
    return total


@torch.no_grad()
def nearest(positions: Tensor, valid: Tensor, neighbours: int) -> Tensor:
    """Return which tokens each one attends to: the nearest valid ones, itself among them.

    Args:
        positions: shape (n, tokens, d).
        valid: bool, shape (n, tokens). A token that is not valid sees itself alone, so that no row
            is empty and no softmax becomes NaN.
        neighbours: how many.

    Returns:
        bool, shape (n, tokens, tokens).

    Example:
        >>> line = torch.tensor([[[0.0], [1.0], [3.0], [9.0]]])
        >>> valid = torch.tensor([[True, True, False, True]])
        >>> nearest(line, valid, 2).int()[0].tolist()
        [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 1, 0, 1]]
    """
    far = squared_distances(positions, positions).masked_fill(~valid[:, None], torch.inf)
    places = far.topk(min(neighbours, far.shape[-1]), largest=False).indices
    near = torch.zeros(far.shape, dtype=torch.bool, device=far.device).scatter(-1, places, True)
    itself = torch.eye(far.shape[-1], dtype=torch.bool, device=far.device)
    # Where fewer tokens are valid than neighbours, places name some that are not.
    own = valid[..., None]
    return (near & valid[:, None] & own) | (itself & ~own)  # not `where`: ONNX has none of bools


def heads_of(x: Tensor, heads: int) -> Tensor:
    """Return shape (n, heads, tokens, channels / heads) of x, shape (n, tokens, channels)."""
    return x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)


def attend(
    query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None, dropout: float = 0.0
) -> Tensor:
    """Return softmax(q·k/√d) v over the keys that are allowed, heads side by side.

    Args:
        query: shape (n, heads, queries, d).
        key: shape (n, heads, keys, d).
        value: shape (n, heads, keys, e).
        allowed: bool, shape (n, queries or 1, keys), at least one key in each row; None: all.
        dropout: share of the weights that is set to 0.

    Returns:
        Shape (n, queries, heads · e).
    """
    mask = None if allowed is None else allowed[:, None].expand(-1, -1, query.shape[2], -1)
    out = functional.scaled_dot_product_attention(query, key, value, mask, dropout_p=dropout)
    return out.transpose(1, 2).flatten(2)


class EncoderLayer(nn.Module):
    """Attention and a feed-forward layer, each with a layer norm after it.

    Args:
        width: of a token.
        heads: of attention.
        dropout: of all layers.

    Source: Vaswani et al. 2017; positions are added to queries and keys only (DETR).

    Example:
        >>> layer = EncoderLayer(8, 2, 0.0)
        >>> sum(p.numel() for p in EncoderLayer(256, 8, 0.1).parameters())
        789760
        >>> tokens, near = torch.zeros(1, 3, 8), torch.eye(3, dtype=torch.bool)[None]
        >>> layer(tokens, tokens, near).shape
        torch.Size([1, 3, 8])
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.rate = heads, dropout
        self.query_key = nn.Linear(width, 2 * width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.widen = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)
        self.norm_attention, self.norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, positions: Tensor, allowed: Tensor) -> Tensor:
        """Return tokens, shape (n, tokens, width).

        Args:
            x: tokens.
            positions: their embeddings, of the same shape.
            allowed: bool, shape (n, tokens, tokens): which each attends to.
        """
        x = self.norm_attention(x + self.dropout(self.attention(x, positions, allowed)))
        inner = self.dropout(functional.relu(self.widen(x)))
        return self.norm(x + self.dropout(self.narrow(inner)))  # type: ignore[no-any-return]

    def attention(self, x: Tensor, positions: Tensor, allowed: Tensor) -> Tensor:
        """Return what tokens attend to."""
        query, key = self.query_key(x + positions).chunk(2, -1)
        query, key, value = (heads_of(y, self.heads) for y in (query, key, self.value(x)))
        rate = self.rate if self.training else 0.0
        return self.out(attend(query, key, value, allowed, rate))  # type: ignore[no-any-return]
