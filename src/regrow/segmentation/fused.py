"""What lies between convolutions, in few passes over memory: norms with their ReLU, joined shifts.

Operators ``regrow::norm_relu``, ``regrow::join_moved`` and their gradients run Triton kernels on a
GPU, where channels lie last in memory; torch.compile sees them whole. Elsewhere torch's own
operations serve.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from regrow.segmentation import kernels

__all__ = ["channels_last", "fusable", "join_moved", "norm_relu"]

_LAST = torch.channels_last_3d
_LIBRARY = torch.library.Library("regrow", "FRAGMENT")
_DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def channels_last(x: Tensor) -> bool:
    """Whether a tensor's channels lie last in memory."""
    return x.is_contiguous(memory_format=_LAST) and not x.is_contiguous()


def fusable(*tensors: Tensor) -> bool:
    """Whether the kernels of this module can take these tensors."""
    return kernels.available and all(
        x.is_cuda and x.ndim == 5 and x.dtype in _DTYPES and x.numel() > 0 and channels_last(x)
        for x in tensors
    )


def norm_relu(z: Tensor, weight: Tensor, bias: Tensor, eps: float, slope: float) -> Tensor:
    """Compute the leaky ReLU of the instance norm, of tensors that are :func:`fusable`.

    Args:
        z: shape (n, channels, d, h, w).
        weight: of the norm, one number a channel.
        bias: likewise.
        eps: added to the variance.
        slope: of the ReLU below 0; 1 leaves it out.
    """
    y: Tensor = _NormRelu.apply(z, weight, bias, eps, slope)  # type: ignore[no-untyped-call]
    return y


class _NormRelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, weight: Tensor, bias: Tensor, eps: float, slope: float) -> Any:
        y, stats = torch.ops.regrow.norm_relu(z, weight, bias, eps, slope)
        ctx.save_for_backward(z, weight, bias, stats)
        ctx.slope = slope
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Any:
        dy = dy.contiguous(memory_format=_LAST)
        saved = ctx.saved_tensors
        dz, sums = torch.ops.regrow.norm_relu_gradient(dy, *saved, ctx.slope)
        dbias, dweight = sums.sum(0).to(saved[1].dtype).unbind(0)
        return dz, dweight, dbias, None, None


def join_moved(
    sources: Sequence[Tensor], segments: Sequence[tuple[int, int, int, int]], axis: int
) -> Tensor:
    """Join and shift sources that are :func:`fusable` and of one dtype.

    Args:
        sources: shape (n, channels, d, h, w) each, equal but for the channels.
        segments: (source, start, stop, offset), in the order of the joined channels.
        axis: 0, 1 or 2: along which channels move.
    """
    flat = [number for segment in segments for number in segment]
    y: Tensor = _JoinMoved.apply(flat, axis, *sources)  # type: ignore[no-untyped-call]
    return y


class _JoinMoved(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, segments: list[int], axis: int, *sources: Tensor) -> Any:
        ctx.segments, ctx.axis, ctx.channels = segments, axis, [s.shape[1] for s in sources]
        return torch.ops.regrow.join_moved(sources, segments, axis)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        gradient = gradient.contiguous(memory_format=_LAST)
        parts = torch.ops.regrow.join_moved_gradient(gradient, ctx.channels, ctx.segments, ctx.axis)
        return None, None, *parts


# ------------------------------------------------------------------ the operators


def _norm_relu(
    z: Tensor, weight: Tensor, bias: Tensor, eps: float, slope: float
) -> tuple[Tensor, Tensor]:
    n, channels, rows, columns = _shape(z)
    n_parts, share = _shares(n, rows, channels, columns)
    parts, stats = _floats(z, n, n_parts, 2, channels), _floats(z, n, 2, channels)
    y = torch.empty_like(z)
    blocks, tile = -(-channels // columns), {"ROWS": _rows(columns), "COLUMNS": columns}
    with torch.cuda.device_of(z):
        kernels.moments[n_parts, blocks, n](z, parts, rows, channels, share, **tile)
        kernels.merge_moments[blocks, n](
            parts, stats, rows, channels, n_parts, share, eps, _power(n_parts), columns
        )
        grid = -(-rows // tile["ROWS"]), blocks, n
        kernels.normalise[grid](z, stats, weight, bias, y, rows, channels, slope, **tile)
    return y, stats


def _norm_relu_gradient(
    dy: Tensor, z: Tensor, weight: Tensor, bias: Tensor, stats: Tensor, slope: float
) -> tuple[Tensor, Tensor]:
    n, channels, rows, columns = _shape(z)
    n_parts, share = _shares(n, rows, channels, columns)
    parts, sums = _floats(z, n, n_parts, 2, channels), _floats(z, n, 2, channels)
    dz = torch.empty_like(z)
    blocks, tile = -(-channels // columns), {"ROWS": _rows(columns), "COLUMNS": columns}
    given = dy, z, stats, weight, bias
    with torch.cuda.device_of(z):
        kernels.gradient_sums[n_parts, blocks, n](
            *given, parts, rows, channels, share, slope, **tile
        )
        both = 2 * channels
        kernels.sum_parts[-(-both // columns), n](
            parts, sums, both, n_parts, _power(n_parts), columns
        )
        grid = -(-rows // tile["ROWS"]), blocks, n
        kernels.gradient[grid](*given, sums, dz, rows, channels, slope, **tile)
    return dz, sums


def _join_moved(sources: list[Tensor], segments: list[int], axis: int) -> Tensor:
    out = _joined(sources, segments)
    column = 0
    for number, source in enumerate(sources):
        table = _forth(number, tuple(segments), source.device)
        _move(source, out, table, column, axis)
        column += table.shape[1]
    return out


def _join_moved_gradient(
    gradient: Tensor, channels: list[int], segments: list[int], axis: int
) -> list[Tensor]:
    parts = _parts(gradient, channels)
    for number, part in enumerate(parts):
        table = _back(number, channels[number], tuple(segments), gradient.device)
        _move(gradient, part, table, 0, axis)
    return parts


def _move(source: Tensor, out: Tensor, table: Tensor, column: int, axis: int) -> None:
    sides = source.shape[2:]
    inner = sides[axis + 1 :].numel()
    rows, count = len(source) * sides.numel(), table.shape[1]
    if not count:
        return
    columns = min(64, _power(count))
    tile = max(16, 2048 // columns)
    with torch.cuda.device_of(source):
        kernels.move[-(-rows // tile), -(-count // columns)](
            source, out, table, rows, sides[axis], inner, source.shape[1], out.shape[1], column,
            count, ROWS=tile, COLUMNS=columns, LONG=max(source.numel(), out.numel()) >= 2**31,
        )  # fmt: skip


@functools.lru_cache(maxsize=1024)
def _forth(source: int, segments: tuple[int, ...], device: torch.device) -> Tensor:
    """Return the channel and offset of each joined channel of a source; int32, (2, count)."""
    moves = [
        (channel, offset)
        for of, start, stop, offset in _fours(segments)
        if of == source
        for channel in range(start, stop)
    ]
    return torch.tensor(moves, dtype=torch.int32).reshape(-1, 2).T.contiguous().to(device)


@functools.lru_cache(maxsize=1024)
def _back(source: int, channels: int, segments: tuple[int, ...], device: torch.device) -> Tensor:
    """Return where the gradient of each channel of a source comes from; -1: from nowhere."""
    table = torch.zeros(2, channels, dtype=torch.int32)
    table[0] = -1
    place = 0
    for of, start, stop, offset in _fours(segments):
        if of == source:
            table[0, start:stop] = torch.arange(place, place + stop - start)
            table[1, start:stop] = -offset  # what moved forth comes back
        place += stop - start
    return table.to(device)


def _fours(segments: Sequence[int]) -> list[tuple[int, ...]]:
    return [tuple(segments[i : i + 4]) for i in range(0, len(segments), 4)]


def _joined(sources: Sequence[Tensor], segments: Sequence[int]) -> Tensor:
    channels = sum(stop - start for _, start, stop, _ in _fours(segments))
    return _empty(sources[0], channels)


def _parts(gradient: Tensor, channels: Sequence[int]) -> list[Tensor]:
    return [_empty(gradient, count) for count in channels]


def _empty(x: Tensor, channels: int) -> Tensor:
    shape = len(x), channels, *x.shape[2:]
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=_LAST)


# ------------------------------------------------------------------ sizes of tiles


def _shape(z: Tensor) -> tuple[int, int, int, int]:
    """Return samples, channels, rows of a sample, and columns of a tile."""
    n, channels = z.shape[:2]
    even = [columns for columns in (64, 32, 16) if channels % columns == 0]
    return n, channels, z.shape[2:].numel(), even[0] if even else min(64, _power(channels))


def _rows(columns: int) -> int:
    return 2048 // columns


def _shares(n: int, rows: int, channels: int, columns: int) -> tuple[int, int]:
    """Return how many programs share the rows of a sample, and the rows of each."""
    tile = _rows(columns)
    wanted = max(1, 1024 // (n * -(-channels // columns)))  # a few for each multiprocessor
    share = -(-rows // (wanted * tile)) * tile
    return -(-rows // share), share


def _power(n: int) -> int:
    return 1 << (n - 1).bit_length()


def _floats(x: Tensor, *shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.float32, device=x.device)


def _define(schema: str, compute: Any, shapes: Any) -> None:
    name = schema.partition("(")[0]
    _LIBRARY.define(schema)
    _LIBRARY.impl(name, compute, "CUDA")
    torch.library.register_fake(f"regrow::{name}", shapes, lib=_LIBRARY)


_define(
    "norm_relu(Tensor z, Tensor weight, Tensor bias, float eps, float slope) -> (Tensor, Tensor)",
    _norm_relu,
    lambda z, *_: (torch.empty_like(z), _floats(z, len(z), 2, z.shape[1])),
)
_define(
    "norm_relu_gradient(Tensor dy, Tensor z, Tensor weight, Tensor bias, Tensor stats, "
    "float slope) -> (Tensor, Tensor)",
    _norm_relu_gradient,
    lambda dy, z, *_: (torch.empty_like(z), _floats(z, len(z), 2, z.shape[1])),
)
_define(
    "join_moved(Tensor[] sources, int[] segments, int axis) -> Tensor",
    _join_moved,
    lambda sources, segments, axis: _joined(sources, segments),
)
_define(
    "join_moved_gradient(Tensor gradient, int[] channels, int[] segments, int axis) -> Tensor[]",
    _join_moved_gradient,
    lambda gradient, channels, segments, axis: _parts(gradient, channels),
)
