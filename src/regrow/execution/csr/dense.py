"""A convolution with a dense weight, and the gradient of that weight some rows at a time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.grad import conv1d_weight, conv2d_weight, conv3d_weight

__all__ = ["DenseConvolution"]

_CONVOLVE = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_WEIGHT_GRADIENT = {1: conv1d_weight, 2: conv2d_weight, 3: conv3d_weight}


@dataclass(frozen=True)
class DenseConvolution:
    """A convolution without its weight.

    Args:
        shape: of the weight, [out_channels, in_channels / groups, *kernel_size].
        stride: one number an axis.
        pads: zeros before and after each axis.
        dilation: one number an axis.
        groups: of channels.
    """

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Convolve x [batch, in_channels, ...]."""
        x, padding = self._padded(x)
        y: Tensor = _CONVOLVE[len(self.stride)](
            x, weight, bias, self.stride, padding, self.dilation, self.groups
        )
        return y

    def weight_gradient(self, x: Tensor, grad: Tensor, rows: slice) -> Tensor:
        """Compute the gradient of some output channels' weights from that of the output."""
        x, padding = self._padded(x)
        out_channels, inputs, *kernel = self.shape
        first, last, _ = rows.indices(out_channels)
        per_group = out_channels // self.groups
        parts = []
        for group in range(first // per_group, -(-last // per_group)):
            low, high = max(first, group * per_group), min(last, (group + 1) * per_group)
            images = x[:, group * inputs : (group + 1) * inputs]
            parts.append(
                _WEIGHT_GRADIENT[len(kernel)](  # type: ignore[no-untyped-call]
                    images,
                    (high - low, inputs, *kernel),
                    grad[:, low:high],
                    self.stride,
                    padding,
                    self.dilation,
                )
            )
        return torch.cat(parts)

    def _padded(self, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """Return x and the symmetric padding that remains to be done."""
        if all(low == high for low, high in self.pads):
            return x, tuple(low for low, _ in self.pads)
        flat = [n for pad in reversed(self.pads) for n in pad]
        return functional.pad(x, flat), (0,) * len(self.pads)
