"""GPU kernels between the convolutions of a volume network, in Triton; channels lie last in memory.

A tensor of shape (n, channels, d, h, w) is n samples of rows, one for each voxel, of channels. Sums
over voxels are float32, of parts in an order that does not change from run to run.
"""

# mypy: ignore-errors
# The language of the kernels has no types; the functions of fused.py, which call them, do.

from __future__ import annotations

try:
    import triton
    import triton.language as tl
except ImportError:  # the module can be read without it
    triton = None

__all__ = [
    "available", "gradient", "gradient_sums", "merge_moments", "moments", "normalise", "number",
    "sum_parts",
]  # fmt: skip

available = triton is not None


def jit(kernel):
    """Compile with Triton, where it is installed."""
    return triton.jit(kernel) if triton else kernel


@jit
def moments(z, parts, rows, channels, share, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Write the mean and Σ(z - mean)² of a share of the rows; grid (shares, columns, n)."""
    part, n = tl.program_id(0), tl.program_id(2).to(tl.int64)
    c = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    first = part * share
    count, mean = 0.0, tl.zeros((COLUMNS,), tl.float32)
    squares = tl.zeros((COLUMNS,), tl.float32)
    # Merged tile by tile (Chan et al.): a mean far from 0 costs no digits, as E[z²] - mean² would.
    for begin in range(0, share, ROWS):
        v = first + begin + tl.arange(0, ROWS)
        inside = (v < rows)[:, None] & (c < channels)[None, :]
        x = tl.load(z + (n * rows + v)[:, None] * channels + c[None, :], mask=inside, other=0.0)
        x = x.to(tl.float32)
        own = tl.sum((v < rows).to(tl.float32), 0)
        own_mean = tl.sum(x, 0) / tl.maximum(own, 1.0)
        away = tl.where(inside, x - own_mean[None, :], 0.0)
        step, total = own_mean - mean, tl.maximum(count + own, 1.0)
        mean += step * (own / total)
        squares += tl.sum(away * away, 0) + step * step * (count * own / total)
        count += own
    at = parts + (n * tl.num_programs(0) + part) * 2 * channels + c
    tl.store(at, mean, mask=c < channels)
    tl.store(at + channels, squares, mask=c < channels)


@jit
def merge_moments(
    parts, weight, bias, norm, rows, channels, n_parts, share, eps,
    PARTS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Write mean, 1/deviation, a and b of the norm a·z + b, of each channel; grid (columns, n)."""
    n = tl.program_id(1).to(tl.int64)
    c = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    part = tl.arange(0, PARTS)
    inside = (part < n_parts)[:, None] & (c < channels)[None, :]
    at = parts + (n * n_parts + part)[:, None] * 2 * channels + c[None, :]
    means, squares = (
        tl.load(at, mask=inside, other=0.0),
        tl.load(at + channels, mask=inside, other=0.0),
    )
    counts = tl.minimum(rows - part * share, share)
    counts = tl.where(part < n_parts, counts, 0).to(tl.float32)[:, None]
    mean = tl.sum(means * counts, 0) / rows
    away = means - mean[None, :]
    variance = (tl.sum(squares, 0) + tl.sum(counts * away * away, 0)) / rows
    inverse = 1 / tl.sqrt(variance + eps)
    a = tl.load(weight + c, mask=c < channels, other=0.0).to(tl.float32) * inverse
    b = tl.load(bias + c, mask=c < channels, other=0.0).to(tl.float32) - mean * a
    at = norm + n * 4 * channels + c
    tl.store(at, mean, mask=c < channels)
    tl.store(at + channels, inverse, mask=c < channels)
    tl.store(at + 2 * channels, a, mask=c < channels)
    tl.store(at + 3 * channels, b, mask=c < channels)


@jit
def sum_parts(parts, out, channels, n_parts, PARTS: tl.constexpr, COLUMNS: tl.constexpr):
    """Sum the parts of each sample; grid (columns, n)."""
    n = tl.program_id(1).to(tl.int64)
    c = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    part = tl.arange(0, PARTS)
    inside = (part < n_parts)[:, None] & (c < channels)[None, :]
    at = parts + (n * n_parts + part)[:, None] * channels + c[None, :]
    total = tl.sum(tl.load(at, mask=inside, other=0.0), 0)
    tl.store(out + n * channels + c, total, mask=c < channels)


@jit
def number(norm, which, n, c, channels):
    """Return one of the norm's four numbers of each channel, in the order they are written."""
    return tl.load(norm + (n * 4 + which) * channels + c, mask=c < channels, other=0.0)


@jit
def normalise(z, norm, y, rows, channels, slope, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Write the leaky ReLU of the norm; grid (rows, columns, n)."""
    n = tl.program_id(2).to(tl.int64)
    v = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    c = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (v < rows)[:, None] & (c < channels)[None, :]
    at = (n * rows + v)[:, None] * channels + c[None, :]
    a, b = number(norm, 2, n, c, channels), number(norm, 3, n, c, channels)
    x = tl.load(z + at, mask=inside, other=0.0).to(tl.float32) * a[None, :] + b[None, :]
    tl.store(y + at, tl.where(x > 0, x, slope * x).to(y.dtype.element_ty), mask=inside)


@jit
def gradient_sums(
    dy, z, norm, parts, rows, channels, share, slope,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Write Σ dx and Σ dx·z' of a share of the rows, x the norm's output; grid as for moments."""
    part, n = tl.program_id(0), tl.program_id(2).to(tl.int64)
    c = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    mean, inverse = number(norm, 0, n, c, channels), number(norm, 1, n, c, channels)
    a, b = number(norm, 2, n, c, channels), number(norm, 3, n, c, channels)
    one, two = tl.zeros((COLUMNS,), tl.float32), tl.zeros((COLUMNS,), tl.float32)
    first = part * share
    for begin in range(0, share, ROWS):
        v = first + begin + tl.arange(0, ROWS)
        inside = (v < rows)[:, None] & (c < channels)[None, :]
        at = (n * rows + v)[:, None] * channels + c[None, :]
        x = tl.load(z + at, mask=inside, other=0.0).to(tl.float32)
        dx = tl.load(dy + at, mask=inside, other=0.0).to(tl.float32)
        dx = tl.where(x * a[None, :] + b[None, :] > 0, dx, slope * dx)
        one += tl.sum(dx, 0)
        two += tl.sum(dx * (x - mean[None, :]) * inverse[None, :], 0)
    at = parts + (n * tl.num_programs(0) + part) * 2 * channels + c
    tl.store(at, one, mask=c < channels)
    tl.store(at + channels, two, mask=c < channels)


@jit
def gradient(
    dy, z, norm, sums, dz, rows, channels, slope,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Write dz = a (dx - mean(dx) - z' mean(dx·z')); grid as for normalise."""
    n = tl.program_id(2).to(tl.int64)
    v = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    c = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (v < rows)[:, None] & (c < channels)[None, :]
    at = (n * rows + v)[:, None] * channels + c[None, :]
    mean, inverse = number(norm, 0, n, c, channels), number(norm, 1, n, c, channels)
    a, b = number(norm, 2, n, c, channels), number(norm, 3, n, c, channels)
    one = tl.load(sums + n * 2 * channels + c, mask=c < channels, other=0.0) / rows
    two = tl.load(sums + n * 2 * channels + channels + c, mask=c < channels, other=0.0) / rows
    x = tl.load(z + at, mask=inside, other=0.0).to(tl.float32)
    dx = tl.load(dy + at, mask=inside, other=0.0).to(tl.float32)
    dx = tl.where(x * a[None, :] + b[None, :] > 0, dx, slope * dx)
    normal = (x - mean[None, :]) * inverse[None, :]
    dx = a[None, :] * (dx - one[None, :] - normal * two[None, :])
    tl.store(dz + at, dx.to(dz.dtype.element_ty), mask=inside)
