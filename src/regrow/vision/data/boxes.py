"""Random boxes to cut out of images."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["random_boxes"]

_ATTEMPTS = 10


def random_boxes(
    n: int,
    height: int,
    width: int,
    generator: torch.Generator,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Tensor:
    """Draw boxes in an image: area uniform in ``scale``, logarithm of the shape in ``ratio``.

    Of ten boxes the first that fits is taken, placed anywhere; if none does, the largest of an
    allowed shape, in the middle. Source: the Inception crop (Szegedy et al. 2015).

    Args:
        n: how many.
        height: of the image, in pixels.
        width: of the image, in pixels.
        generator: what is random.
        scale: least and greatest share of the image's area.
        ratio: least and greatest width over height.

    Returns:
        int64, shape (n, 4): top, left, height and width of each.

    Raises:
        ValueError: scale or ratio are no ranges above 0.

    Example:
        >>> random_boxes(1, 8, 8, torch.Generator(), scale=(1, 1), ratio=(1, 1)).tolist()
        [[0, 0, 8, 8]]
    """
    for name, (low, high) in (("scale", scale), ("ratio", ratio)):
        if not 0 < low <= high:
            raise ValueError(f"{name}={(low, high)}: must be two numbers above 0, the least first")
    areas, shapes, *places = torch.rand(
        4, n, _ATTEMPTS, generator=generator, device=generator.device, dtype=torch.float64
    )
    areas = height * width * (scale[0] + (scale[1] - scale[0]) * areas)
    low, high = math.log(ratio[0]), math.log(ratio[1])
    shapes = (low + (high - low) * shapes).exp()
    tall, wide = (areas / shapes).sqrt().round().long(), (areas * shapes).sqrt().round().long()
    fits = (tall > 0) & (tall <= height) & (wide > 0) & (wide <= width)
    first = fits.int().argmax(1, keepdim=True)
    drawn = [each.gather(1, first).squeeze(1) for each in (tall, wide, *places)]
    tall, wide = drawn[0], drawn[1]
    top, left = ((height - tall + 1) * drawn[2]).long(), ((width - wide + 1) * drawn[3]).long()
    boxes = torch.stack([top, left, tall, wide], 1)
    middle = torch.tensor(_middle_box(height, width, ratio), device=boxes.device)
    return torch.where(fits.any(1, keepdim=True), boxes, middle)


def _middle_box(height: int, width: int, ratio: tuple[float, float]) -> list[int]:
    shape = min(max(width / height, ratio[0]), ratio[1])
    tall = min(height, max(1, round(width / shape)))
    wide = min(width, max(1, round(height * shape)))
    return [(height - tall) // 2, (width - wide) // 2, tall, wide]
