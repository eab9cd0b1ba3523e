"""GPU kernels that join the sources of a convolution as they read them, in Triton.

Forth, each column of the joined tensor is one channel of a source, normalised, pooled and moved
along an axis; back, each channel of a source gathers the gradients of all that read it. Channels
lie last in memory; a line is the voxels along the last side, and a program has part of one.
"""

# mypy: ignore-errors
# As of kernels.py.

from __future__ import annotations

import contextlib

from regrow.segmentation.kernels import jit, number

with contextlib.suppress(ImportError):  # the module can be read without it
    import triton.language as tl

__all__ = ["back", "forth"]


@jit
def _read(at, a, b, slope, mask, NORMED: tl.constexpr):
    """Load values and, if they are to be, normalise them, rounded as if they had been stored."""
    x = tl.load(at, mask=mask, other=0.0)
    if NORMED:
        y = x.to(tl.float32) * a[None, :] + b[None, :]
        x = tl.where(y > 0, y, slope * y).to(x.dtype)
    return x.to(tl.float32)


@jit
def forth(
    source, norm, out, table, depth, height, width, channels, joined, column, count, slope,
    AXIS: tl.constexpr, D: tl.constexpr, H: tl.constexpr, W: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, LONG: tl.constexpr,
):  # fmt: skip
    """Write count columns of out, of joined columns, from the given one on.

    The table holds the channels of the source, then by how far they move, after the maximum over
    windows of D×H×W voxels; norm is None where the source is normalised. Grid (parts of lines of
    out, columns, n).
    """
    n = tl.program_id(2).to(tl.int64)
    deep, high, wide = depth // D, height // H, width // W
    parts = tl.cdiv(wide, ROWS)
    line = tl.program_id(0) // parts
    i, j = line // high, line % high
    v = tl.program_id(0) % parts * ROWS + tl.arange(0, ROWS)
    k = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (v < wide)[:, None] & (k < count)[None, :]
    c = tl.load(table + k, mask=k < count, other=0)
    offset = tl.load(table + count + k, mask=k < count, other=0)
    if AXIS == 0:
        place, side, step = (i - offset)[None, :], deep, D * height * width
    elif AXIS == 1:
        place, side, step = (j - offset)[None, :], high, H * width
    else:
        place, side, step = v[:, None] - offset[None, :], wide, W
    there = inside & (place >= 0) & (place < side)
    a, b = 0.0, 0.0
    NORMED: tl.constexpr = norm is not None
    if NORMED:
        a, b = number(norm, 2, n, c, channels), number(norm, 3, n, c, channels)
    # What differs within a part of a line fits into 32 bits, unless the volume is huge.
    if LONG:
        v, c, offset = v.to(n.dtype), c.to(n.dtype), offset.to(n.dtype)
    start = source + (n * depth * height * width + (i * D * height + j * H) * width) * channels
    at = start + ((v * W * channels)[:, None] + (c - offset * step * channels)[None, :])
    row = n * 0 + channels
    best = _read(at, a, b, slope, there, NORMED)
    for e in tl.static_range(1, D * H * W):
        away = ((e // (H * W)) * height + (e // W) % H) * width + e % W
        x = _read(at + away * row, a, b, slope, there, NORMED)
        more = (x > best) | (x != x)  # noqa: PLR0124 as torch: what is no number is the largest
        best = tl.where(more, x, best)
    best = tl.where(there, best, 0.0)
    start = out + (n * deep * high * wide + line * wide) * joined + column
    at = start + ((v * joined)[:, None] + k[None, :])
    tl.store(at, best.to(out.dtype.element_ty), mask=inside)


@jit
def back(
    gradients, strides, tables, whole, z, norm, out, depth, height, width, channels, slope,
    POOLED: tl.constexpr, AXIS: tl.constexpr, D: tl.constexpr, H: tl.constexpr, W: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, LONG: tl.constexpr,
):  # fmt: skip
    """Write the gradient of a source's values: the sum of what its readers send back.

    Each reader has a gradient, whose rows lie a stride apart, and a table: the column of each
    channel, -1 where it was not read, then by how far they moved. Those that POOLED send theirs to
    the first maximum of z, normalised by norm, in a window of D×H×W voxels. The gradient of whoever
    read the values whole is added; it may be None. Grid (parts of lines of windows, columns, n).
    """
    n = tl.program_id(2).to(tl.int64)
    deep, high, wide = (
        depth // D,
        height // H,
        width // W,
    )  # what voxels are left over is not pooled
    lines, parts = tl.cdiv(height, H), tl.cdiv(tl.cdiv(width, W), ROWS)
    line = tl.program_id(0) // parts
    i, j = line // lines, line % lines
    v = tl.program_id(0) % parts * ROWS + tl.arange(0, ROWS)
    c = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    if LONG:
        v, c = v.to(n.dtype), c.to(n.dtype)
    first = (i * D * height + j * H) * width
    start = (n * depth * height * width + first) * channels
    at = (v * W * channels)[:, None] + c[None, :]
    row = n * 0 + channels
    SIZE: tl.constexpr = D * H * W
    pooled = tl.zeros((ROWS, COLUMNS), tl.float32)
    which = tl.zeros((ROWS, COLUMNS), tl.int32)
    if SIZE > 1:
        full = ((v < wide) & (i < deep) & (j < high))[:, None] & (c < channels)[None, :]
        a, b = 0.0, 0.0
        NORMED: tl.constexpr = norm is not None
        if NORMED:
            a, b = number(norm, 2, n, c, channels), number(norm, 3, n, c, channels)
        best = _read(z + start + at, a, b, slope, full, NORMED)
        for e in tl.static_range(1, SIZE):
            away = ((e // (H * W)) * height + (e // W) % H) * width + e % W
            x = _read(z + start + at + away * row, a, b, slope, full, NORMED)
            more = (x > best) | (x != x)  # noqa: PLR0124
            best, which = tl.where(more, x, best), tl.where(more, e, which)
        for r in tl.static_range(len(gradients)):
            if POOLED[r]:
                pooled += _sent(
                    gradients[r], strides[r], tables + r * 2 * channels, channels, n, i, j, v, c,
                    full, deep, high, wide, AXIS, LONG,
                )  # fmt: skip
    for e in tl.static_range(SIZE):
        x, y, w = i * D + e // (H * W), j * H + (e // W) % H, v * W + e % W
        inside = ((w < width) & (x < depth) & (y < height))[:, None] & (c < channels)[None, :]
        total = tl.where(which == e, pooled, 0.0)
        here = start + (((e // (H * W)) * height + (e // W) % H) * width + e % W) * row
        if whole is not None:
            total += tl.load(whole + here + at, mask=inside, other=0.0).to(tl.float32)
        for r in tl.static_range(len(gradients)):
            if not POOLED[r]:
                total += _sent(
                    gradients[r], strides[r], tables + r * 2 * channels, channels, n, x, y, w, c,
                    inside, depth, height, width, AXIS, LONG,
                )  # fmt: skip
        tl.store(out + here + at, total.to(out.dtype.element_ty), mask=inside)


@jit
def _sent(
    gradient, stride, table, channels, n, i, j, v, c, inside, depth, height, width,
    AXIS: tl.constexpr, LONG: tl.constexpr,
):  # fmt: skip
    """Load what a reader sends to the voxels v of line (i, j) of these sides; 0 if nothing."""
    column = tl.load(table + c, mask=c < channels, other=-1)
    offset = tl.load(table + channels + c, mask=c < channels, other=0)
    # What moved forth by the offset is found there.
    if AXIS == 0:
        place, side, step = (i + offset)[None, :], depth, height * width
    elif AXIS == 1:
        place, side, step = (j + offset)[None, :], height, width
    else:
        place, side, step = v[:, None] + offset[None, :], width, 1
    there = inside & (column >= 0)[None, :] & (place >= 0) & (place < side)
    if LONG:
        offset = offset.to(n.dtype)
    start = gradient + (n * depth * height * width + (i * height + j) * width) * stride
    at = (v * stride)[:, None] + (column + offset * step * stride)[None, :]
    return tl.load(start + at, mask=there, other=0.0).to(tl.float32)
