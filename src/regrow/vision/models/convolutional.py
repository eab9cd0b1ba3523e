"""Small convolutional networks."""

from __future__ import annotations

from itertools import pairwise

from torch import nn

__all__ = ["conv_net", "lenet5", "small_conv", "small_conv3d", "vgg"]


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


def small_conv(channels: int = 3, classes: int = 10, width: int = 32) -> nn.Sequential:
    """Build the small network of the pruning-criteria study: three unpadded 3×3 convolutions.

    Args:
        channels: of the image, at least 32×32 pixels.
        classes: outputs.
        width: channels of the first convolution; later ones have 2 and 4 times as many.

    Source: Nowak et al. 2023 (arXiv 2306.12230) and its public code, whose text speaks of 95,818
    parameters; its model, as this one, has 94,538.

    Example:
        >>> sum(p.numel() for p in small_conv().parameters())
        94538
    """
    return nn.Sequential(
        nn.Conv2d(channels, width, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(2 * width, 4 * width, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, classes),
    )


def small_conv3d(channels: int = 1, classes: int = 10, width: int = 16) -> nn.Sequential:
    """Build a network for small clips, about as large as :func:`small_conv`.

    Three 3×3×3 convolutions, halved in time and space after the first two by maximum pooling.

    Args:
        channels: of the clip, at least 4 frames of 4×4 pixels.
        classes: outputs.
        width: channels of the first convolution; later ones have 2 and 4 times as many.

    Example:
        >>> sum(p.numel() for p in small_conv3d().parameters())
        70314
    """
    return nn.Sequential(
        nn.Conv3d(channels, width, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool3d(2),
        nn.Conv3d(width, 2 * width, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool3d(2),
        nn.Conv3d(2 * width, 4 * width, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool3d(1),
        nn.Flatten(),
        nn.Linear(4 * width, classes),
    )


def lenet5(channels: int = 1, classes: int = 10, *, width: int = 20) -> nn.Sequential:
    """Build LeNet-5 as Caffe had it, for images of 28×28 pixels.

    Args:
        channels: of the image.
        classes: outputs.
        width: channels of the first convolution; what follows has 2.5 and 25 times as many.

    Source: LeCun et al. 1998 ("Gradient-based learning applied to document recognition").

    Differs from the paper: sizes and maximum pooling are those of Caffe's example, which the
    pruning literature calls LeNet-5.

    Example:
        >>> sum(p.numel() for p in lenet5().parameters())
        431080
    """
    second, hidden = width * 5 // 2, width * 25
    return nn.Sequential(
        nn.Conv2d(channels, width, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(width, second, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(second * 4 * 4, hidden),
        nn.ReLU(),
        nn.Linear(hidden, classes),
    )


_VGG = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}


def vgg(depth: int = 16, classes: int = 10, *, width: int = 64) -> nn.Sequential:
    """Build VGG with batch norm for small images: its convolutions, and one linear layer.

    Args:
        depth: 11, 13, 16 or 19.
        classes: outputs.
        width: channels of the first stage; the others have 2, 4, 8 and 8 times as many.

    Raises:
        ValueError: there is no such depth.

    Source: Simonyan & Zisserman 2015 (arXiv 1409.1556), table 1.

    Differs from the paper: batch norm, and one linear layer in place of three, as is usual for
    images of 32×32 pixels.

    Example:
        >>> sum(p.numel() for p in vgg(16, 100).parameters())
        14770212
    """
    if depth not in _VGG:
        raise ValueError(f"depth={depth}: must be one of {', '.join(map(str, _VGG))}")
    layers: list[nn.Module] = []
    before = 3
    for stage, convolutions in enumerate(_VGG[depth]):
        after = width * 2 ** min(stage, 3)
        for _ in range(convolutions):
            layers += [
                nn.Conv2d(before, after, 3, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
            ]
            before = after
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, classes))
