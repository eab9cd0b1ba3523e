"""Filters and resizings as matrices along rows and columns: edges are part of the matrix."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from regrow.vision.corruptions.modes import ordinary_modes

__all__ = [
    "Edges",
    "apply",
    "box",
    "convolution",
    "gaussian",
    "gaussian_taps",
    "inside",
    "spectral",
    "zoom",
]

Edges = Literal["nearest", "symmetric", "mirror"]


def apply(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Apply a sum of separable linear maps: Σₖ Rₖ X Cₖᵀ.

    Args:
        images: shape (n, channels, height, width).
        rows: Rₖ, shape (terms, height out, height); or one without the first dimension.
        columns: Cₖ, shape (terms, width out, width); or one without the first dimension.

    Returns:
        Shape (n, channels, height out, width out).

    Example:
        >>> mean = torch.full((1, 2), 0.5)
        >>> apply(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), mean, mean).tolist()
        [[[[2.5]]]]
    """
    rows, columns = (m.to(images.device).reshape(-1, *m.shape[-2:]) for m in (rows, columns))
    if len(rows) == 1:
        return rows[0] @ (images @ columns[0].T)
    n, channels, height, _ = images.shape
    across = images @ columns.flatten(0, 1).T
    across = across.view(n, channels, height, len(columns), -1).permute(0, 1, 4, 3, 2)
    return (across.flatten(3) @ rows.permute(0, 2, 1).flatten(0, 1)).transpose(2, 3)


def spectral(images: Tensor, taps: Tensor, edges: Edges) -> Tensor:
    """Correlate images with a square of taps, by the product of spectra: fast if both are large.

    Args:
        images: shape (n, channels, height, width).
        taps: shape (2 radius + 1, 2 radius + 1).
        edges: as of :func:`convolution`.

    Returns:
        Of the images' shape.

    Example:
        >>> sums = spectral(torch.eye(4).view(1, 1, 4, 4), torch.ones(3, 3), "nearest")
        >>> sums[0, 0].round().tolist()[0]
        [5.0, 3.0, 1.0, 0.0]
    """
    radius = len(taps) // 2
    for dim in (2, 3):
        side = images.shape[dim]
        places = torch.arange(-radius, side + radius, device=images.device)
        images = images.index_select(dim, inside(places, side, edges))
    height, width = images.shape[2:]
    sides = [-(-side // 16) * 16 for side in (height, width)]  # small factors: fast transforms
    spectrum = torch.fft.rfft2(taps.flip(0, 1).to(images.device), s=sides)
    product: Tensor = torch.fft.irfft2(torch.fft.rfft2(images, s=sides) * spectrum, s=sides)
    return product[:, :, 2 * radius : height, 2 * radius : width]


def convolution(taps: Tensor, size: int, edges: Edges) -> Tensor:
    """Return the matrix that correlates a row with taps around each place.

    Args:
        taps: shape (2 radius + 1,).
        size: of the row.
        edges: what lies outside: the last pixel (``nearest``), the row mirrored between its end and
            the next pixel (``symmetric``), or at its last pixel (``mirror``).

    Returns:
        Shape (size, size).

    Example:
        >>> convolution(torch.tensor([0.25, 0.5, 0.25]), 3, "nearest").tolist()
        [[0.75, 0.25, 0.0], [0.25, 0.5, 0.25], [0.0, 0.25, 0.75]]
    """
    radius = len(taps) // 2
    places = torch.arange(size).unsqueeze(1) + torch.arange(-radius, radius + 1)
    matrix = torch.zeros(size, size, dtype=taps.dtype)
    return matrix.scatter_add_(1, inside(places, size, edges), taps.expand(size, -1))


def gaussian_taps(sigma: float, radius: int) -> Tensor:
    """Return exp(-x² / 2σ²) at whole x from -radius to radius, summing to 1.

    Args:
        sigma: the deviation in pixels; 0: everything is in the middle.
        radius: in pixels.

    Example:
        >>> gaussian_taps(0.0, 1).tolist()
        [0.0, 1.0, 0.0]
    """
    x = torch.arange(-radius, radius + 1, dtype=torch.float64)
    taps = (-(x**2) / (2 * max(sigma, 1e-9) ** 2)).exp()
    return (taps / taps.sum()).float()


@lru_cache(maxsize=64)
@ordinary_modes()
def gaussian(size: int, sigma: float, edges: Edges = "nearest", truncate: float = 4.0) -> Tensor:
    """Return the matrix of a Gaussian filter, cut off at ``truncate`` deviations.

    Args:
        size: of the row.
        sigma: the deviation in pixels.
        edges: as of :func:`convolution`.
        truncate: in deviations.
    """
    return convolution(gaussian_taps(sigma, int(truncate * sigma + 0.5)), size, edges)


def zoom(size: int, factor: float) -> Tensor:
    """Return the matrix that enlarges the middle of a row to its whole size, linearly.

    The first and the last pixel of the part stay at the ends of what it is enlarged to, and what
    is then too long is cut on both sides.

    Args:
        size: of the row.
        factor: at least 1.

    Example:
        >>> zoom(4, 2.0).tolist()[0]
        [0.0, 1.0, 0.0, 0.0]
    """
    part = math.ceil(size / factor)
    whole = round(part * factor)
    places = torch.arange(size, dtype=torch.float64) + (whole - size) // 2
    places = places * (part - 1) / max(whole - 1, 1)
    low = places.floor().clamp(max=max(part - 2, 0))
    share = (places - low).unsqueeze(1)
    low = (low.long() + (size - part) // 2).unsqueeze(1)
    matrix = torch.zeros(size, size, dtype=torch.float64)
    matrix.scatter_add_(1, low, 1 - share)
    matrix.scatter_add_(1, (low + 1).clamp(max=size - 1), share)
    return matrix.float()


def box(size: int, out: int) -> Tensor:
    """Return the matrix that resizes a row by Pillow's box filter: means of whole pixels.

    Args:
        size: of the row.
        out: size of the result.

    Example:
        >>> box(4, 2).tolist()
        [[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]]
    """
    scale = size / out
    widened = max(scale, 1.0)
    middles = (torch.arange(out, dtype=torch.float64).unsqueeze(1) + 0.5) * scale
    away = (torch.arange(size, dtype=torch.float64) + 0.5 - middles) / widened
    matrix = ((away > -0.5) & (away <= 0.5)).double()
    return (matrix / matrix.sum(1, keepdim=True)).float()


def inside(places: Tensor, size: int, edges: Edges) -> Tensor:
    """Return which pixel of a row stands at places inside it and outside.

    Args:
        places: integers; 0 is the first pixel.
        size: of the row.
        edges: as of :func:`convolution`.

    Example:
        >>> inside(torch.arange(-2, 5), 3, "mirror").tolist()
        [2, 1, 0, 1, 2, 1, 0]
    """
    if edges == "nearest":
        return places.clamp(0, size - 1)
    shared = edges == "mirror"  # whether the row and its mirror image share their end pixels
    folded = places % max(2 * size - 2 * shared, 1)
    end = 2 * size - 1 - shared
    return torch.minimum(folded, end - folded).clamp(0, size - 1)
