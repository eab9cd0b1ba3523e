"""Networks of an agent that sees: an encoder of images; projections, actor, critics on it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Actor", "Critic", "Encoder", "aligned", "convolved", "encoded_side", "initialise_"]

_LOWEST, _HIGHEST = -10.0, 2.0  # of the logarithm of the actor's deviation


class Encoder(nn.Module):
    """Convolutions of 3×3 without padding: the first of stride 2, ReLU between, none at the end.

    Args:
        channels: of the input, 3 for each frame.
        layers: of convolutions.
        filters: of each.

    Example:
        >>> Encoder(9, 11, 32)(torch.zeros(1, 9, 84, 84)).shape
        torch.Size([1, 14112])

    Source: MaDi (AAMAS 2024, arXiv 2312.15339); SODA (arXiv 2011.13389).
    """

    def __init__(self, channels: int, layers: int, filters: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, filters, 3, stride=2)
        self.others = nn.ModuleList(nn.Conv2d(filters, filters, 3) for _ in range(layers - 1))

    def forward(self, images: Tensor) -> Tensor:
        """Return features, (B, filters · side²), of images in 0..1, (B, channels, H, W)."""
        x = convolved(self.first, images)
        for layer in self.others:
            x = layer(functional.relu(x))
        features: Tensor = x.flatten(1)
        return features


def convolved(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """Return a convolution of images, as fast as the device computes it."""
    if x.is_cuda and x.dtype == torch.bfloat16:
        return aligned(layer, x)
    out: Tensor = layer(x)
    return out


def aligned(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """Return a convolution, computed with channels of zeros up to a multiple of 8.

    Tensor cores take 8 at a time: 3 channels, or 1, fit none of their tiles.
    """
    out, into = layer.weight.shape[:2]
    more, wide = -out % 8, -into % 8
    x = functional.pad(x, (0, 0, 0, 0, 0, wide))
    if x.is_cuda:
        x = x.contiguous(memory_format=torch.channels_last)
    weight = functional.pad(layer.weight, (0, 0, 0, 0, 0, wide, 0, more))
    bias = None if layer.bias is None else functional.pad(layer.bias, (0, more))
    padding = layer.padding if not isinstance(layer.padding, str) else 0
    return functional.conv2d(x, weight, bias, layer.stride, padding)[:, :out]


def encoded_side(size: int, layers: int) -> int:
    """Return the side of what an encoder makes of a square image; none if it is below 1.

    Example:
        >>> encoded_side(84, 11), encoded_side(32, 4)
        (21, 9)
    """
    return (size - 3) // 2 + 1 - 2 * (layers - 1)


class Projection(nn.Module):
    """Linear, LayerNorm, tanh."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(features, width), nn.LayerNorm(width)

    def forward(self, features: Tensor) -> Tensor:
        """Return (B, width) in −1..1."""
        return torch.tanh(self.norm(self.linear(features)))


def _perceptron(inputs: int, width: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
        nn.Linear(width, outputs),
    )  # fmt: skip


class Actor(nn.Module):
    """The mean and the logarithm of the deviation of actions, before tanh.

    Args:
        features: of the encoder.
        actions: numbers in an action.
        projection: width of the projection.
        width: of two hidden layers.
    """

    def __init__(self, features: int, actions: int, projection: int, width: int) -> None:
        super().__init__()
        self.projection = Projection(features, projection)
        self.net = _perceptron(projection, width, 2 * actions)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return both, float32, (B, actions); the second lies in −10..2."""
        mean, log_std = self.net(self.projection(features)).float().chunk(2, 1)
        half = (_HIGHEST - _LOWEST) / 2
        return mean, _LOWEST + half * (torch.tanh(log_std) + 1)


class Critic(nn.Module):
    """Two values of an action, from one projection.

    Args:
        features: of the encoder.
        actions: numbers in an action.
        projection: width of the projection.
        width: of two hidden layers.
    """

    def __init__(self, features: int, actions: int, projection: int, width: int) -> None:
        super().__init__()
        self.projection = Projection(features, projection)
        self.q1 = _perceptron(projection + actions, width, 1)
        self.q2 = _perceptron(projection + actions, width, 1)

    def forward(self, features: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Return both values, float32, (B, 1)."""
        x = torch.cat([self.projection(features), actions], 1)
        return self.q1(x).float(), self.q2(x).float()


@torch.no_grad()
def initialise_(module: nn.Module, generator: torch.Generator) -> None:
    """Make linear layers orthogonal, and convolutions delta-orthogonal; biases become 0.

    Args:
        module: whose layers are drawn anew.
        generator: draws them.

    Source: Xiao et al. 2018 (arXiv 1806.05393): a convolution is orthogonal, times √2, at the
    centre of its kernel, and 0 elsewhere.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.orthogonal_(layer.weight, generator=generator)
        elif isinstance(layer, nn.Conv2d):
            layer.weight.zero_()
            middle = layer.weight.shape[2] // 2
            nn.init.orthogonal_(
                layer.weight[:, :, middle, middle], math.sqrt(2), generator=generator
            )
        else:
            continue
        assert layer.bias is not None
        layer.bias.zero_()
