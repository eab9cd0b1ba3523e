"""What lies between convolutions, in few passes over memory: operators for torch.

``regrow::norm_numbers`` and ``regrow::norm_relu`` are an instance norm and its leaky ReLU,
``regrow::join_normed`` reads several sources of a convolution and joins them; two more are their
gradients. They run Triton kernels on a GPU, where channels lie last in memory, and plain torch
elsewhere; torch.compile sees them whole.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from regrow.segmentation import join_kernels, kernels, plain

__all__ = ["channels_last", "fusable", "last"]

_LAST = torch.channels_last_3d
_LIBRARY = torch.library.Library("regrow", "FRAGMENT")
_DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def channels_last(x: Tensor) -> bool:
    """Whether a tensor's channels lie last in memory, and nowhere else: one channel lies anywhere.

    Example:
        >>> two = torch.zeros(1, 2, 3, 3, 3).to(memory_format=torch.channels_last_3d)
        >>> one = torch.zeros(1, 1, 3, 3, 3)
        >>> channels_last(two), channels_last(one), last(one)
        (True, False, True)
    """
    return last(x) and not x.is_contiguous()


def last(x: Tensor) -> bool:
    """Whether a tensor's channels may be read as if they lay last in memory."""
    return x.is_contiguous(memory_format=_LAST)


def fusable(*tensors: Tensor) -> bool:
    """Whether the kernels of this module can take these tensors."""
    return kernels.available and all(
        _on_gpu(x) and x.ndim == 5 and x.dtype in _DTYPES and x.numel() > 0 and last(x)
        for x in tensors
    )


def _on_gpu(x: Tensor) -> bool:
    return x.is_cuda


# ------------------------------------------------------------------ the operators


def _norm_numbers(z: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    if not fusable(z):
        return plain.norm_numbers(z, weight, bias, eps)
    n, channels, rows, columns = _shape(z)
    n_parts, share = _shares(n, rows, channels, columns)
    parts, norm = _floats(z, n, n_parts, 2, channels), _floats(z, n, 4, channels)
    blocks, tile = -(-channels // columns), {"ROWS": _rows(columns), "COLUMNS": columns}
    with torch.cuda.device_of(z):
        kernels.moments[n_parts, blocks, n](z, parts, rows, channels, share, **tile)
        kernels.merge_moments[blocks, n](
            parts, weight, bias, norm, rows, channels, n_parts, share, eps, _power(n_parts), columns
        )
    return norm


def _norm_relu(z: Tensor, norm: Tensor, slope: float) -> Tensor:
    if not fusable(z):
        return plain.norm_relu(z, norm, slope)
    n, channels, rows, columns = _shape(z)
    y, tile = torch.empty_like(z), {"ROWS": _rows(columns), "COLUMNS": columns}
    grid = -(-rows // tile["ROWS"]), -(-channels // columns), n
    with torch.cuda.device_of(z):
        kernels.normalise[grid](z, norm, y, rows, channels, slope, **tile)
    return y


def _norm_relu_gradient(dy: Tensor, z: Tensor, norm: Tensor, slope: float) -> tuple[Tensor, Tensor]:
    if not fusable(dy, z):
        return plain.norm_relu_gradient(dy, z, norm, slope)
    n, channels, rows, columns = _shape(z)
    n_parts, share = _shares(n, rows, channels, columns)
    parts, sums = _floats(z, n, n_parts, 2, channels), _floats(z, n, 2, channels)
    dz = torch.empty_like(z)
    blocks, tile = -(-channels // columns), {"ROWS": _rows(columns), "COLUMNS": columns}
    with torch.cuda.device_of(z):
        kernels.gradient_sums[n_parts, blocks, n](
            dy, z, norm, parts, rows, channels, share, slope, **tile
        )
        both = 2 * channels
        kernels.sum_parts[-(-both // columns), n](
            parts, sums, both, n_parts, _power(n_parts), columns
        )
        grid = -(-rows // tile["ROWS"]), blocks, n
        kernels.gradient[grid](dy, z, norm, sums, dz, rows, channels, slope, **tile)
    return dz, sums


def _join_normed(
    sources: list[Tensor],
    norms: list[Tensor | None],
    segments: list[int],
    windows: list[int],
    axis: int,
    slopes: list[float],
) -> Tensor:
    out, column = _joined(sources, segments, windows), 0
    quick = fusable(out) and all(source.dtype == out.dtype for source in sources)
    if quick:
        sources = [source.contiguous(memory_format=_LAST) for source in sources]
    for number, (source, norm) in enumerate(zip(sources, norms, strict=True)):
        table = _forth(number, tuple(segments), source.device)
        window, count = windows[3 * number : 3 * number + 3], table.shape[1]
        if quick:
            _launch_forth(source, norm, slopes[number], table, window, axis, out, column)
        else:
            picked = plain.columns(source, norm, slopes[number], table, window, axis)
            out.narrow(1, column, count).copy_(picked)
        column += count
    return out


def _join_normed_gradient(
    gradients: list[Tensor],
    z: Tensor | None,
    norm: Tensor | None,
    whole: Tensor | None,
    channels: int,
    moves: list[int],
    windows: list[int],
    axis: int,
    slope: float,
) -> Tensor:
    out = _sourced(gradients, z, channels)
    tables = _back(len(gradients), channels, tuple(moves), out.device)
    each = [tuple(windows[i : i + 3]) for i in range(0, len(windows), 3)]
    if fusable(gradients[0] if z is None else z):
        if whole is not None:
            whole = whole.contiguous(memory_format=_LAST)
        # All that are pooled are, in a lattice, by the same window: one launch.
        flat = (1, 1, 1)
        for window in sorted(set(each) - {flat}) or [flat]:
            which = [r for r, own in enumerate(each) if own in (window, flat)]
            # Not indexed by a list, which is copied to the device: a CUDA graph cannot capture it.
            some = tables if len(which) == len(each) else torch.stack([tables[r] for r in which])
            _launch_back([gradients[r] for r in which], [each[r] != flat for r in which],
                some, whole, z, norm, slope, window, axis, out)  # fmt: skip
            each, whole = [(0, 0, 0) if own in (window, flat) else own for own in each], out
        return out
    total = torch.zeros_like(out, dtype=torch.promote_types(out.dtype, torch.float32))
    if whole is not None:
        total += whole
    for gradient, table, window in zip(gradients, tables, each, strict=True):
        plain.add_gradient(total, gradient, z, norm, slope, table, window, axis)
    return out.copy_(total)


def _launch_forth(
    source: Tensor,
    norm: Tensor | None,
    slope: float,
    table: Tensor,
    window: Sequence[int],
    axis: int,
    out: Tensor,
    column: int,
) -> None:
    (n, channels, *sides), (_, joined, deep, high, wide) = source.shape, out.shape
    count = table.shape[1]
    if not count:
        return
    columns = min(64, _power(count))
    rows = _part(wide, 2048 // columns)
    with torch.cuda.device_of(source):
        join_kernels.forth[deep * high * -(-wide // rows), -(-count // columns), n](
            source, norm, out, table, *sides, channels, joined, column, count, slope,
            axis, *window, rows, columns, _long(source, out),
        )  # fmt: skip


def _launch_back(
    gradients: Sequence[Tensor],
    pooled: Sequence[bool],
    tables: Tensor,
    whole: Tensor | None,
    z: Tensor | None,
    norm: Tensor | None,
    slope: float,
    window: Sequence[int],
    axis: int,
    out: Tensor,
) -> None:
    n, channels, *sides = out.shape
    deep, high, wide = (-(-side // by) for side, by in zip(sides, window, strict=True))
    flat = [gradient.movedim(1, -1).flatten(0, 3) for gradient in gradients]
    flat = [g if g.shape[1] == 1 or g.stride(1) == 1 else g.contiguous() for g in flat]
    columns = min(64, _power(channels))
    # Of windows the values stay in registers until their first maximum is known.
    rows = _part(wide, (2048 if max(window) == 1 else 512) // columns)
    with torch.cuda.device_of(out):
        join_kernels.back[deep * high * -(-wide // rows), -(-channels // columns), n](
            tuple(flat), tuple(g.stride(0) for g in flat), tables, whole, z, norm, out, *sides,
            channels, slope, tuple(pooled), axis, *window, rows, columns, _long(out, *gradients),
        )  # fmt: skip


@functools.lru_cache(maxsize=1024)
def _forth(source: int, segments: tuple[int, ...], device: torch.device) -> Tensor:
    """Return the channel and offset of each joined channel of a source; int32, (2, count)."""
    moves = [
        (channel, offset)
        for of, start, stop, offset in _grouped(segments, 4)
        if of == source
        for channel in range(start, stop)
    ]
    return _kept(torch.tensor(moves, dtype=torch.int32).reshape(-1, 2).T.contiguous(), device)


@functools.lru_cache(maxsize=1024)
def _back(readers: int, channels: int, moves: tuple[int, ...], device: torch.device) -> Tensor:
    """Return each reader's column of a source's channels, -1 for none, and offset; int32."""
    tables = torch.zeros(readers, 2, channels, dtype=torch.int32)
    tables[:, 0] = -1
    for reader, start, stop, offset, column in _grouped(moves, 5):
        tables[reader, 0, start:stop] = torch.arange(column, column + stop - start)
        tables[reader, 1, start:stop] = offset
    return _kept(tables, device)


def _kept(table: Tensor, device: torch.device) -> Tensor:
    """Send a table to a device, from a thread of its own.

    What a thread allocates while torch.compile warms up CUDA graphs lies in their pool, which gives
    it away again after the call; a table stays.
    """

    def send() -> Tensor:
        there = table.to(device)
        if there.is_cuda:  # streams of other threads do not wait for it
            torch.cuda.current_stream(device).synchronize()
        return there

    with ThreadPoolExecutor(1) as other:
        return other.submit(send).result()


def _grouped(numbers: Sequence[int], size: int) -> list[tuple[int, ...]]:
    return [tuple(numbers[i : i + size]) for i in range(0, len(numbers), size)]


def _joined(sources: Sequence[Tensor], segments: Sequence[int], windows: Sequence[int]) -> Tensor:
    """Return what sources are joined in, empty."""
    channels = sum(stop - start for _, start, stop, _ in _grouped(segments, 4))
    dtype = functools.reduce(torch.promote_types, (source.dtype for source in sources))
    sides = (side // by for side, by in zip(sources[0].shape[2:], windows[:3], strict=True))
    shape = len(sources[0]), channels, *sides
    lies_last = any(map(channels_last, sources)) or all(map(last, sources))
    return _empty(shape, dtype, sources[0].device, lies_last)


def _sourced(gradients: Sequence[Tensor], z: Tensor | None, channels: int) -> Tensor:
    """Return what the gradient of a source is written to, empty."""
    if z is not None:
        return torch.empty_like(z)
    first = gradients[0]
    shape = len(first), channels, *first.shape[2:]
    return _empty(shape, first.dtype, first.device, last(first))


def _empty(
    shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, lies_last: bool
) -> Tensor:
    layout = _LAST if lies_last else torch.contiguous_format
    return torch.empty(shape, dtype=dtype, device=device, memory_format=layout)


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


def _part(width: int, most: int) -> int:
    """Return how much of a line a program has: a power of two that leaves little over.

    Example:
        >>> [_part(width, 128) for width in (128, 160, 20, 4, 1)]
        [128, 32, 32, 4, 1]
    """
    parts = (1 << k for k in range(most.bit_length()))
    return min(parts, key=lambda part: -(-width // part) * (part + 8))


def _long(*tensors: Tensor) -> bool:
    """Whether places within one sample exceed 32 bits."""
    return any(x.shape[2:].numel() * x.stride(-1) >= 2**31 for x in tensors)


def _power(n: int) -> int:
    return 1 << (n - 1).bit_length()


def _floats(x: Tensor, *shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.float32, device=x.device)


def _define(schema: str, compute: Any, shapes: Any) -> None:
    """Register an operator of this library, and the shapes of what it returns."""
    name = schema.partition("(")[0]
    _LIBRARY.define(schema)
    for where in ("CPU", "CUDA"):
        _LIBRARY.impl(name, compute, where)
    torch.library.register_fake(f"regrow::{name}", shapes, lib=_LIBRARY)


def _wide(z: Tensor, numbers: int) -> Tensor:
    """Return an empty tensor of numbers of each sample and channel, as precise as sums are."""
    dtype = torch.promote_types(z.dtype, torch.float32)
    return torch.empty((len(z), numbers, z.shape[1]), dtype=dtype, device=z.device)


_define(
    "norm_numbers(Tensor z, Tensor weight, Tensor bias, float eps) -> Tensor",
    _norm_numbers,
    lambda z, *_: _wide(z, 4),
)
_define(
    "norm_relu(Tensor z, Tensor norm, float slope) -> Tensor",
    _norm_relu,
    lambda z, *_: torch.empty_like(z),
)
_define(
    "norm_relu_gradient(Tensor dy, Tensor z, Tensor norm, float slope) -> (Tensor, Tensor)",
    _norm_relu_gradient,
    lambda dy, z, *_: (torch.empty_like(z), _wide(z, 2)),
)
_define(
    "join_normed(Tensor[] sources, Tensor?[] norms, int[] segments, int[] windows, int axis, "
    "float[] slopes) -> Tensor",
    _join_normed,
    lambda sources, norms, segments, windows, *_: _joined(sources, segments, windows),
)
_define(
    "join_normed_gradient(Tensor[] gradients, Tensor? z, Tensor? norm, Tensor? whole, "
    "int channels, int[] moves, int[] windows, int axis, float slope) -> Tensor",
    _join_normed_gradient,
    lambda gradients, z, norm, whole, channels, *_: _sourced(gradients, z, channels),
)
