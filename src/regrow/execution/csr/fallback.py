"""The operations of a sparse layer on torch's own sparse tensors, without the C library."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor

from regrow.execution.csr.compressed import Compressed

__all__ = [
    "above",
    "dot",
    "epilogue_backward",
    "linear",
    "linear_backward",
    "locate",
    "mark",
    "merge",
    "multiply",
    "pack",
    "positions_of",
    "rows_of",
    "transpose",
]

_CHUNK = 1 << 20


def _pointers(keys: Tensor, count: int) -> Tensor:
    pointers = keys.new_zeros(count + 1, dtype=torch.int32)
    pointers[1:] = torch.bincount(keys, minlength=count).cumsum(0)
    return pointers


def rows_of(positions: Tensor, rows: int, columns: int) -> tuple[Tensor, Tensor, int]:
    """Compress strictly ascending flat positions; also the number of the first wrong one, or -1."""
    before = torch.cat([positions.new_tensor([-1]), positions[:-1]])
    wrong = ((positions <= before) | (positions >= rows * columns)).nonzero()
    if len(wrong):
        return positions, positions, int(wrong[0])
    return _pointers(positions // columns, rows), (positions % columns).int(), -1


def positions_of(pointers: Tensor, index: Tensor, columns: int) -> Tensor:
    """Return the flat positions of compressed rows, int32."""
    return (rows_at(pointers) * columns + index).int()


def locate(before: Tensor, after: Tensor) -> tuple[Tensor, int]:
    """Find each number of one ascending list in another, -1 where it is not; count those."""
    if not len(before):
        return torch.full_like(after, -1), 0
    places = torch.searchsorted(before, after).clamp_(max=len(before) - 1)
    present = before[places] == after
    return torch.where(present, places, -1).to(after.dtype), int(torch.count_nonzero(present))


def merge(a: Tensor, b: Tensor) -> Tensor:
    """Merge two ascending lists."""
    both = torch.cat([a, b])
    both.numpy().sort()
    return both


_BITS = np.left_shift(1, np.arange(8)).astype(np.uint8)


def mark(bits: Tensor, positions: Tensor) -> None:
    """Set bits by ascending position in bytes, the lowest bit first."""
    numbers = positions.numpy()
    if not numbers.size:
        return
    byte = numbers >> 3
    first = np.flatnonzero(np.diff(byte, prepend=-1))  # bytes come in runs
    bits.numpy()[byte[first]] |= np.bitwise_or.reduceat(_BITS[numbers & 7], first)


def above(y: Tensor, x: Tensor, bound: float, capacity: int) -> tuple[int, Tensor, Tensor]:
    """Find the entries of yᵀ x whose magnitude exceeds a bound, some rows at a time."""
    step = max(1, _CHUNK // max(1, x.shape[1]))
    positions, values, count = [], [], 0
    for row in range(0, y.shape[1], step):
        tile = (y.t()[row : row + step] @ x).abs_().flatten()
        there = (~(tile <= bound)).nonzero().squeeze(1)
        count += len(there)
        if count <= capacity:
            positions.append((there + row * x.shape[1]).int())
            values.append(tile[there])
    if count > capacity:
        return count, y.new_empty(0, dtype=torch.int32), y.new_empty(0)
    return count, torch.cat(positions), torch.cat(values)


def rows_at(pointers: Tensor) -> Tensor:
    """Return the row of every nonzero, int64."""
    return torch.repeat_interleave(
        torch.arange(len(pointers) - 1, device=pointers.device), pointers.diff()
    )


def transpose(
    pointers: Tensor,
    columns: Tensor,
    keys: Tensor | None,
    group_rows: int,
    shift: int,
    key_count: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Order nonzeros by key; returns pointers, the row and the number of each nonzero."""
    rows = rows_at(pointers)
    key = (columns if keys is None else keys[columns.long()]) + rows // group_rows * shift
    order = torch.argsort(key, stable=True)
    return _pointers(key, key_count), rows[order].int(), order.int()


def pack(x: Tensor, out: Tensor) -> Tensor:
    """Copy [batch, features] of any strides into a feature-major tensor."""
    return out.copy_(x)


def sparse_tensor(matrix: Compressed, values: Tensor) -> Tensor:
    """Return the matrix with these values as a torch CSR tensor."""
    if matrix.order is not None:
        values = values[matrix.order.long()]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(
            matrix.pointers.long(),
            matrix.index.long(),
            values,
            (matrix.rows, matrix.columns),
            device=values.device,
            check_invariants=False,
        )


def multiply(
    matrix: Compressed, values: Tensor, x: Tensor, out: Tensor, bias: Tensor | None, relu: bool
) -> Tensor:
    """Compute out = x matrixᵀ + bias, with a ReLU on request; x and out feature-major."""
    with torch.autocast("cpu", enabled=False):
        out.copy_((sparse_tensor(matrix, values) @ x.t().contiguous()).t())
    if bias is not None:
        out += bias
    return out.relu_() if relu else out


def dot(matrix: Compressed, x: Tensor, y: Tensor) -> Tensor:
    """Compute yᵀ x at the nonzeros of the matrix only; x and y feature-major."""
    rows, columns = rows_at(matrix.pointers), matrix.index.long()
    chunk = max(1, _CHUNK // max(1, len(x)))
    x, y = x.t(), y.t()
    parts = [
        (y[rows[k : k + chunk]] * x[columns[k : k + chunk]]).sum(1)
        for k in range(0, len(rows), chunk)
    ]
    return torch.cat(parts) if parts else x.new_empty(0)


def epilogue_backward(
    grad: Tensor, y: Tensor | None, out: Tensor | None, sums: Tensor | None
) -> None:
    """Take gradients [columns, rows] through ReLU (where y > 0) and bias (sums over columns)."""
    if y is not None:
        grad = torch.where(y > 0, grad, 0.0)  # not a product: nan and inf times 0 are nan
    if out is not None:
        out.copy_(grad)
    if sums is not None:
        torch.sum(grad, 0, out=sums)


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
    multiply(matrix, values, x if packed is None else pack(x, packed), out, bias, relu)


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
    grad = grad if packed is None else pack(grad, packed)
    epilogue_backward(grad, None, None, for_bias)
    if for_values is not None:
        for_values.copy_(dot(forward, x, grad))
    if for_x is not None and transposed is not None:
        multiply(transposed, values, grad, for_x, None, relu=False)
