"""Residual networks, for small images and for those of ImageNet."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["Bottleneck", "ResidualBlock", "imagenet_resnet", "resnet"]


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


class Bottleneck(nn.Module):
    """A 1×1, a 3×3 and a widening 1×1 convolution, and a shortcut.

    Args:
        before: channels of the input.
        width: channels in between; the output has four times as many.
        stride: of the 3×3 convolution and the shortcut.

    Source: He et al. 2016 (arXiv 1512.03385), figure 5.

    Differs from the paper: there the first convolution has the stride; the 3×3 one is what every
    later implementation uses (ResNet "v1.5").

    Example:
        >>> import torch
        >>> Bottleneck(8, 4, stride=2)(torch.zeros(2, 8, 6, 6)).shape
        torch.Size([2, 16, 3, 3])
    """

    _convolution: type[nn.Conv2d] | type[nn.Conv3d] = nn.Conv2d
    _norm: type[nn.BatchNorm2d] | type[nn.BatchNorm3d] = nn.BatchNorm2d

    def __init__(self, before: int, width: int, stride: int = 1) -> None:
        super().__init__()
        after = 4 * width
        self.conv1 = self._convolution(before, width, 1, bias=False)
        self.norm1 = self._norm(width)
        self.conv2 = self._convolution(width, width, 3, stride=stride, padding=1, bias=False)
        self.norm2 = self._norm(width)
        self.conv3 = self._convolution(width, after, 1, bias=False)
        self.norm3 = self._norm(after)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(
                self._convolution(before, after, 1, stride=stride, bias=False), self._norm(after)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Compute the block for images (batch, channels, height, width)."""
        y = self.norm2(self.conv2(self.norm1(self.conv1(x)).relu())).relu()
        total: Tensor = self.norm3(self.conv3(y)) + self.shortcut(x)
        return total.relu()


_STAGES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


def imagenet_resnet(
    depth: int, classes: int = 1000, *, width: int = 64, small_images: bool = False
) -> nn.Sequential:
    """Build the residual network for ImageNet: four stages of width, 2, 4 and 8 times the width.

    Args:
        depth: 18 or 34 (of :class:`ResidualBlock`), 50 or 101 (of :class:`Bottleneck`).
        classes: outputs.
        width: channels of the first stage; 64 in the paper.
        small_images: start with one 3×3 convolution and no pooling, as is usual for images of
            32×32 (CIFAR) and 64×64 (Tiny-ImageNet).

    Raises:
        ValueError: there is no such depth.

    Source: He et al. 2016 (arXiv 1512.03385), table 1.

    Example:
        >>> sum(p.numel() for p in imagenet_resnet(50).parameters())
        25557032
    """
    if depth not in _STAGES:
        raise ValueError(f"depth={depth}: must be one of {', '.join(map(str, _STAGES))}")
    kernel, stride = (3, 1) if small_images else (7, 2)
    layers: list[nn.Module] = [
        nn.Conv2d(3, width, kernel, stride=stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    ]
    if not small_images:
        layers.append(nn.MaxPool2d(3, stride=2, padding=1))
    before, deep = width, depth >= 50
    for stage, blocks in enumerate(_STAGES[depth]):
        after = width * 2**stage
        for block in range(blocks):
            stride = 2 if stage and block == 0 else 1
            layers.append((Bottleneck if deep else ResidualBlock)(before, after, stride))
            before = 4 * after if deep else after
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, classes))
