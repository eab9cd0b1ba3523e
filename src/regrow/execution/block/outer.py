"""Launches the weight gradient: alone, of neighbouring blocks, or of copies for TF32; in parts."""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor

from regrow.execution.block import abilities, kernels
from regrow.execution.block.index import BlockIndex, grid
from regrow.execution.block.start import Launch, Tile
from regrow.execution.block.tiles import TILES, Tiles, groups, parts, parts_of_groups, together

__all__ = ["forget", "weight_gradient"]

# Copies for TF32: their sizes are multiples of the widest block and the longest tile; and so many
# numbers may they have, half a gibibyte.
_TILE, _COPIED = 128, 1 << 27


def forget() -> None:
    """Choose anew from now on: tiles have been changed."""
    _way.cache_clear()


def weight_gradient(gradient: Tensor, x: Tensor, index: BlockIndex) -> Tensor:
    """Compute dW = dYᵀ·X at the active blocks: (tokens, out), (tokens, in) → (n, b, b)."""
    n, b, n_tokens = index.n_blocks, index.block, x.shape[0]
    dw = x.new_empty(n, b, b)
    if not n or not n_tokens:
        return dw.zero_()
    arithmetic = abilities.arithmetic(x, b)
    way = _way(
        index.shape, n, b, n_tokens, gradient.dtype, x.dtype, x.device, arithmetic,
        abilities.tma(arithmetic, gradient, x),
    )  # fmt: skip
    # Parts are added in a fixed order afterwards: atomic adds would come in another order in every
    # run.
    alone = way.n_parts == 1
    out = dw if alone else x.new_empty(way.n_parts, n, b, b, dtype=torch.float32)
    if way.piece is None:
        way.launches[0].start((gradient, x, out), index.layout)
    else:
        each = way.n_parts // len(way.launches)
        for i, launch in enumerate(way.launches):
            here = slice(i * way.piece, (i + 1) * way.piece)
            turned = _turned(gradient[here]), _turned(x[here])
            launch.start((*turned, out if alone else out[i * each : (i + 1) * each]), index.layout)
    if not alone:
        _sum(way.n_parts, dw.numel(), dw.dtype, dw.device).start((out, dw), index.layout)
    return dw


class _Way(NamedTuple):
    """How a weight gradient is computed: in how many parts, by which launches.

    Args:
        n_parts: sums over some tokens each, of all launches together.
        piece: of how many tokens copies are turned for a launch each; None: read as they are.
        launches: one for each piece.
    """

    n_parts: int
    piece: int | None
    launches: tuple[Launch, ...]


@functools.lru_cache(abilities.KEPT)
def _way(
    shape: tuple[int, int],
    n: int,
    b: int,
    n_tokens: int,
    left: torch.dtype,
    right: torch.dtype,
    device: torch.device,
    arithmetic: str,
    tma: bool,
) -> _Way:
    # Few blocks would leave most of the GPU idle: the tokens of one block are then shared among
    # programs.
    processors, n_rows = abilities.processors(device), grid(shape, b)[0]
    # What is newer was measured from compute capability 9.0 on.
    new = abilities.has_tma(device)
    if new and arithmetic == "tf32":
        tiles = TILES["turned", arithmetic, b]
        # So many tokens at a time, that copies of them stay small.
        piece = min(n_tokens, max(_TILE, _COPIED // sum(shape)))
        sizes = [min(piece, n_tokens - begin) for begin in range(0, n_tokens, piece)]
        k = parts(n, piece, processors)
        launches = [
            _outer(shape, n, b, _filled(size), k, left, right, arithmetic, tiles, True, True)
            for size in sizes
        ]
        return _Way(k * len(sizes), piece, tuple(launches))
    group = together(arithmetic, b, n, n_rows) if new else 1
    if group == 1:
        tiles, k = TILES["weight", arithmetic, b], parts(n, n_tokens, processors)
        one = _outer(shape, n, b, n_tokens, k, left, right, arithmetic, tiles, tma, False)
        return _Way(k, None, (one,))
    tiles, most = TILES["neighbours", arithmetic, b], groups(n, n_rows, group)
    # How many groups there are lies between n / group and all that there can be.
    k = parts_of_groups(tiles, b, (most + n // group + 1) // 2, n_tokens, processors)
    return _Way(k, None, (_outer_row(shape, n, b, n_tokens, k, arithmetic, tiles, group, most),))


def _outer(
    shape: tuple[int, int],
    n: int,
    b: int,
    n_tokens: int,
    n_parts: int,
    left: torch.dtype,
    right: torch.dtype,
    arithmetic: str,
    tiles: Tiles,
    tma: bool,
    turned: bool,
) -> Launch:
    _, rows, columns = BlockIndex.places(n, shape, b)[:3]
    fetched: tuple[Tile | None, ...] = (None, None, None)
    if tma:
        tile = (b, tiles.tokens) if turned else (tiles.tokens, b)
        out, into = (
            Tile(dtype, (_filled(size), n_tokens) if turned else (n_tokens, size), tile)
            for dtype, size in zip((left, right), shape, strict=True)
        )
        fetched = (out, into, None)
    even = abilities.even(n_tokens, tiles.tokens, shape, b)
    return Launch(
        kernels.outer,
        (n, n_parts, 1),
        fetched,
        (rows, columns),
        (n_tokens, *shape, _share(n_tokens, n_parts, tiles)),
        (b, tiles.tokens, even, abilities.dot(arithmetic), tma, turned),
        tiles.warps,
        tiles.stages,
    )


def _outer_row(
    shape: tuple[int, int],
    n: int,
    b: int,
    n_tokens: int,
    n_parts: int,
    arithmetic: str,
    tiles: Tiles,
    group: int,
    most: int,
) -> Launch:
    pointers, _, columns = BlockIndex.places(n, shape, b)[:3]
    n_rows, even = grid(shape, b)[0], abilities.even(n_tokens, tiles.tokens, shape, b)
    return Launch(
        kernels.outer_row,
        (most, n_parts, 1),
        (None, None, None),
        (pointers, columns),
        (n_rows, n, n_tokens, *shape, _share(n_tokens, n_parts, tiles)),
        (b, tiles.tokens, even, abilities.dot(arithmetic), group, 1 << (n_rows - 1).bit_length()),
        tiles.warps,
        tiles.stages,
    )


def _share(n_tokens: int, n_parts: int, tiles: Tiles) -> int:
    """Say how many tokens a part has, whole tiles of them."""
    return -(-n_tokens // (n_parts * tiles.tokens)) * tiles.tokens


def _turned(matrix: Tensor) -> Tensor:
    """Copy (tokens, features) as (features, tokens), filled up with zeros to whole tiles.

    The tensor cores take TF32 only where what is summed over lies side by side; turning it piece
    by piece inside a product costs several times as much.
    """
    n_tokens, features = matrix.shape
    copy = matrix.new_empty(_filled(features), _filled(n_tokens))
    _turn(n_tokens, features, matrix.dtype, matrix.device).start((matrix, copy), copy)
    return copy


@functools.lru_cache(abilities.KEPT)
def _turn(n_tokens: int, features: int, dtype: torch.dtype, device: torch.device) -> Launch:
    side, long, wide = _TILE // 2, _filled(n_tokens), _filled(features)
    programs, sizes = (long // side, wide // side, 1), (n_tokens, features, long)
    return Launch(kernels.turn, programs, (None, None), (), sizes, (side,), 4, 1)


def _filled(size: int) -> int:
    return -(-size // _TILE) * _TILE


@functools.lru_cache(abilities.KEPT)
def _sum(n_parts: int, size: int, dtype: torch.dtype, device: torch.device) -> Launch:
    programs, by_address = (size // 1024, 1, 1), (None, None)
    return Launch(kernels.sum_parts, programs, by_address, (), (size, n_parts), (1024,), 4, 3)
