"""Models for images."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from torch import Tensor, nn

__all__ = ["ResidualBlock", "conv_net", "mlp", "resnet", "widest_within"]


def mlp(inputs: int, width: int, classes: int, hidden: int = 2) -> nn.Sequential:
    """Build a multilayer perceptron with ReLU and equally wide hidden layers.

    Args:
        inputs: numbers in an image; images are flattened.
        width: units in each hidden layer.
        classes: outputs.
        hidden: hidden layers.

    Example:
        >>> sum(p.numel() for p in mlp(64, 100, 10).parameters())
        17610
    """
    sizes = [inputs, *[width] * hidden]
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, classes))


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


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut: relu(norm(conv(relu(norm(conv(x))))) + x).

    Where size or channels change, the shortcut is a 1×1 convolution with a norm.

    Args:
        before: channels of the input.
        after: channels of the output.
        stride: of the first convolution and the shortcut.

    Source: He et al. 2016 (arXiv 1512.03385), section 3.3, shortcuts of kind B.

    Example:
        >>> import torch
        >>> ResidualBlock(4, 8, stride=2)(torch.zeros(2, 4, 6, 6)).shape
        torch.Size([2, 8, 3, 3])
    """

    def __init__(self, before: int, after: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(
                nn.Conv2d(before, after, 1, stride=stride, bias=False), nn.BatchNorm2d(after)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Compute the block for images (batch, channels, height, width)."""
        y = self.norm1(self.conv1(x)).relu()
        total: Tensor = self.norm2(self.conv2(y)) + self.shortcut(x)
        return total.relu()


def resnet(channels: int, width: int, classes: int, depth: int = 20) -> nn.Sequential:
    """Build the residual network for small images: three stages of width, 2·width, 4·width.

    Args:
        channels: of the image.
        width: channels of the first stage; 16 in the paper.
        classes: outputs.
        depth: 6n + 2 layers: 20, 32, 44, 56 in the paper.

    Raises:
        ValueError: depth is not 6n + 2.

    Source: He et al. 2016 (arXiv 1512.03385), section 4.2.

    Differs from the paper: shortcuts that change size are convolutions (there, padded with zeros).

    Example:
        >>> sum(p.numel() for p in resnet(3, 16, 10).parameters())
        272474
    """
    if depth < 8 or depth % 6 != 2:
        raise ValueError(f"depth={depth}: must be 6n + 2, such as 20, 32 or 56")
    layers: list[nn.Module] = [
        nn.Conv2d(channels, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    ]
    before = width
    for stage, after in enumerate((width, 2 * width, 4 * width)):
        for block in range((depth - 2) // 6):
            stride = 2 if stage and block == 0 else 1
            layers.append(ResidualBlock(before, after, stride))
            before = after
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, classes)]
    return nn.Sequential(*layers, *head)


def widest_within(budget: int, build: Callable[[int], nn.Module]) -> int:
    """Find the largest width whose model has no more parameters than the budget.

    Args:
        budget: a number of parameters, biases and norms included.
        build: makes a model of a width; its parameters grow with the width.

    Raises:
        ValueError: even width 1 exceeds the budget.

    Example:
        >>> widest_within(17_610, lambda width: mlp(64, width, 10))
        100
    """

    def fits(width: int) -> bool:
        return sum(p.numel() for p in build(width).parameters()) <= budget

    if not fits(1):
        raise ValueError(f"budget={budget}: even a model of width 1 has more parameters")
    low, high = 1, 2
    while fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
