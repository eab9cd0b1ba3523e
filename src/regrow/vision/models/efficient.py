"""EfficientNet-B0."""

from __future__ import annotations

from torch import Tensor, nn

from regrow.vision.models.depth import leave_out

__all__ = ["InvertedBottleneck", "SqueezeExcite", "efficientnet_b0"]


class SqueezeExcite(nn.Module):
    """Scale channels by what all of an image says: x · σ(W₂ silu(W₁ mean(x))).

    Args:
        channels: of input and output.
        squeezed: channels in between.

    Source: Hu et al. 2018 (arXiv 1709.01507).

    Example:
        >>> import torch
        >>> SqueezeExcite(8, 2)(torch.zeros(1, 8, 4, 4)).shape
        torch.Size([1, 8, 4, 4])
    """

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.expand = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the layer for images (batch, channels, height, width)."""
        squeezed = nn.functional.silu(self.reduce(x.mean((2, 3), keepdim=True)))
        scaled: Tensor = x * self.expand(squeezed).sigmoid()
        return scaled


def _convolution(
    before: int, after: int, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(before, after, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(after),
    )


class InvertedBottleneck(nn.Module):
    """Widen, convolve each channel alone, squeeze and excite, narrow; and a shortcut if it fits.

    Args:
        before: channels of the input.
        after: channels of the output.
        expansion: how many times wider it is in between.
        kernel: of the depthwise convolution.
        stride: of the depthwise convolution.
        drop: the probability of leaving the block out of an image in training.

    Source: Sandler et al. 2018 (arXiv 1801.04381); stochastic depth: Huang et al. 2016
    (arXiv 1603.09382).

    Example:
        >>> import torch
        >>> InvertedBottleneck(8, 16, 6, 3, 2, 0.0)(torch.zeros(2, 8, 6, 6)).shape
        torch.Size([2, 16, 3, 3])
    """

    def __init__(
        self, before: int, after: int, expansion: int, kernel: int, stride: int, drop: float
    ) -> None:
        super().__init__()
        wide = before * expansion
        layers = [_convolution(before, wide, 1), nn.SiLU()] if expansion > 1 else []
        layers += [
            _convolution(wide, wide, kernel, stride, wide),
            nn.SiLU(),
            SqueezeExcite(wide, max(1, before // 4)),
            _convolution(wide, after, 1),
        ]
        self.body = nn.Sequential(*layers)
        self.drop = drop
        self.residual = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        """Compute the block for images (batch, channels, height, width)."""
        y: Tensor = self.body(x)
        if not self.residual:
            return y
        return x + leave_out(y, self.drop if self.training else 0.0)


# (expansion, channels, blocks, stride, kernel) of each stage.
_B0 = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)


def efficientnet_b0(
    classes: int = 1000, *, dropout: float = 0.2, stochastic_depth: float = 0.2
) -> nn.Sequential:
    """Build EfficientNet-B0.

    Args:
        classes: outputs.
        dropout: of the features before the last layer.
        stochastic_depth: the probability of leaving out the last block; earlier ones less, in
            proportion to their depth.

    Source: Tan & Le 2019 (arXiv 1905.11946), table 1.

    Example:
        >>> sum(p.numel() for p in efficientnet_b0().parameters())
        5288548
    """
    layers: list[nn.Module] = [_convolution(3, 32, 3, 2), nn.SiLU()]
    before, number, total = 32, 0, sum(stage[2] for stage in _B0)
    for expansion, after, blocks, first_stride, kernel in _B0:
        for block in range(blocks):
            stride = first_stride if block == 0 else 1
            drop = stochastic_depth * number / total
            layers.append(InvertedBottleneck(before, after, expansion, kernel, stride, drop))
            before, number = after, number + 1
    layers += [_convolution(before, 1280, 1), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Dropout(dropout), nn.Linear(1280, classes))
