"""Spatter: drops of water or mud on the lens."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from regrow.vision.corruptions import linear
from regrow.vision.corruptions.blur import smoothed
from regrow.vision.corruptions.canny import canny
from regrow.vision.corruptions.colour import lightness
from regrow.vision.corruptions.draws import Draws
from regrow.vision.corruptions.severities import Parameters

__all__ = ["spatter"]

_WATER = (175 / 255, 238 / 255, 238 / 255)
_MUD = (63 / 255, 42 / 255, 20 / 255)
_SLOPES = (50, 150)  # of edges
_FAR = 20  # distances are cut off there
_RELIEF = ((-2.0, -1.0, 0.0), (-1.0, 1.0, 1.0), (0.0, 1.0, 2.0))


def spatter(images: Tensor, parameters: Parameters, draws: Draws) -> Tensor:
    """Add drops: what smoothed normal noise has above a threshold.

    Mud hides what is behind it; water adds light, as a relief made of the distances to its edges.

    Differs from the source: distances are Euclidean, not approximated.

    Args:
        images: float32 in [0, 1], shape (n, channels, height, width).
        parameters: (mean, deviation, σ of the smoothing, threshold, strength of water or σ of mud,
            1 for mud or 0 for water).
        draws: what is random.
    """
    mean, deviation, sigma, threshold, strength, mud = parameters
    noise = draws.normal(1, *images.shape[2:]) * deviation + mean
    liquid = smoothed(noise, sigma)
    wet = liquid > threshold
    if mud:
        opaque = smoothed(wet.float(), strength)
        opaque = torch.where(opaque < 0.8, 0, opaque)
        return images * (1 - opaque) + opaque * _colour(_MUD, images)
    water = torch.where(wet, (liquid * 255).floor() % 256, 0)  # a byte, as it wraps there
    drops = water * _relief(water)
    drops /= drops.amax((1, 2, 3), keepdim=True).clamp(min=1e-12)
    return images + strength * drops * _colour(_WATER, images)


def _colour(rgb: tuple[float, float, float], images: Tensor) -> Tensor:
    colour = torch.tensor(rgb, device=images.device).view(1, 3, 1, 1)
    return colour if images.shape[1] == 3 else lightness(colour)


def _relief(water: Tensor) -> Tensor:
    """Light distances to the edges from one side; in steps of a byte."""
    distances = _blurred(_distances(canny(water, *_SLOPES))).floor_()
    kernel = torch.tensor(_RELIEF, device=water.device).view(1, 1, 3, 3)
    lit = functional.conv2d(_mirrored(_equalized(distances)), kernel).clamp_(0, 255)
    return _blurred(lit).round_()


def _distances(edges: Tensor) -> Tensor:
    """Return how far the nearest edge is, up to 20: along columns first, then along rows."""
    squares = torch.where(edges, 0.0, float(_FAR**2))
    for _ in range(2):
        padded = functional.pad(squares, (_FAR, _FAR), value=float(_FAR**2))
        for shift in range(-_FAR, _FAR + 1):
            part = padded[..., _FAR + shift : _FAR + shift + squares.shape[-1]]
            squares = torch.minimum(squares, part + shift**2)
        squares = squares.transpose(2, 3)
    return squares.sqrt()


def _blurred(planes: Tensor) -> Tensor:
    return functional.avg_pool2d(_mirrored(planes), 3, 1)


def _mirrored(planes: Tensor) -> Tensor:
    """Add a pixel on each side: the one before the last."""
    for dim in (2, 3):
        side = planes.shape[dim]
        places = torch.arange(-1, side + 1, device=planes.device)
        planes = planes.index_select(dim, linear.inside(places, side, "mirror"))
    return planes


def _equalized(distances: Tensor) -> Tensor:
    """Spread whole numbers of 0..20 over 0..255 by their ranks; an image of one value stays."""
    flat = distances.flatten(1).long()
    counts = torch.zeros(len(flat), _FAR + 1, device=flat.device)
    counts.scatter_add_(1, flat, torch.ones_like(flat, dtype=counts.dtype))
    up_to = counts.cumsum(1)
    lowest = torch.where(counts > 0, up_to, torch.inf).amin(1, keepdim=True)
    total = flat.shape[1]
    spread = ((up_to - lowest) * 255 / (total - lowest).clamp(min=1)).clamp_(min=0).round_()
    spread = torch.where(lowest == total, torch.arange(_FAR + 1, device=flat.device), spread)
    return spread.gather(1, flat).view(distances.shape)
