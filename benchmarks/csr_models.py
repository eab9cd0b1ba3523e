"""Models for benchmarks of sparse layers: an MLP and CIFAR's ResNet-20, dense or sparse."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

from regrow.execution.csr.conv import CsrConv2d
from regrow.execution.csr.linear import CsrLinear
from regrow.execution.csr.norm import BatchNorm2d

__all__ = ["ResNet20", "mlp", "nonzeros", "sparse_conv", "sparse_linear"]


def nonzeros(shape: tuple[int, ...], density: float) -> tuple[Tensor, Tensor]:
    """Draw positions without order, and values for them as He would scale them."""
    positions = (torch.rand(torch.Size(shape).numel()) < density).nonzero().flatten()
    fan_in = density * torch.Size(shape[1:]).numel()
    return positions, torch.randn(len(positions)) * (2 / fan_in) ** 0.5


def sparse_linear(inputs: int, outputs: int, density: float, activation: str | None) -> nn.Module:
    positions, values = nonzeros((outputs, inputs), density)
    return CsrLinear(
        inputs, outputs, positions, values, torch.zeros(outputs), activation=activation
    )


def sparse_conv(inputs: int, outputs: int, kernel: int, stride: int, density: float) -> nn.Module:
    positions, values = nonzeros((outputs, inputs, kernel, kernel), density)
    pad = kernel // 2
    return CsrConv2d(inputs, outputs, kernel, positions, values, stride=stride, padding=pad)


def mlp(sizes: list[int], density: float | None) -> nn.Sequential:
    """A ReLU network; None is dense. The sparse head has all its weights, in a sparse layer."""
    layers: list[nn.Module] = []
    pairs = list(itertools.pairwise(sizes))
    for inputs, outputs in pairs[:-1]:
        if density is None:
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        else:
            layers.append(sparse_linear(inputs, outputs, density, "relu"))
    inputs, outputs = pairs[-1]
    head = nn.Linear(inputs, outputs)
    layers.append(head if density is None else sparse_linear(inputs, outputs, 1.0, None))
    return nn.Sequential(*layers)


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, density: float | None) -> None:
        super().__init__()
        self.conv1 = conv(inputs, outputs, 3, stride, density)
        self.conv2 = conv(outputs, outputs, 3, 1, density)
        self.norm1, self.norm2 = norm(outputs, density), norm(outputs, density)
        same = stride == 1 and inputs == outputs
        self.shortcut = None if same else conv(inputs, outputs, 1, stride, density)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return functional.relu(y + (x if self.shortcut is None else self.shortcut(x)))


def conv(inputs: int, outputs: int, kernel: int, stride: int, density: float | None) -> nn.Module:
    if density is None:
        return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return sparse_conv(inputs, outputs, kernel, stride, 1.0 if inputs == 3 else density)


def norm(channels: int, density: float | None) -> nn.Module:
    return nn.BatchNorm2d(channels) if density is None else BatchNorm2d(channels)


class ResNet20(nn.Sequential):
    """Three stages of three blocks at widths (w, 2w, 4w); first convolution and head keep all."""

    def __init__(self, width: int, density: float | None) -> None:
        widths = [width, width, width, width] + [2 * width] * 3 + [4 * width] * 3
        blocks = [Block(a, b, 2 if a != b else 1, density) for a, b in itertools.pairwise(widths)]
        super().__init__(
            conv(3, width, 3, 1, density),
            norm(width, density),
            nn.ReLU(),
            *blocks,
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4 * width, 10),
        )
