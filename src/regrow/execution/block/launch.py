"""Launches the Triton kernels: chooses tiles, number of programs and tensor descriptors."""

from __future__ import annotations

import functools
import importlib
from typing import Any

import torch
from torch import Tensor

from regrow.execution.block import kernels
from regrow.execution.block.index import BlockIndex
from regrow.execution.block.tiles import KERNEL_BLOCKS, TILES, Tiles, parts, precision

__all__ = ["forward", "input_gradient", "weight_gradient"]


def forward(x: Tensor, weight: Tensor, bias: Tensor | None, index: BlockIndex) -> Tensor:
    """Compute Y = X·Wᵀ + bias: (tokens, in) → (tokens, out), all contiguous."""
    y = x.new_empty(len(x), index.shape[0])
    # A grid of zero programs cannot be launched.
    if not len(weight):
        return y.copy_(bias) if bias is not None else y.zero_()
    _products("forward", x, weight, bias, y, index)
    return y


def input_gradient(gradient: Tensor, weight: Tensor, index: BlockIndex) -> Tensor:
    """Compute dX = dY·W: (tokens, out) → (tokens, in), all contiguous."""
    dx = gradient.new_empty(len(gradient), index.shape[1])
    if not len(weight):
        return dx.zero_()
    _products("input", gradient, weight, None, dx, index)
    return dx


def weight_gradient(gradient: Tensor, x: Tensor, index: BlockIndex) -> Tensor:
    """Compute dW = dYᵀ·X at the active blocks: (tokens, out), (tokens, in) → (n, b, b)."""
    n, b, n_tokens = index.n_blocks, index.block, len(x)
    dw = x.new_empty(n, b, b)
    if not n or not n_tokens:
        return dw.zero_()
    arithmetic, tiles = _tiles("weight", x, b)
    # Few blocks would leave most of the GPU idle: the tokens of one block are then shared among
    # programs.
    n_parts = parts(n, n_tokens, _processors(x.device))
    share = -(-n_tokens // (n_parts * tiles.tokens)) * tiles.tokens
    # Parts are added in a fixed order afterwards: atomic adds would come in another order in every
    # run.
    out = dw if n_parts == 1 else x.new_empty(n_parts, n, b, b, dtype=torch.float32)
    tma = arithmetic != "ieee" and _tma(gradient, x)
    left, right = gradient, x
    if tma:
        left, right = (_descriptor(t, tiles.tokens, b) for t in (gradient, x))
    with torch.cuda.device_of(x):
        kernels.outer[n, n_parts](
            left, right, out, index.rows, index.columns, n_tokens, *index.shape, share,
            BLOCK=b, TOKENS=tiles.tokens, EVEN=_even(n_tokens, tiles.tokens, index), TMA=tma,
            PRECISION=_dot(arithmetic), num_warps=tiles.warps, num_stages=tiles.stages,
        )  # fmt: skip
        if n_parts > 1:
            kernels.sum_parts[(dw.numel() // 1024,)](out, dw, dw.numel(), n_parts, WIDTH=1024)
    return dw


def _products(
    name: str, x: Tensor, weight: Tensor, bias: Tensor | None, y: Tensor, index: BlockIndex
) -> None:
    n_tokens, b, ahead = len(x), index.block, name == "forward"
    if not n_tokens:
        return
    arithmetic, tiles = _tiles(name, x, b)
    if ahead:
        pointers, inner, order = index.row_pointers, index.columns, index.columns
    else:
        pointers, inner, order = index.column_pointers, index.rows_by_column, index.by_column
    n_outer = len(pointers) - 1
    tma = arithmetic != "ieee" and _tma(x, weight, y)
    given: tuple[Any, ...] = (x, weight, y)
    if tma:
        values = (b, tiles.chunk) if ahead else (tiles.chunk, b)
        given = (
            _descriptor(x, tiles.tokens, tiles.chunk),
            _descriptor(weight.view(-1, b), *values),
            _descriptor(y, tiles.tokens, b),
        )
    with torch.cuda.device_of(x):
        kernels.product[(n_outer * -(-n_tokens // tiles.tokens),)](
            # Triton wants a pointer even for a bias that is not read.
            given[0], given[1], pointers if bias is None else bias, given[2],
            pointers, inner, order, n_outer, n_tokens, x.shape[1], y.shape[1],
            BLOCK=b, TOKENS=tiles.tokens, CHUNK=tiles.chunk, FORWARD=ahead, BIAS=bias is not None,
            EVEN=_even(n_tokens, tiles.tokens, index), TMA=tma, PRECISION=_dot(arithmetic),
            num_warps=tiles.warps, num_stages=tiles.stages,
        )  # fmt: skip


def _tiles(name: str, x: Tensor, block: int) -> tuple[str, Tiles]:
    if not kernels.available:
        raise ImportError(
            "block-sparse layers on a GPU need Triton, which torch's CUDA builds for Linux bring "
            "along; where it is missing: pip install triton"
        )
    if block not in KERNEL_BLOCKS:
        raise ValueError(f"block={block}: on a GPU it must be one of {KERNEL_BLOCKS}")
    arithmetic = precision(x.dtype)
    return arithmetic, TILES[name, arithmetic, block]


def _even(n_tokens: int, tokens: int, index: BlockIndex) -> bool:
    """Say whether no tile reaches beyond the activations, so that masks can be left out."""
    return not (n_tokens % tokens or any(size % index.block for size in index.shape))


def _dot(arithmetic: str) -> str:
    return "ieee" if arithmetic == "ieee" else "tf32"


@functools.cache
def _processors(device: torch.device) -> int:
    if device.type != "cuda":  # the interpreter
        return 132
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


@functools.cache
def _has_tma(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0)


def _tma(*matrices: Tensor) -> bool:
    """Say whether the GPU's copy engine can fetch tiles: rows and start must lie on 16 bytes."""
    return _has_tma(matrices[0].device) and all(
        t.data_ptr() % 16 == 0 and t.shape[-1] * t.element_size() % 16 == 0 for t in matrices
    )


def _descriptor(matrix: Tensor, rows: int, columns: int) -> Any:
    tools = importlib.import_module("triton.tools.tensor_descriptor")
    return tools.TensorDescriptor.from_tensor(matrix, [rows, columns])
