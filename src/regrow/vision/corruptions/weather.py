"""Weather: snow, frost, fog, brightness."""

from __future__ import annotations

import torch
from torch import Tensor

from regrow.vision.corruptions import linear
from regrow.vision.corruptions.blur import smeared
from regrow.vision.corruptions.colour import lightness
from regrow.vision.corruptions.draws import Draws
from regrow.vision.corruptions.ice import SIDE, sheets
from regrow.vision.corruptions.severities import Parameters

__all__ = ["brightness", "fog", "frost", "plasma", "snow"]


def snow(images: Tensor, parameters: Parameters, draws: Draws) -> Tensor:
    """Whiten an image, and lay falling flakes over it, and the same turned by 180°.

    Flakes are what normal noise has above a threshold, enlarged and smeared downwards.

    Differs from the source: smears as :func:`~regrow.vision.corruptions.blur.motion_blur`; nothing
    is rounded to bytes on the way.

    Args:
        images: float32 in [0, 1], shape (n, channels, height, width).
        parameters: (mean, deviation, enlargement, threshold, radius, σ, share of the image).
        draws: what is random.
    """
    mean, deviation, factor, threshold, radius, sigma, share = parameters
    height, width = images.shape[2:]
    flakes = draws.normal(1, height, width) * deviation + mean
    if factor > 1:
        flakes = linear.apply(flakes, linear.zoom(height, factor), linear.zoom(width, factor))
    flakes = torch.where(flakes < threshold, 0, flakes).clamp_(0, 1)
    flakes = smeared(flakes, radius, sigma, draws.uniform(1).squeeze(1) * 90 - 135)
    whitened = torch.maximum(images, lightness(images) * 1.5 + 0.5)
    return share * images + (1 - share) * whitened + (flakes + flakes.flip(2, 3))


def frost(images: Tensor, parameters: Parameters, draws: Draws) -> Tensor:
    """Lay a part of a sheet of ice over each image: a x + b ice.

    Differs from the source: five photographs there are five sheets made by :mod:`.ice` here, with
    the photographs' mean colours and about their contrast at each scale.

    Args:
        images: float32 in [0, 1], shape (n, channels, height, width).
        parameters: (a, b, scale): a sheet is scaled before a part is cut out of it.
        draws: what is random.
    """
    kept, icy, scale = parameters
    n, channels, height, width = images.shape
    texture, colours = sheets(images.device)
    sheet = draws.integers(0, len(colours), 1).squeeze(1)
    top, left = draws.integers(0, SIDE, 2, 1).unbind(1)
    rows, columns = (
        (start + (torch.arange(side, device=images.device) / scale).long()) % SIDE
        for start, side in ((top, height), (left, width))
    )
    part = texture.view(-1)[
        (sheet.view(n, 1, 1) * SIDE + rows.unsqueeze(2)) * SIDE + columns.unsqueeze(1)
    ]
    colour = colours[sheet].view(n, 3, 1, 1)
    ice = (part.unsqueeze(1) + (colour if channels == 3 else lightness(colour))).clamp_(0, 1)
    return ice.mul_(icy).add_(images, alpha=kept)


def fog(images: Tensor, parameters: Parameters, draws: Draws) -> Tensor:
    """Add a plasma and keep the image's largest value: (x + a p) max x / (max x + a).

    Args:
        images: float32 in [0, 1], shape (n, channels, height, width).
        parameters: (a, decay): how thick, and of :func:`plasma`.
        draws: what is random.
    """
    thickness, decay = parameters
    height, width = images.shape[2:]
    cloud = plasma(max(height, width), decay, draws)[:, None, :height, :width]
    largest = images.amax((1, 2, 3), keepdim=True)
    return (images + thickness * cloud) * (largest / (largest + thickness))


def brightness(images: Tensor, parameters: Parameters, draws: Draws) -> Tensor:
    """Add to the value of hue, saturation and value, up to 1.

    Hue and saturation stay where red, green and blue are multiplied by one number.

    Args:
        images: float32 in [0, 1], shape (n, channels, height, width).
        parameters: (what is added,).
        draws: nothing is random here.
    """
    value = images.amax(1, keepdim=True)
    brighter = (value + parameters[0]).clamp_(max=1)
    return torch.where(value > 0, images * (brighter / value), brighter)


def plasma(side: int, decay: float, draws: Draws) -> Tensor:
    """Make clouds by diamonds and squares: midpoints are means of four, and something random.

    What is random is uniform in ±decay⁻²ˡ at level l. Clouds go on beyond their edges.

    Args:
        side: in pixels; clouds are as large as the next power of 2, at least 2.
        decay: larger is smoother.
        draws: what is random.

    Returns:
        float32 in [0, 1], both reached, shape (n, power of 2, power of 2).
    """
    size = step = 1 << max((side - 1).bit_length(), 1)
    corners = torch.zeros(len(draws), 1, 1, device=draws.device)
    strength = 1.0
    while step > 1:
        count = size // step
        drawn = (draws.uniform(3, count, count) * 2 - 1) * strength
        below, right = corners.roll(-1, 1), corners.roll(-1, 2)
        middles = (corners + below + right + below.roll(-1, 2)) / 4 + drawn[:, 0]
        above = (corners + right + middles + middles.roll(1, 1)) / 4 + drawn[:, 1]
        beside = (corners + below + middles + middles.roll(1, 2)) / 4 + drawn[:, 2]
        pairs = torch.stack([corners, above, beside, middles], 1).view(-1, 2, 2, count, count)
        corners = pairs.permute(0, 3, 1, 4, 2).reshape(-1, 2 * count, 2 * count)
        step //= 2
        strength /= decay**2
    low, high = corners.amin((1, 2), keepdim=True), corners.amax((1, 2), keepdim=True)
    return (corners - low) / (high - low)
