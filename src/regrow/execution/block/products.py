"""Launches the products: Y = X·Wᵀ + bias by block rows, dX = dY·W by block columns."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from regrow.execution.block import abilities, kernels
from regrow.execution.block.index import BlockIndex
from regrow.execution.block.start import Launch, Tile
from regrow.execution.block.tiles import TILES

__all__ = ["forget", "forward", "input_gradient"]


def forget() -> None:
    """Choose anew from now on: tiles have been changed."""
    _product.cache_clear()


def forward(x: Tensor, weight: Tensor, bias: Tensor | None, index: BlockIndex) -> Tensor:
    """Compute Y = X·Wᵀ + bias: (tokens, in) → (tokens, out), all contiguous."""
    y = x.new_empty(x.shape[0], index.shape[0])
    # A grid of zero programs cannot be launched.
    if not index.n_blocks:
        return y.copy_(bias) if bias is not None else y.zero_()
    _product_into(y, "forward", x, weight, bias, index)
    return y


def input_gradient(gradient: Tensor, weight: Tensor, index: BlockIndex) -> Tensor:
    """Compute dX = dY·W: (tokens, out) → (tokens, in), all contiguous.

    In TF32 from a copy of the blocks, each of them turned: the tensor cores take TF32 only where
    what is summed over lies side by side, and turning it piece by piece takes as long as the
    product.
    """
    dx = gradient.new_empty(gradient.shape[0], index.shape[1])
    if not index.n_blocks:
        return dx.zero_()
    if _turned(abilities.arithmetic(gradient, index.block)):
        weight = weight.mT.contiguous()
    _product_into(dx, "input", gradient, weight, None, index)
    return dx


def _turned(arithmetic: str) -> bool:
    return arithmetic == "tf32"


def _product_into(
    y: Tensor, name: str, x: Tensor, weight: Tensor, bias: Tensor | None, index: BlockIndex
) -> None:
    if not x.shape[0]:
        return
    arithmetic = abilities.arithmetic(x, index.block)
    launch = _product(
        name, index.shape, index.n_blocks, index.block, x.shape[0], x.dtype, weight.dtype,
        None if bias is None else bias.dtype, x.device, arithmetic,
        abilities.tma(arithmetic, x, weight, y),
    )  # fmt: skip
    # Triton wants a pointer even for a bias that is not read.
    launch.start((x, weight, index.layout if bias is None else bias, y), index.layout)


@functools.lru_cache(abilities.KEPT)
def _product(
    name: str,
    shape: tuple[int, int],
    n: int,
    b: int,
    n_tokens: int,
    dtype: torch.dtype,
    weight: torch.dtype,
    bias: torch.dtype | None,
    device: torch.device,
    arithmetic: str,
    tma: bool,
) -> Launch:
    ahead, tiles = name == "forward", TILES[name, arithmetic, b]
    out, into = shape if ahead else shape[::-1]
    along = ahead or _turned(arithmetic)
    chunk = (b, tiles.chunk) if along else (tiles.chunk, b)
    fetched = (
        Tile(dtype, (n_tokens, into), (tiles.tokens, tiles.chunk)) if tma else None,
        Tile(weight, (n * b, b), chunk) if tma else None,
        None,
        Tile(dtype, (n_tokens, out), (tiles.tokens, b)) if tma else None,
    )
    # Pointers, what lies along a row (or column), and the numbers of those blocks.
    places = BlockIndex.places(n, shape, b)
    n_outer = -(-out // b)
    return Launch(
        kernels.product,
        (n_outer * -(-n_tokens // tiles.tokens), 1, 1),
        fetched,
        tuple([places[i] for i in ((0, 2, 2) if ahead else (3, 4, 5))]),
        (n_outer, n_tokens, into, out),
        (
            b, tiles.tokens, tiles.chunk, ahead, along, bias is not None,
            abilities.even(n_tokens, tiles.tokens, shape, b), tma, abilities.dot(arithmetic),
        ),
        tiles.warps,
        tiles.stages,
    )  # fmt: skip
