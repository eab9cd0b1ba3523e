"""What all networks of volumes share: blocks, padding to the strides, outputs at several scales."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional

from regrow.segmentation.fused import channels_last, fusable
from regrow.segmentation.joins import Pending, Reading, leave, norm_relu

__all__ = ["ConvBlock", "Segmenter", "channels_of", "deep_supervision_weights", "triple"]

Sides = tuple[int, int, int]


def channels_of(width: int, levels: int = 6, largest: int = 320) -> tuple[int, ...]:
    """Return the channels of each level: the width, doubled from level to level up to a largest.

    Args:
        width: channels of the first level.
        levels: how many there are.
        largest: channels that no level exceeds.

    Source: nnU-Net (Isensee et al. 2021): width 32 and 320 at most for volumes.

    Example:
        >>> channels_of(32), channels_of(48, 4)
        ((32, 64, 128, 256, 320, 320), (48, 96, 192, 320))
    """
    return tuple(min(width * 2**level, largest) for level in range(levels))


def deep_supervision_weights(outputs: int, *, lowest: bool = True) -> tuple[float, ...]:
    """Return the weight of each output in the loss: 2⁻ⁱ of output i, made to sum to 1.

    Args:
        outputs: how many there are, the full resolution first.
        lowest: whether the last output counts; if not, its weight is 0.

    Example:
        >>> [round(15 * w, 9) for w in deep_supervision_weights(4)]
        [8.0, 4.0, 2.0, 1.0]
        >>> deep_supervision_weights(2, lowest=False)
        (1.0, 0.0)
    """
    if outputs < 1:
        raise ValueError(f"outputs={outputs}: must be at least 1")
    counted = outputs if lowest or outputs == 1 else outputs - 1
    weights = [0.5**i if i < counted else 0.0 for i in range(outputs)]
    return tuple(weight / sum(weights) for weight in weights)


def triple(value: int | Sequence[int], argument: str) -> Sides:
    """Return one side for each axis, from three or from one for all.

    Example:
        >>> triple(2, "strides"), triple((1, 2, 2), "strides")
        ((2, 2, 2), (1, 2, 2))
    """
    sides = (value,) * 3 if isinstance(value, int) else tuple(value)
    if len(sides) != 3 or not all(type(s) is int and s >= 1 for s in sides):
        raise ValueError(f"{argument}: {value!r} must be three whole numbers from 1 on, or one")
    return sides


class ConvBlock(nn.Module):
    """Convolution, instance norm, leaky ReLU.

    Args:
        before: channels of the input.
        after: channels of the output.
        kernel: odd sides; padded so that a stride of 1 keeps the sides.
        stride: of the convolution.
        activated: whether the leaky ReLU comes last.
        bias: whether the convolution has one.

    Example:
        >>> ConvBlock(2, 4, (1, 3, 3), (1, 2, 2))(torch.zeros(1, 2, 3, 6, 6)).shape
        torch.Size([1, 4, 3, 3, 3])

    Attributes:
        readings: what is read of the output by whom, if that shall compute it as it reads; none by
            default.
        whole: whether the output is then read whole, too.
    """

    readings: Mapping[str, Reading] = {}
    whole = False

    def __init__(
        self,
        before: int,
        after: int,
        kernel: Sides,
        stride: Sides = (1, 1, 1),
        *,
        activated: bool = True,
        bias: bool = True,
    ) -> None:
        super().__init__()
        padding = kernel[0] // 2, kernel[1] // 2, kernel[2] // 2
        self.conv = FlatConv3d(before, after, kernel, stride, padding, bias=bias)
        self.norm = nn.InstanceNorm3d(after, eps=1e-5, affine=True)
        # In place: the norm's backward pass needs what came into it, not what came out.
        self.activation = nn.LeakyReLU(0.01, inplace=True) if activated else nn.Identity()

    def forward(self, x: Tensor) -> Tensor | Pending:
        """Return the block's output; pending, if it has ``readings``."""
        out: Tensor = self.conv(x)
        norm = self.norm
        if norm.weight is not None and norm.bias is not None:
            slope = getattr(self.activation, "negative_slope", 1.0)
            how = out, norm.weight, norm.bias, norm.eps, slope
            if self.readings:
                return leave(*how, self.readings, whole=self.whole)
            if fusable(out):
                return norm_relu(*how)
        activated: Tensor = self.activation(norm(out))
        return activated


class FlatConv3d(nn.Conv3d):
    """A convolution that computes flat kernels, (1, k, k), slice by slice.

    Same numbers as ``nn.Conv3d``: where channels lie last in memory, slices are samples of a
    two-dimensional convolution, without a copy.

    Example:
        >>> conv = FlatConv3d(2, 3, (1, 3, 3), (2, 1, 1), (0, 1, 1))
        >>> x = torch.randn(1, 2, 4, 5, 5)
        >>> last = x.to(memory_format=torch.channels_last_3d)
        >>> torch.allclose(conv(last), conv(x), atol=1e-6)
        True
    """

    stored_as = nn.Conv3d  # which it equals, so that it may be stored sparse in its place

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        # cuDNN takes slow algorithms for flat kernels in three dimensions, twice the time and more.
        if self.kernel_size[0] != 1 or not channels_last(x):
            whole: Tensor = super()._conv_forward(x, weight, bias)
            return whole
        stride, padding = self.stride, self.padding
        assert not isinstance(padding, str)
        x = x[:, :, :: stride[0]]
        flat = x.transpose(1, 2).flatten(0, 1)
        out = functional.conv2d(flat, weight.squeeze(2), bias, stride[1:], padding[1:])
        slices: Tensor = out.unflatten(0, (len(x), x.shape[2]))
        return slices.transpose(1, 2)


class Segmenter(nn.Module):
    """A network from volumes to class scores (logits) of each voxel.

    Sides that the strides do not divide are padded at their end with the border's values, and the
    outputs are cut back: output i has ⌈side / stride of level i⌉ voxels along each axis.

    A subclass calls :meth:`add_heads` last and defines :meth:`features`, or defines :meth:`scores`.

    Args:
        in_channels: of the volume.
        num_classes: outputs of a voxel, the background included.
        channels: of each level, at least two levels.
        strides: from each level to the next, one fewer than levels: three numbers or one each.
        deep_supervision: what :meth:`forward` returns; may be set at any time.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        channels: Sequence[int],
        strides: Sequence[int | Sequence[int]] | None,
        deep_supervision: bool,
    ) -> None:
        super().__init__()
        for name, counts in (
            ("in_channels", [in_channels]),
            ("num_classes", [num_classes]),
            ("channels", channels),
        ):
            if not all(type(count) is int and count >= 1 for count in counts):
                raise ValueError(f"{name}={counts}: whole numbers from 1 on are needed")
        steps = len(channels) - 1
        if steps < 1:
            raise ValueError(f"channels={tuple(channels)}: at least two levels are needed")
        strides = (2,) * steps if strides is None else strides
        if isinstance(strides, int) or len(strides) != steps:
            raise ValueError(
                f"strides={strides}: {len(channels)} levels need {steps}, one from each level to "
                "the next; the first level has none"
            )
        self.in_channels, self.num_classes = in_channels, num_classes
        self.channels = tuple(channels)
        self.strides = tuple(triple(stride, "strides") for stride in strides)
        self.deep_supervision = deep_supervision

    @property
    def scales(self) -> tuple[Sides, ...]:
        """How much smaller each level is than the input, the first level's (1, 1, 1) included."""
        return tuple(accumulate(((1, 1, 1), *self.strides), _product))

    @property
    def loss_weights(self) -> tuple[float, ...]:
        """The weight of each output in the loss, of :func:`deep_supervision_weights`."""
        return deep_supervision_weights(len(self.heads))

    def add_heads(self, heads: int, *, bias: bool) -> None:
        """Add the 1×1×1 convolutions of the first levels and draw the first weights (He)."""
        self.heads = nn.ModuleList(
            nn.Conv3d(channels, self.num_classes, 1, bias=bias)
            for channels in self.channels[:heads]
        )
        for module in self.modules():
            if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
                nn.init.kaiming_normal_(module.weight, a=1e-2)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def features(self, x: Tensor) -> list[Tensor]:
        """Return what the heads read, the full resolution first."""
        raise NotImplementedError

    def scores(self, x: Tensor) -> list[Tensor]:
        """Return what :meth:`forward` does, of sides that the strides divide."""
        heads = self.heads if self.deep_supervision else self.heads[:1]
        return [head(f) for head, f in zip(heads, self.features(x), strict=False)]

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Return the scores at full resolution; with deep supervision a list, those first.

        Args:
            x: shape (batch, in_channels, depth, height, width).

        Returns:
            Shape (batch, num_classes, depth, height, width); the lists' others are smaller by the
            scale of their level.

        Raises:
            ValueError: the input is of another shape, or leaves one voxel at the lowest level.
        """
        self._check(x)
        sides = x.shape[2:]
        scores = self.scores(_pad(x, self.scales[-1]))
        outputs = [_cut(s, sides, by) for s, by in zip(scores, self.scales, strict=False)]
        return outputs if self.deep_supervision else outputs[0]

    def _check(self, x: Tensor) -> None:
        if x.ndim != 5 or x.shape[1] != self.in_channels:
            raise ValueError(
                f"x has shape {tuple(x.shape)}: (batch, {self.in_channels}, depth, height, width) "
                "is needed; a slice is a volume of depth 1"
            )
        lowest = [-(-side // by) for side, by in zip(x.shape[2:], self.scales[-1], strict=True)]
        if math.prod(lowest) <= 1:
            sides, by = ("×".join(map(str, s)) for s in (x.shape[2:], self.scales[-1]))
            raise ValueError(
                f"x: a volume of {sides} leaves {math.prod(lowest)} voxel at the lowest level, "
                f"whose scale is {by}, and a norm needs two: use a larger patch, fewer levels or "
                "smaller strides"
            )


def _product(a: Sides, b: Sides) -> Sides:
    return a[0] * b[0], a[1] * b[1], a[2] * b[2]


def _pad(x: Tensor, multiples: Sides) -> Tensor:
    """Repeat the border at the end of each side until it is a multiple."""
    missing = [-side % by for side, by in zip(x.shape[2:], multiples, strict=True)]
    if not any(missing):
        return x
    # Of the border, not zeros: those would move the mean and deviation that the norms divide by.
    return functional.pad(x, (0, missing[2], 0, missing[1], 0, missing[0]), mode="replicate")


def _cut(x: Tensor, sides: torch.Size, scale: Sides) -> Tensor:
    """Cut off what padding has added."""
    for axis, (side, by) in enumerate(zip(sides, scale, strict=True)):
        x = x.narrow(axis + 2, 0, -(-side // by))
    return x
