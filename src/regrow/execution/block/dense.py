"""Gathers blocks out of a dense weight, and scatters them back."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from regrow.execution.block.index import grid

__all__ = ["gather_blocks", "scatter_blocks"]


def gather_blocks(dense: Tensor, positions: Tensor, block: int) -> Tensor:
    """Take blocks of a matrix (out, in), with zeros beyond its edges: a new tensor (n, b, b).

    Args:
        dense: (out, in).
        positions: (n,), flat positions of the blocks on the grid ⌈out/b⌉×⌈in/b⌉, on any device.
        block: the side b of a block.

    Example:
        >>> gather_blocks(torch.arange(6.0).view(2, 3), torch.tensor([1]), 2).tolist()
        [[[2.0, 0.0], [5.0, 0.0]]]
    """
    n_rows, n_columns = grid((dense.shape[0], dense.shape[1]), block)
    padded = functional.pad(dense, (0, -dense.shape[1] % block, 0, -dense.shape[0] % block))
    tiles = padded.view(n_rows, block, n_columns, block).transpose(1, 2)
    positions = positions.to(dense.device)
    return tiles[positions // n_columns, positions % n_columns]


def scatter_blocks(blocks: Tensor, positions: Tensor, shape: tuple[int, int]) -> Tensor:
    """Write blocks (n, b, b) into a matrix (out, in) of zeros; gradients flow back.

    Args:
        blocks: (n, b, b).
        positions: (n,), their flat positions on the grid.
        shape: (out, in).

    Example:
        >>> scatter_blocks(torch.ones(1, 2, 2), torch.tensor([1]), (2, 3)).tolist()
        [[0.0, 0.0, 1.0], [0.0, 0.0, 1.0]]
    """
    b = blocks.shape[1]
    n_rows, n_columns = grid(shape, b)
    tiles = blocks.new_zeros(n_rows * n_columns, b, b)
    tiles = tiles.index_copy(0, positions.to(blocks.device, torch.int64), blocks)
    matrix = tiles.view(n_rows, n_columns, b, b).transpose(1, 2)
    return matrix.reshape(n_rows * b, n_columns * b)[: shape[0], : shape[1]]
