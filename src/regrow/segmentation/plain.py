"""What the kernels between convolutions compute, in plain torch: for a CPU, and to compare with.

Sums and norms are of float32, or float64 for values of that.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["add_gradient", "columns", "norm_numbers", "norm_relu", "norm_relu_gradient"]

_VOXELS = (2, 3, 4)


def norm_numbers(z: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Return mean, 1/deviation, a and b of the norm a·z + b; shape (n, 4, channels)."""
    variance, mean = torch.var_mean(_precise(z), _VOXELS, correction=0)
    inverse = (variance + eps).rsqrt()
    a = weight.to(mean.dtype) * inverse
    return torch.stack([mean, inverse, a, bias.to(mean.dtype) - mean * a], 1)


def norm_relu(z: Tensor, norm: Tensor, slope: float) -> Tensor:
    """Return the leaky ReLU of the norm, as it is stored: of the dtype and layout of z."""
    a, b = norm[:, 2:, :, None, None, None].unbind(1)
    y = torch.empty_like(z)
    return y.copy_(functional.leaky_relu(_precise(z) * a + b, slope))


def norm_relu_gradient(dy: Tensor, z: Tensor, norm: Tensor, slope: float) -> tuple[Tensor, Tensor]:
    """Return dz = a (dx - mean(dx) - z' mean(dx·z')), and Σ dx and Σ dx·z' of (n, 2, channels)."""
    mean, inverse, a, b = norm[..., None, None, None].unbind(1)
    x, dx = _precise(z), _precise(dy)
    dx = torch.where(x * a + b > 0, dx, slope * dx)
    normal = (x - mean) * inverse
    one, two = dx.mean(_VOXELS, keepdim=True), (dx * normal).mean(_VOXELS, keepdim=True)
    dz = torch.empty_like(z).copy_(a * (dx - one - normal * two))
    sums = torch.stack([one, two], 1).flatten(2) * z.shape[2:].numel()
    return dz, sums


def columns(
    source: Tensor,
    norm: Tensor | None,
    slope: float,
    table: Tensor,
    window: Sequence[int],
    axis: int,
) -> Tensor:
    """Return channels of a source as they are joined: normalised, pooled, then moved.

    Args:
        source: shape (n, channels, d, h, w).
        norm: of :func:`norm_numbers`; None if the source is normalised.
        slope: of the leaky ReLU.
        table: the channels, then by how far they move; shape (2, count).
        window: sides of the maximum pooling; those of 1 do nothing.
        axis: 0, 1 or 2.
    """
    picked = _picked(source, norm, slope, table[0].long())
    if max(window) > 1:
        picked = functional.max_pool3d(picked, tuple(window))
    return _moved(picked, table[1], axis)


def add_gradient(
    total: Tensor,
    gradient: Tensor,
    z: Tensor | None,
    norm: Tensor | None,
    slope: float,
    table: Tensor,
    window: Sequence[int],
    axis: int,
) -> None:
    """Add the gradient of a reader's columns to that of the source's values.

    Args:
        total: of all channels of the source.
        gradient: of the reader's columns.
        z: the source, if it is pooled.
        norm: as for :func:`columns`.
        slope: likewise.
        table: the column of each channel, -1 where it was not read, then by how far it moved.
        window: as for :func:`columns`.
        axis: likewise.
    """
    (channels,) = (table[0] >= 0).nonzero(as_tuple=True)
    back = gradient[:, table[0][channels].long()]
    back = _moved(back, -table[1][channels], axis)
    if max(window) > 1:
        assert z is not None
        picked = _picked(z, norm, slope, channels)
        _, first = functional.max_pool3d(picked, tuple(window), return_indices=True)
        spread = torch.zeros_like(picked, memory_format=torch.contiguous_format)
        spread.flatten(2).scatter_(2, first.flatten(2), back.flatten(2).to(spread.dtype))
        back = spread
    total.index_add_(1, channels, back.to(total.dtype))


def _picked(source: Tensor, norm: Tensor | None, slope: float, channels: Tensor) -> Tensor:
    picked = source[:, channels]
    return picked if norm is None else norm_relu(picked, norm[..., channels], slope)


def _moved(x: Tensor, offsets: Tensor, axis: int) -> Tensor:
    """Return y[:, c, place] = x[:, c, place - offsets[c]], zeros from outside."""
    if not offsets.any():
        return x
    y, side = torch.zeros_like(x), x.shape[axis + 2]
    for offset in offsets.unique().tolist():
        left = max(side - abs(offset), 0)
        (which,) = (offsets == offset).nonzero(as_tuple=True)
        there = y.narrow(axis + 2, side - left if offset > 0 else 0, left)
        there[:, which] = x.narrow(axis + 2, side - left if offset < 0 else 0, left)[:, which]
    return y


def _precise(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
