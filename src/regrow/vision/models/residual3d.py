"""Residual networks for clips."""

from __future__ import annotations

from torch import nn

from regrow.vision.models.residual import Bottleneck

__all__ = ["Bottleneck3d", "resnet3d50"]


class Bottleneck3d(Bottleneck):
    """:class:`Bottleneck` of a clip: 1×1×1, 3×3×3 and 1×1×1 convolutions, and a shortcut.

    Args:
        before: channels of the input.
        width: channels in between; the output has four times as many.
        stride: of the 3×3×3 convolution and the shortcut, in time and space.

    Source: Hara et al. 2018 (arXiv 1711.09577), figure 3.

    Example:
        >>> import torch
        >>> Bottleneck3d(8, 4, stride=2)(torch.zeros(2, 8, 4, 6, 6)).shape
        torch.Size([2, 16, 2, 3, 3])
    """

    _convolution, _norm = nn.Conv3d, nn.BatchNorm3d


def resnet3d50(
    channels: int = 3, classes: int = 400, *, width: int = 64, small_clips: bool = False
) -> nn.Sequential:
    """Build the 3D ResNet-50: four stages of width, 2, 4 and 8 times the width.

    Args:
        channels: of a clip (channels, frames, height, width).
        classes: outputs.
        width: channels of the first stage; 64 in the paper.
        small_clips: start with one 3×3×3 convolution of stride 1 and no pooling, as the residual
            networks for small images do.

    Source: Hara et al. 2018 (arXiv 1711.09577), table 1. Its public code has as many parameters,
    47,018,576 for 400 classes, and convolutions start as there: normal, with variance
    2 / (outputs · kernel).

    Differs from the paper: small clips have a start of their own.

    Example:
        >>> sum(p.numel() for p in resnet3d50(3, 400).parameters())
        47018576
    """
    layers: list[nn.Module] = [nn.Conv3d(channels, width, 3, padding=1, bias=False)]
    if not small_clips:
        layers = [nn.Conv3d(channels, width, 7, stride=(1, 2, 2), padding=3, bias=False)]
    layers += [nn.BatchNorm3d(width), nn.ReLU()]
    if not small_clips:
        layers.append(nn.MaxPool3d(3, stride=2, padding=1))
    before = width
    for stage, blocks in enumerate((3, 4, 6, 3)):
        for block in range(blocks):
            stride = 2 if stage and block == 0 else 1
            layers.append(Bottleneck3d(before, width * 2**stage, stride))
            before = 4 * width * 2**stage
    model = nn.Sequential(
        *layers, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(before, classes)
    )
    for module in model.modules():
        if isinstance(module, nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model
