"""What encoders learn beside the critic's loss: SODA's and SGQN's networks and losses."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from regrow.control.pixels.networks import Critic, Encoder, initialise_

__all__ = ["Attribution", "Soda", "attribution_mask", "guided_gradient", "kept_apart"]


def _normed(inputs: int, width: int) -> nn.Sequential:
    # Statistics are those of a batch, in training and after: nothing is averaged.
    norm = nn.BatchNorm1d(width, track_running_stats=False)
    return nn.Sequential(nn.Linear(inputs, width), norm, nn.ReLU(), nn.Linear(width, width))


class Soda(nn.Module):
    """Foresee, from an augmented image, what a slowly moving encoder makes of the plain one.

    loss = mean (ĝ/‖ĝ‖ − g'/‖g'‖)² with ĝ the prediction and g' the target's projection.

    Args:
        features: of the encoder.
        width: of the projection and its prediction.
        generator: draws the weights.

    Source: Hansen and Wang 2021 (arXiv 2011.13389).
    """

    def __init__(self, features: int, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.projection, self.prediction = _normed(features, width), _normed(width, width)
        initialise_(self, generator)
        self.target = copy.deepcopy(self.projection).requires_grad_(False)

    def learnt(self) -> list[nn.Parameter]:
        """Return what the loss trains here; the encoder comes in addition."""
        return [*self.projection.parameters(), *self.prediction.parameters()]

    def forward(self, augmented: Tensor, plain: Tensor) -> Tensor:
        """Return the loss.

        Args:
            augmented: features of the encoder, (B, features).
            plain: features of the target encoder, of other images of the same frames.
        """
        foreseen = functional.normalize(self.prediction(self.projection(augmented)).float(), dim=1)
        with torch.no_grad():
            wanted = functional.normalize(self.target(plain).float(), dim=1)
        return functional.mse_loss(foreseen, wanted)


class Attribution(nn.Module):
    """Foresee, from an augmented image and an action, the pixels that the value hangs on.

    Args:
        channels: of an observation.
        size: of its sides.
        side: of what the encoder makes of it.
        filters: of the encoder.
        inputs: numbers of the projection and the action together.

    Source: Bertoin et al. 2022, SGQN (arXiv 2209.09203).
    """

    def __init__(self, channels: int, size: int, side: int, filters: int, inputs: int) -> None:
        super().__init__()
        self.size, self.side, self.filters = size, side, filters
        self.spread = nn.Linear(inputs, filters * side * side)
        widths = (4 * filters, 2 * filters, channels)
        self.first = nn.Conv2d(filters, widths[0], 3, padding=1)
        self.second = nn.Conv2d(widths[0], widths[1], 3, padding=1)
        self.last = nn.Conv2d(widths[1], widths[2], 3, padding=1)

    def forward(self, projected: Tensor, actions: Tensor) -> Tensor:
        """Return logits, (B, channels, size, size)."""
        x = self.spread(torch.cat([projected, actions], 1))
        x = self.first(functional.relu(x.view(-1, self.filters, self.side, self.side)))
        half = max(self.side, self.size // 2)
        x = functional.relu(functional.interpolate(x, size=half))
        x = functional.interpolate(self.second(x), size=self.size)
        out: Tensor = self.last(functional.relu(x))
        return out


class _GuidedReLU(torch.autograd.Function):
    """ReLU through which only positive gradients go back (Springenberg et al. 2015)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        out = x.relu()
        ctx.save_for_backward(out)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (out,) = ctx.saved_tensors
        back: Tensor = gradients[0].clamp(min=0) * (out > 0)
        return back


def guided_gradient(encoder: Encoder, critic: Critic, images: Tensor, actions: Tensor) -> Tensor:
    """Return the gradient of the first value by the images, by guided backpropagation."""
    guided = _GuidedReLU.apply
    with torch.enable_grad():
        seen = images.detach().requires_grad_()
        x = encoder.first(seen)
        for layer in encoder.others:
            x = layer(guided(x))  # type: ignore[no-untyped-call]
        x = torch.cat([critic.projection(x.flatten(1)), actions], 1)
        for layer in critic.q1:
            x = guided(x) if isinstance(layer, nn.ReLU) else layer(x)  # type: ignore[no-untyped-call]
        (gradient,) = torch.autograd.grad(x.sum(), seen)
    return gradient


def kept_apart(pixels: int, quantile: float) -> int:
    """Return how many of the pixels are at the quantile or above.

    Example:
        >>> kept_apart(84 * 84, 0.95), kept_apart(100, 0.0)
        (353, 100)
    """
    return pixels - math.ceil(quantile * (pixels - 1))


def attribution_mask(gradient: Tensor, quantile: float) -> Tensor:
    """Return the pixels of every frame whose gradient is at the quantile or above.

    Args:
        gradient: (B, 3 · frames, H, W); of the three colours the largest counts.
        quantile: in 0..1.

    Returns:
        bool, (B, 3 · frames, H, W), alike in the three colours.
    """
    b, c, *size = gradient.shape
    strength = gradient.reshape(b, c // 3, 3, *size).abs().amax(2)
    kept = kept_apart(strength[0, 0].numel(), quantile)
    least = strength.flatten(2).topk(kept, 2).values[..., -1]
    return (strength >= least[..., None, None]).repeat_interleave(3, 1)
