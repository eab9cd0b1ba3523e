"""The operations of a sparse layer in C: the same names and results as in `fallback`."""

from __future__ import annotations

import ctypes
import math
from typing import Any, cast

import torch
from torch import Tensor

from regrow.execution.csr import memory
from regrow.execution.csr.compressed import Compressed
from regrow.execution.csr.geometry import Pass
from regrow.execution.csr.native import Matrix, library

__all__ = [
    "above",
    "convolve",
    "convolve_dot",
    "convolve_planes",
    "dot",
    "epilogue_backward",
    "linear",
    "linear_backward",
    "locate",
    "mark",
    "merge",
    "moments",
    "multiply",
    "normalize",
    "normalize_backward",
    "pack",
    "positions_of",
    "rows_of",
    "split",
    "transpose",
]

_PARTS = 8  # partial sums of a convolution's weight gradient, whatever the number of threads

_C = cast(ctypes.CDLL, library())
_threads = torch.get_num_threads


def _major(x: Tensor | None) -> tuple[Tensor | None, int]:
    """Return the memory of feature-major numbers, and how far one feature is from the next."""
    return x, 0 if x is None else x.stride(1)


def _require_memory(failed: bool) -> None:
    """Raise MemoryError if C found none for its scratch space."""
    if failed:
        raise MemoryError(
            "no memory for the scratch space of a csr layer: use smaller batches or images, or "
            "keep this layer masked (execution='masked')"
        )


def rows_of(positions: Tensor, rows: int, columns: int) -> tuple[Tensor, Tensor, int]:
    """Compress strictly ascending flat positions; also the number of the first wrong one, or -1."""
    pointers = memory.empty(rows + 1, dtype=torch.int32)
    index = memory.empty(len(positions), dtype=torch.int32)
    wrong = _C.regrow_rows(
        len(positions), positions, positions.dtype == torch.int64, rows, columns, pointers, index
    )
    return pointers, index, wrong


def positions_of(pointers: Tensor, index: Tensor, columns: int) -> Tensor:
    """Return the flat positions of compressed rows, int32."""
    out = memory.empty(len(index), dtype=torch.int32)
    _C.regrow_positions(len(pointers) - 1, pointers, index, columns, out)
    return out


def locate(before: Tensor, after: Tensor) -> tuple[Tensor, int]:
    """Find each number of one ascending int32 list in another, -1 where it is not; count those."""
    source = torch.empty_like(after)
    shared = _C.regrow_locate(len(before), before, len(after), after, source)
    return source, shared


def merge(a: Tensor, b: Tensor) -> Tensor:
    """Merge two ascending int32 lists."""
    out = memory.empty(len(a) + len(b), dtype=torch.int32)
    _C.regrow_merge(len(a), a, len(b), b, out)
    return out


def mark(bits: Tensor, positions: Tensor) -> None:
    """Set bits by ascending int32 position in bytes, the lowest bit first."""
    _C.regrow_mark(len(positions), positions, bits)


def above(y: Tensor, x: Tensor, bound: float, capacity: int) -> tuple[int, Tensor, Tensor]:
    """Find the entries of yᵀ x beyond a bound, or not a number, without forming the product.

    Args:
        y: [batch, rows], feature-major.
        x: [batch, columns], feature-major.
        bound: of the magnitude, at least 0.
        capacity: how many are written at most.

    Returns:
        How many there are; their flat positions, ascending, and magnitudes. Nothing of the last two
        if there are more than the capacity.
    """
    positions, values = memory.empty(capacity, dtype=torch.int32), memory.empty(capacity)
    count = _C.regrow_above(
        y.shape[1],
        x.shape[1],
        len(x),
        *_major(y),
        *_major(x),
        bound,
        capacity,
        positions,
        values,
        _threads(),
    )
    _require_memory(count < 0)
    kept = count if count <= capacity else 0
    return count, positions[:kept], values[:kept]


def transpose(
    pointers: Tensor,
    columns: Tensor,
    keys: Tensor | None,
    group_rows: int,
    shift: int,
    key_count: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Order nonzeros by key; returns pointers, the row and the number of each nonzero."""
    key_pointers = memory.empty(key_count + 1, dtype=torch.int32)
    row_of, order = torch.empty_like(columns), torch.empty_like(columns)
    _C.regrow_transpose(
        len(pointers) - 1,
        pointers,
        columns,
        keys,
        group_rows,
        shift,
        key_count,
        key_pointers,
        row_of,
        order,
    )
    return key_pointers, row_of, order


def split(pointers: Tensor, index: Tensor, width: int, blocks: int) -> Tensor:
    """Find where each row passes from one block of `width` indices to the next."""
    rows = len(pointers) - 1
    out = memory.empty(blocks + 1, rows, dtype=torch.int32)
    _C.regrow_split(rows, pointers, index, width, blocks, out)
    return out


def _by_reference(matrix: Compressed) -> Any:
    """Return the structure that the C kernels take, by reference; it is made once."""
    if matrix.struct is None:
        width = matrix.block_width()
        blocks = max(1, math.ceil(matrix.columns / width))
        if blocks > 1:
            borders = split(matrix.pointers, matrix.index, width, blocks)
        else:
            borders = matrix.pointers
        made = Matrix(
            matrix.rows,
            matrix.columns,
            blocks,
            matrix.rows if blocks > 1 else 1,
            matrix.pointers.data_ptr(),
            borders.data_ptr(),
            matrix.index.data_ptr(),
            None if matrix.order is None else matrix.order.data_ptr(),
        )
        # Held by the structure itself: another thread may make a second one meanwhile, and what
        # this one points to must live as long as somebody computes with it.
        made.borders = borders
        matrix.split = borders if blocks > 1 else None
        matrix.struct = made
        return ctypes.byref(made)
    return ctypes.byref(matrix.struct)


def pack(x: Tensor, out: Tensor) -> Tensor:
    """Copy [batch, features] of any strides into a feature-major tensor."""
    _C.regrow_pack(*x.shape, x, *x.stride(), out, out.stride(1), _threads())
    return out


def multiply(
    matrix: Compressed, values: Tensor, x: Tensor, out: Tensor, bias: Tensor | None, relu: bool
) -> Tensor:
    """Compute out = x matrixᵀ + bias, with a ReLU on request; x feature-major, out either way."""
    turned = out.stride(0) != 1
    failed = _C.regrow_multiply(
        _by_reference(matrix),
        values,
        x,
        x.stride(1),
        out,
        out.stride(0 if turned else 1),
        turned,
        x.shape[0],
        bias,
        relu,
        _threads(),
    )
    _require_memory(failed)
    return out


def linear(
    matrix: Compressed,
    values: Tensor,
    x: Tensor,
    packed: Tensor | None,
    out: Tensor,
    bias: Tensor | None,
    relu: bool,
) -> None:
    """Compute a layer as :func:`multiply` does, x packed on the way if there is room for it."""
    failed = _C.regrow_linear(
        _by_reference(matrix),
        values,
        x,
        *x.stride(),
        x.shape[1],
        packed,
        (x if packed is None else packed).stride(1),
        *_major(out),
        len(x),
        bias,
        relu,
        _threads(),
    )
    _require_memory(failed)


def linear_backward(
    forward: Compressed,
    transposed: Compressed | None,
    values: Tensor,
    x: Tensor,
    grad: Tensor,
    packed: Tensor | None,
    for_values: Tensor | None,
    for_x: Tensor | None,
    for_bias: Tensor | None,
) -> None:
    """Compute the gradients of a layer that there is room for, its own packed on the way."""
    assert (transposed is None) == (for_x is None)
    turned = for_x is not None and for_x.stride(0) != 1
    failed = _C.regrow_linear_backward(
        _by_reference(forward),
        None if transposed is None else _by_reference(transposed),
        values,
        x,
        x.stride(1),
        grad,
        *grad.stride(),
        packed,
        (grad if packed is None else packed).stride(1),
        for_values,
        for_x,
        0 if for_x is None else for_x.stride(0 if turned else 1),
        turned,
        for_bias,
        x.shape[0],
        _threads(),
    )
    _require_memory(failed)


def dot(matrix: Compressed, x: Tensor, y: Tensor) -> Tensor:
    """Compute yᵀ x at the nonzeros of the matrix only; x and y feature-major."""
    out = memory.empty(matrix.nonzeros)
    _C.regrow_dot(_by_reference(matrix), out, *_major(x), *_major(y), len(x), _threads())
    return out


def epilogue_backward(
    grad: Tensor, y: Tensor | None, out: Tensor | None, sums: Tensor | None
) -> None:
    """Take gradients [columns, rows] through ReLU (where y > 0) and bias (sums over columns)."""
    _C.regrow_epilogue_backward(
        grad.shape[1], len(grad), *_major(grad), *_major(y), *_major(out), sums, _threads()
    )


def convolve(
    made: Pass,
    matrix: Compressed,
    values: Tensor,
    x: Tensor,
    out: Tensor,
    bias: Tensor | None,
    relu: bool,
) -> None:
    """Compute one pass of a convolution, batch innermost."""
    failed = _C.regrow_convolve(
        ctypes.byref(made), _by_reference(matrix), values, x, out, bias, relu, _threads()
    )
    _require_memory(failed)


def convolve_dot(made: Pass, matrix: Compressed, x: Tensor, grad: Tensor) -> Tensor:
    """Compute the gradient of a convolution's nonzeros."""
    # A fixed number of partial sums, whatever the number of threads: the result is the same bit for
    # bit.
    parts = max(1, min(_PARTS, _C.regrow_tasks(ctypes.byref(made))))
    out = memory.empty(parts, matrix.nonzeros)
    failed = _C.regrow_convolve_dot(
        ctypes.byref(made), _by_reference(matrix), out, parts, x, grad, _threads()
    )
    _require_memory(failed)
    return out[0] if parts == 1 else out.sum(0)


def convolve_planes(
    made: ctypes.Structure,
    matrix: Compressed,
    values: Tensor,
    x: Tensor,
    out: Tensor,
    bias: Tensor | None,
    relu: bool,
) -> None:
    """Compute a convolution by whole 3×3 kernels; the columns of x lie side by side, out plain."""
    failed = _C.regrow_convolve_planes(
        ctypes.byref(made), _by_reference(matrix), values, x, out, bias, relu, _threads()
    )
    _require_memory(failed)


def moments(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Compute mean and biased variance of every row of a contiguous matrix."""
    mean, variance = memory.empty(len(rows)), memory.empty(len(rows))
    _C.regrow_moments(*rows.shape, rows, mean, variance, _threads())
    return mean, variance


def normalize(rows: Tensor, mean: Tensor, scale: Tensor, shift: Tensor | None) -> Tensor:
    """Compute (rows - mean) * scale + shift, one number of each a row."""
    out = torch.empty_like(rows)
    _C.regrow_normalize(*rows.shape, rows, mean, scale, shift, out, _threads())
    return out


def normalize_backward(
    grad: Tensor, rows: Tensor, mean: Tensor, scale: Tensor, inverse: Tensor, fixed: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Take gradients through a normalization: that of rows, and the sums of grad and products.

    Args:
        grad: gradient of the output, contiguous.
        rows: the input, contiguous.
        mean: of each row.
        scale: what each row was multiplied by.
        inverse: 1 / (variance + epsilon) of each row.
        fixed: whether mean and variance are given numbers, and not the rows' own.
    """
    out, sums, products = torch.empty_like(rows), torch.empty_like(mean), torch.empty_like(mean)
    _C.regrow_normalize_backward(
        *rows.shape, grad, rows, mean, scale, inverse, fixed, sums, products, out, _threads()
    )
    return out, sums, products
