"""Lightness and saturation of colours."""

from __future__ import annotations

import torch
from torch import Tensor

from regrow.vision.corruptions.draws import Draws
from regrow.vision.corruptions.severities import Parameters

__all__ = ["lightness", "saturate"]

_WEIGHTS = (0.299, 0.587, 0.114)


def lightness(images: Tensor) -> Tensor:
    """Return 0.299 red + 0.587 green + 0.114 blue; a grey image as it is.

    Args:
        images: shape (n, 1 or 3, height, width).

    Returns:
        Shape (n, 1, height, width).
    """
    if images.shape[1] == 1:
        return images
    weights = torch.tensor(_WEIGHTS, dtype=images.dtype, device=images.device).view(3, 1, 1)
    return (images * weights).sum(1, keepdim=True)


def saturate(images: Tensor, parameters: Parameters, draws: Draws) -> Tensor:
    """Multiply the saturation of hue, saturation and value and add to it, within [0, 1].

    What grey pixels gain is red, their hue being 0. An image of one channel has no saturation and
    stays as it is.

    Args:
        images: float32 in [0, 1], shape (n, channels, height, width).
        parameters: (factor, what is added).
        draws: nothing is random here.
    """
    if images.shape[1] == 1:
        return images
    factor, added = parameters
    value = images.amax(1, keepdim=True)
    below = value - images
    span = below.amax(1, keepdim=True)
    saturation = span / value.clamp(min=1e-12)
    wanted = (saturation * factor + added).clamp_(0, 1)
    red = torch.tensor([0.0, 1.0, 1.0], device=images.device).view(3, 1, 1)
    share = torch.where(span > 0, below / span.clamp(min=1e-12), red)
    return value * (1 - wanted * share)
