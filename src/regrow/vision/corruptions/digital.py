"""Digital corruptions: contrast, elastic transform, pixelation."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from regrow.vision.corruptions import linear
from regrow.vision.corruptions.draws import Draws
from regrow.vision.corruptions.modes import ordinary_modes
from regrow.vision.corruptions.severities import Parameters

__all__ = ["contrast", "displaced", "elastic_transform", "pixelate", "skewed"]


def contrast(images: Tensor, parameters: Parameters, draws: Draws) -> Tensor:
    """Move each value towards the mean of its channel: c (x - mean) + mean.

    Args:
        images: float32 in [0, 1], shape (n, channels, height, width).
        parameters: (c,).
        draws: nothing is random here.
    """
    means = images.mean((2, 3), keepdim=True)
    return means.lerp(images, parameters[0])


def elastic_transform(images: Tensor, parameters: Parameters, draws: Draws) -> Tensor:
    """Skew each image by three points that move, and displace its pixels smoothly.

    Lengths are shares of the shorter side; the source has them in pixels of one size.

    Args:
        images: float32 in [0, 1], shape (n, channels, height, width).
        parameters: (reach, smoothness, skew): the displacement is ``reach`` times noise uniform in
            ±1, filtered with a Gaussian of deviation ``smoothness``; points move by up to ``skew``.
        draws: what is random.
    """
    side = min(images.shape[2:])
    reach, smoothness, skew = (side * share for share in parameters)
    if skew:
        images = skewed(images, skew, draws)
    return displaced(images, reach, smoothness, draws) if reach else images


def pixelate(images: Tensor, parameters: Parameters, draws: Draws) -> Tensor:
    """Make an image smaller and large again, by means of whole pixels; the result is in bytes.

    Args:
        images: float32 in [0, 1], shape (n, channels, height, width).
        parameters: (the share of its side that it is made smaller to,).
        draws: nothing is random here.
    """
    small = linear.apply(images, *(_smaller(side, parameters[0]) for side in images.shape[2:]))
    return (small * 255).round_() / 255


def skewed(images: Tensor, reach: float, draws: Draws) -> Tensor:
    """Map three points of each image to where they are moved, and all others linearly with them.

    The points lie a third of the shorter side from the middle, along both axes. Outside, images
    are mirrored at their last pixels.

    Args:
        images: shape (n, channels, height, width).
        reach: points move by up to this many pixels, along either axis.
        draws: what is random.
    """
    height, width = images.shape[2:]
    x, y = width // 2, height // 2
    away = max(min(height, width) // 3, 1)
    fixed = torch.tensor(
        [(x + away, y + away), (x + away, y - away), (x - away, y - away)],
        dtype=torch.float32,
        device=images.device,
    )
    moved = fixed + (draws.uniform(3, 2) * 2 - 1) * reach
    ones = torch.ones_like(moved[..., :1])
    back = torch.linalg.solve(torch.cat([moved, ones], 2), fixed.expand_as(moved))
    rows, columns = (torch.arange(side, device=images.device) for side in (height, width))
    places = (
        columns.view(1, 1, -1, 1) * back[:, None, None, 0]
        + rows.view(1, -1, 1, 1) * back[:, None, None, 1]
        + back[:, None, None, 2]
    )
    ends = torch.tensor([width - 1, height - 1], device=images.device).clamp(min=1)
    return functional.grid_sample(
        images, places * 2 / ends - 1, padding_mode="reflection", align_corners=True
    )


def displaced(images: Tensor, reach: float, smoothness: float, draws: Draws) -> Tensor:
    """Take each pixel from a place nearby, by noise that a Gaussian has smoothed.

    Outside, images are mirrored between their last pixels and the next.

    Args:
        images: shape (n, channels, height, width).
        reach: what the smoothed noise, uniform in ±1, is multiplied by, in pixels.
        smoothness: deviation of the Gaussian in pixels, cut off at three deviations.
        draws: what is random.
    """
    height, width = images.shape[2:]
    filters = [linear.gaussian(side, smoothness, "symmetric", 3.0) for side in (height, width)]
    shift = linear.apply(draws.uniform(2, height, width) * 2 - 1, *filters) * reach
    right, down = shift[:, 0], shift[:, 1]
    rows, columns = (torch.arange(side, device=images.device) for side in (height, width))
    places = torch.stack(
        [
            (columns + 0.5 + right) * 2 / width - 1,
            (rows.unsqueeze(1) + 0.5 + down) * 2 / height - 1,
        ],
        3,
    )
    return functional.grid_sample(images, places, padding_mode="reflection", align_corners=False)


@lru_cache(maxsize=64)
@ordinary_modes()
def _smaller(side: int, share: float) -> Tensor:
    small = max(int(side * share), 1)
    return linear.box(small, side) @ linear.box(side, small)
