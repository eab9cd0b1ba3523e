"""The three products of a block-sparse linear layer in plain torch, on every device and dtype."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from regrow.execution.block.index import BlockIndex

__all__ = ["forward", "input_gradient", "weight_gradient"]


def forward(x: Tensor, weight: Tensor, bias: Tensor | None, index: BlockIndex) -> Tensor:
    """Compute Y = X·Wᵀ + bias: (tokens, in) → (tokens, out); sums of halves in float32."""
    with _exact():
        products = torch.bmm(_tiles(x, index.block)[index.columns], _wide(weight).mT)
    y = _gather(products, index.rows, index.grid[0], index.shape[0])
    return (y if bias is None else y + bias).to(x.dtype)


def input_gradient(gradient: Tensor, weight: Tensor, index: BlockIndex) -> Tensor:
    """Compute dX = dY·W: (tokens, out) → (tokens, in)."""
    with _exact():
        products = torch.bmm(_tiles(gradient, index.block)[index.rows], _wide(weight))
    return _gather(products, index.columns, index.grid[1], index.shape[1]).to(gradient.dtype)


def weight_gradient(gradient: Tensor, x: Tensor, index: BlockIndex) -> Tensor:
    """Compute dW = dYᵀ·X at the active blocks: (tokens, out), (tokens, in) → (n, b, b)."""
    left = _tiles(gradient, index.block)[index.rows]
    with _exact():
        return torch.bmm(left.mT, _tiles(x, index.block)[index.columns]).to(x.dtype)


def _exact() -> torch.autocast:
    """Switch autocast off: inputs were cast before, and sums are to stay in float32."""
    return torch.autocast("cpu", enabled=False)


def _wide(values: Tensor) -> Tensor:
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values


def _tiles(matrix: Tensor, b: int) -> Tensor:
    """Cut (tokens, features) into (⌈features/b⌉, tokens, b), with zeros beyond the edge."""
    padded = functional.pad(_wide(matrix), (0, -matrix.shape[1] % b))
    return padded.view(len(matrix), padded.shape[1] // b, b).transpose(0, 1)


def _gather(products: Tensor, at: Tensor, n_tiles: int, features: int) -> Tensor:
    """Sum (n, tokens, b) into the tiles they belong to, and lay those side by side."""
    _, n_tokens, b = products.shape
    tiles = products.new_zeros(n_tiles, n_tokens, b).index_add_(0, at, products)
    return tiles.transpose(0, 1).reshape(n_tokens, n_tiles * b)[:, :features]
