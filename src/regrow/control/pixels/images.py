"""What is done to images in batches: shifts, crops, overlays of photographs, random convolutions.

Every function takes the numbers that are drawn for it: what is random is the caller's.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["offsets", "overlay", "random_convolution", "resized_crops", "splice", "windows"]

_AREA, _RATIO = (0.08, 1.0), (3 / 4, 4 / 3)  # of a crop that is resized


def offsets(uniform: Tensor, steps: int) -> Tensor:
    """Turn numbers in (0, 1) into whole ones, each of 0..steps equally often; int64."""
    return (uniform * (steps + 1)).long().clamp_(max=steps)


def windows(images: Tensor, starts: Tensor, size: int) -> Tensor:
    """Cut a square out of each image; what lies beyond a border repeats the border's pixel.

    Starts in −4..4 and the image's own size give random shifts; starts in 0..H − size, crops.

    Args:
        images: (B, C, H, W).
        starts: row and column of the first pixel, int64, (B, 2).
        size: of the square.

    Example:
        >>> windows(torch.arange(9.0).view(1, 1, 3, 3), torch.tensor([[-1, 1]]), 3)[0, 0].tolist()
        [[1.0, 2.0, 2.0], [1.0, 2.0, 2.0], [4.0, 5.0, 5.0]]
    """
    b, c, height, width = images.shape
    places = torch.arange(size, device=images.device)
    rows = (starts[:, :1] + places).clamp(0, height - 1)
    columns = (starts[:, 1:] + places).clamp(0, width - 1)
    some = torch.arange(b, device=images.device)[:, None, None, None]
    channels = torch.arange(c, device=images.device)[None, :, None, None]
    return images[some, channels, rows[:, None, :, None], columns[:, None, None, :]]


def resized_crops(photos: Tensor, uniform: Tensor, size: int) -> Tensor:
    """Cut a rectangle out of a photograph for each row, stretch it to a square, flip half of them.

    A rectangle has 8 to 100 % of the area and sides of a ratio of 3/4 to 4/3, as usual.

    Args:
        photos: squares, uint8, (N, 3, S, S).
        uniform: numbers in (0, 1), (B, 6): which photo, area, ratio, row, column, flip.
        size: of the result.

    Returns:
        float32 in 0..1, (B, 3, size, size).

    Differs from torchvision's: a rectangle that sticks out is shortened, not drawn again; bilinear,
    not smoothed.
    """
    which, area, ratio, row, column, flip = uniform.unbind(1)
    chosen = photos[offsets(which, len(photos) - 1)].float() / 255
    part = _AREA[0] + (_AREA[1] - _AREA[0]) * area
    log = math.log(_RATIO[0]) + (math.log(_RATIO[1]) - math.log(_RATIO[0])) * ratio
    wide, tall = ((part * (s * log).exp()).sqrt().clamp(max=1.0) for s in (1, -1))
    turned = torch.where(flip < 0.5, -wide, wide)
    zero = torch.zeros_like(wide)
    # Of affine_grid, which maps −1..1 of the result to −1..1 of the photo.
    x, y = (1 - wide) * (2 * column - 1), (1 - tall) * (2 * row - 1)
    maps = torch.stack([turned, zero, x, zero, tall, y], 1).view(-1, 2, 3)
    grid = functional.affine_grid(maps, [len(uniform), 3, size, size], align_corners=False)
    return functional.grid_sample(chosen, grid, padding_mode="border", align_corners=False)


def overlay(images: Tensor, pictures: Tensor, share: float = 0.5) -> Tensor:
    """Return (1 − share)·x + share·picture, the same picture on all frames.

    Args:
        images: in 0..1, (B, 3 · frames, H, W).
        pictures: in 0..1, (B, 3, H, W).
        share: of the picture.

    Source: SODA (arXiv 2011.13389).
    """
    pictures = pictures.to(images.dtype).repeat(1, images.shape[1] // 3, 1, 1)
    return torch.lerp(images, pictures, share)


def splice(images: Tensor, pictures: Tensor, bright: float = 0.6) -> Tensor:
    """Put a picture behind pixels that are bright and coloured.

    Those stay whose value (of HSV) is above 0.6, and hue and saturation above 0.

    Args:
        images: in 0..1, (B, 3 · frames, H, W).
        pictures: in 0..1, (B, 3, H, W).
        bright: the value of HSV above which a pixel stays.

    Source: MaDi's code.
    """
    b, c, *size = images.shape
    frames = images.reshape(b, c // 3, 3, *size)
    red, green, blue = frames.unbind(2)
    value, least = frames.amax(2), frames.amin(2)
    # Hue is 0 of grey, and of a pure red whose green and blue are alike.
    coloured = (value > least) & ~((value == red) & (green == blue))
    stays = ((value > bright) & coloured)[:, :, None]
    behind = pictures.to(images.dtype)[:, None]
    return torch.where(stays, frames, behind).reshape(images.shape)


def random_convolution(images: Tensor, kernels: Tensor) -> Tensor:
    """Return sigmoid(kernel ∗ x): another 3×3 convolution for each image, the same on its frames.

    Args:
        images: in 0..1, (B, 3 · frames, H, W).
        kernels: standard normal, (B, 3, 3, 3, 3).

    Source: MaDi's code; random convolutions are those of Lee et al. 2020 (arXiv 1910.05396).
    """
    b, c, *size = images.shape
    frames = c // 3
    x = images.reshape(b, frames, 3, *size).transpose(0, 1).reshape(frames, b * 3, *size)
    x = functional.pad(x, (1, 1, 1, 1), mode="replicate")
    y = functional.conv2d(x, kernels.to(x.dtype).reshape(b * 3, 3, 3, 3), groups=b)
    y = y.view(frames, b, 3, *size).transpose(0, 1).reshape(b, c, *size)
    return torch.sigmoid(y)
