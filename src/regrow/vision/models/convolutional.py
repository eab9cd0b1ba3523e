"""Small convolutional networks."""

from __future__ import annotations

from itertools import pairwise

from torch import nn

__all__ = ["conv_net"]


def conv_net(channels: int, width: int, classes: int) -> nn.Sequential:
    """Build a small convolutional network: four 3×3 convolutions of stride 2, then a linear layer.

    Args:
        channels: of the image.
        width: channels of the first convolution; later ones have 2, 4 and 4 times as many.
        classes: outputs.

    Example:
        >>> sum(p.numel() for p in conv_net(3, 32, 10).parameters())
        242474
    """
    sizes = [channels, width, 2 * width, 4 * width, 4 * width]
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [
            nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
        ]
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, classes)
    )
