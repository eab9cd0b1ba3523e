"""I3D: Inception-v1 with its kernels inflated into time."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["InceptionBlock3d", "i3d"]


def _convolution(before: int, after: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(before, after, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm3d(after),
        nn.ReLU(),
    )


class InceptionBlock3d(nn.Module):
    """Four branches side by side: 1×1×1; 1×1×1 and 3×3×3, twice; pooling and 1×1×1.

    Args:
        before: channels of the input.
        point: outputs of the first branch.
        second: channels in between and outputs of the second.
        third: channels in between and outputs of the third.
        pooled: outputs of the fourth.

    Source: Carreira & Zisserman 2017 (arXiv 1705.07750), figure 3.

    Example:
        >>> InceptionBlock3d(8, 2, (4, 3), (4, 2), 1)(torch.zeros(2, 8, 4, 6, 6)).shape
        torch.Size([2, 8, 4, 6, 6])
    """

    def __init__(
        self,
        before: int,
        point: int,
        second: tuple[int, int],
        third: tuple[int, int],
        pooled: int,
    ) -> None:
        super().__init__()
        self.point = _convolution(before, point, 1)
        self.second, self.third = (
            nn.Sequential(_convolution(before, between, 1), _convolution(between, after, 3))
            for between, after in (second, third)
        )
        self.pooled = nn.Sequential(
            nn.MaxPool3d(3, stride=1, padding=1), _convolution(before, pooled, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Compute the block for clips (batch, channels, frames, height, width)."""
        return torch.cat([self.point(x), self.second(x), self.third(x), self.pooled(x)], 1)


# Outputs and channels in between of each block, stage by stage: Szegedy et al. 2015, table 1.
_STAGES = (
    ((64, (96, 128), (16, 32), 32), (128, (128, 192), (32, 96), 64)),
    (
        (192, (96, 208), (16, 48), 64),
        (160, (112, 224), (24, 64), 64),
        (128, (128, 256), (24, 64), 64),
        (112, (144, 288), (32, 64), 64),
        (256, (160, 320), (32, 128), 128),
    ),
    ((256, (160, 320), (32, 128), 128), (384, (192, 384), (48, 128), 128)),
)


def i3d(
    channels: int = 3,
    classes: int = 400,
    *,
    width: int = 64,
    small_clips: bool = False,
    dropout: float = 0.5,
) -> nn.Sequential:
    """Build I3D.

    Args:
        channels: of a clip (channels, frames, height, width): 3, or 2 of optical flow.
        classes: outputs.
        width: channels of the first convolution, 64 in the paper; all others in proportion, at
            least one.
        small_clips: start with a 3×3×3 convolution of stride 1 in place of the 7×7×7 one of stride
            2 and the pooling after it, as the residual networks for small images do.
        dropout: of the features before the last layer.

    Source: Carreira & Zisserman 2017 (arXiv 1705.07750), figure 3. A public PyTorch version has as
    many parameters, 12,697,264 for 400 classes.

    Differs from the paper: padding is symmetric where TensorFlow pads more at the end; the last
    features are averaged over all of a clip, and classified once, where the paper averages windows
    of 2×7×7, classifies each and averages scores, so that here the first and last features count as
    much as others; small clips have a start of their own.

    Example:
        >>> sum(p.numel() for p in i3d(3, 400).parameters())
        12697264
    """

    def scaled(value: int) -> int:
        return max(1, round(value * width / 64))

    layers: list[nn.Module] = [_convolution(channels, width, 3)]
    if not small_clips:
        layers = [_convolution(channels, width, 7, 2), _spatial_pool()]
    before = scaled(192)
    layers += [_convolution(width, width, 1), _convolution(width, before, 3), _spatial_pool()]
    for stage, blocks in enumerate(_STAGES):
        if stage == 1:
            layers.append(nn.MaxPool3d(3, stride=2, padding=1))
        elif stage == 2:
            layers.append(nn.MaxPool3d(2, stride=2, ceil_mode=True))
        for point, second, third, pooled in blocks:
            a, b, c, d = scaled(point), scaled(second[1]), scaled(third[1]), scaled(pooled)
            between = scaled(second[0]), scaled(third[0])
            layers.append(InceptionBlock3d(before, a, (between[0], b), (between[1], c), d))
            before = a + b + c + d
    head = [nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(before, classes)]
    return nn.Sequential(*layers, *head)


def _spatial_pool() -> nn.Module:
    return nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
