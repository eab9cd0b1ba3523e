"""nnU-Net's networks: the plain U-Net, and the one whose encoder is residual."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from regrow.segmentation.segmenter import (
    ConvBlock,
    Segmenter,
    Sides,
    deep_supervision_weights,
    triple,
)

__all__ = ["PlainConvUNet", "ResidualEncoderUNet"]

Kernels = int | Sequence[int | Sequence[int]]


class Residual(nn.Module):
    """Two convolutions beside a shortcut: x + F(x), then leaky ReLU.

    Args:
        before: channels of the input.
        after: channels of the output.
        kernel: of both convolutions.
        stride: of the first; the shortcut is averaged by it.
    """

    def __init__(self, before: int, after: int, kernel: Sides, stride: Sides) -> None:
        super().__init__()
        self.first = ConvBlock(before, after, kernel, stride)
        self.second = ConvBlock(after, after, kernel, activated=False)
        shortcut: list[nn.Module] = []
        if math.prod(stride) > 1:
            shortcut.append(nn.AvgPool3d(stride, stride))
        if before != after:
            shortcut.append(ConvBlock(before, after, (1, 1, 1), activated=False, bias=False))
        self.shortcut = nn.Sequential(*shortcut)
        self.activation = nn.LeakyReLU(0.01, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        out: Tensor = self.activation(self.second(self.first(x)) + self.shortcut(x))
        return out


class _UNet(Segmenter):
    """Encoder, skips, decoder; a subclass says what an encoder's stage is.

    Args: those of the subclasses; ``repeats`` are the decoder's blocks a level.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        channels: Sequence[int],
        strides: Sequence[int | Sequence[int]] | None,
        kernels: Kernels,
        repeats: int,
        deep_supervision: bool,
    ) -> None:
        super().__init__(in_channels, num_classes, channels, strides, deep_supervision)
        self.kernels = _kernels(kernels, len(self.channels))
        if repeats < 1:
            raise ValueError(f"convolutions={repeats}: must be at least 1")
        steps = list(zip(self.channels, self.channels[1:], self.strides, strict=False))
        self.ups = nn.ModuleList(
            nn.ConvTranspose3d(below, here, stride, stride) for here, below, stride in steps
        )
        self.decoder = nn.ModuleList(
            _chain(2 * here, here, kernel, repeats)
            for (here, _, _), kernel in zip(steps, self.kernels, strict=False)
        )

    @property
    def loss_weights(self) -> tuple[float, ...]:
        """The weight of each output in the loss; as in nnU-Net, the lowest does not count."""
        return deep_supervision_weights(len(self.heads), lowest=False)

    def encode(self, x: Tensor) -> list[Tensor]:
        """Return the encoder's features of each level."""
        raise NotImplementedError

    def features(self, x: Tensor) -> list[Tensor]:
        """Return the decoder's features, the full resolution first."""
        *skips, x = self.encode(x)
        decoded: list[Tensor] = []
        for level in reversed(range(len(skips))):
            # The up-sampled features come first, as in nnU-Net, whose weights then fit.
            x = self.decoder[level](torch.cat([self.ups[level](x), skips[level]], 1))
            decoded.insert(0, x)
        return decoded


class PlainConvUNet(_UNet):
    """nnU-Net's default network for volumes: a U-Net of plain convolutions.

    Args:
        in_channels: of the volume.
        num_classes: outputs of a voxel, the background included.
        channels: of each level; a narrower one: ``channels_of(16)``.
        strides: from each level to the next: three numbers or one each; None is 2 throughout.
        kernels: of the convolutions: one number, or for each level one or three.
        convolutions: a level, in the encoder and in the decoder.
        deep_supervision: whether the output is a list of one scale a level but the lowest, or the
            full resolution alone, as one tensor.

    Source: nnU-Net (Isensee et al. 2021, Nature Methods); parameters and outputs equal those of its
    package dynamic-network-architectures.

    Example:
        >>> model = PlainConvUNet(1, 16)
        >>> sum(p.numel() for p in model.parameters())
        31206864
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        channels: Sequence[int] = (32, 64, 128, 256, 320, 320),
        strides: Sequence[int | Sequence[int]] | None = None,
        *,
        kernels: Kernels = 3,
        convolutions: int = 2,
        deep_supervision: bool = True,
    ) -> None:
        super().__init__(
            in_channels, num_classes, channels, strides, kernels, convolutions, deep_supervision
        )
        befores, steps = (self.in_channels, *self.channels), ((1, 1, 1), *self.strides)
        self.encoder = nn.ModuleList(
            _chain(before, after, kernel, convolutions, stride)
            for before, after, kernel, stride in zip(
                befores, self.channels, self.kernels, steps, strict=False
            )
        )
        self.add_heads(len(self.channels) - 1, bias=True)

    def encode(self, x: Tensor) -> list[Tensor]:
        """Return the encoder's features of each level."""
        return _each(self.encoder, x)


class ResidualEncoderUNet(_UNet):
    """nnU-Net's U-Net whose encoder is residual: more blocks on the way down than on the way up.

    Args:
        in_channels: of the volume.
        num_classes: outputs of a voxel, the background included.
        channels: of each level.
        strides: from each level to the next: three numbers or one each; None is 2 throughout.
        kernels: of the convolutions: one number, or for each level one or three.
        blocks: residual blocks of each level of the encoder.
        deep_supervision: whether the output is a list of one scale a level but the lowest, or the
            full resolution alone, as one tensor.

    Source: "nnU-Net Revisited" (Isensee et al. 2024, arXiv 2404.09556), ResEnc; parameters and
    outputs equal those of the package dynamic-network-architectures.

    Example:
        >>> ResidualEncoderUNet(1, 2, (4, 8), blocks=(1, 2))(torch.zeros(1, 1, 8, 8, 8))[0].shape
        torch.Size([1, 2, 8, 8, 8])
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        channels: Sequence[int] = (32, 64, 128, 256, 320, 320),
        strides: Sequence[int | Sequence[int]] | None = None,
        *,
        kernels: Kernels = 3,
        blocks: Sequence[int] = (1, 3, 4, 6, 6, 6),
        deep_supervision: bool = True,
    ) -> None:
        super().__init__(in_channels, num_classes, channels, strides, kernels, 1, deep_supervision)
        if len(blocks) != len(self.channels) or min(blocks) < 1:
            raise ValueError(
                f"blocks={tuple(blocks)}: one number from 1 on is needed for each of "
                f"{len(self.channels)} levels"
            )
        self.stem = ConvBlock(self.in_channels, self.channels[0], self.kernels[0])
        befores, steps = (self.channels[0], *self.channels), ((1, 1, 1), *self.strides)
        self.encoder = nn.ModuleList(
            nn.Sequential(
                Residual(before, after, kernel, stride),
                *(Residual(after, after, kernel, (1, 1, 1)) for _ in range(count - 1)),
            )
            for before, after, kernel, stride, count in zip(
                befores, self.channels, self.kernels, steps, blocks, strict=False
            )
        )
        self.add_heads(len(self.channels) - 1, bias=True)
        # Zero as the last norm's scale: at first every block hands on its shortcut alone.
        for module in self.modules():
            if isinstance(module, Residual):
                nn.init.zeros_(module.second.norm.weight)

    def encode(self, x: Tensor) -> list[Tensor]:
        """Return the encoder's features of each level."""
        return _each(self.encoder, self.stem(x))


def _each(stages: nn.ModuleList, x: Tensor) -> list[Tensor]:
    """Return the output of every stage."""
    outputs = []
    for stage in stages:
        x = stage(x)
        outputs.append(x)
    return outputs


def _chain(
    before: int, after: int, kernel: Sides, count: int, stride: Sides = (1, 1, 1)
) -> nn.Sequential:
    """Build blocks one after another, the first with the stride."""
    first = ConvBlock(before, after, kernel, stride)
    return nn.Sequential(first, *(ConvBlock(after, after, kernel) for _ in range(count - 1)))


def _kernels(kernels: Kernels, levels: int) -> tuple[Sides, ...]:
    each = (kernels,) * levels if isinstance(kernels, int) else tuple(kernels)
    sides = tuple(triple(kernel, "kernels") for kernel in each)
    if len(sides) != levels or any(side % 2 == 0 for kernel in sides for side in kernel):
        raise ValueError(
            f"kernels={kernels}: odd sides are needed, one kernel for each of {levels} levels, "
            "such as (1, 3, 3), or one number for all"
        )
    return sides
