"""Noise: Gaussian, shot, impulse, speckle."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from regrow.vision.corruptions.draws import WORDS, Draws
from regrow.vision.corruptions.modes import ordinary_modes
from regrow.vision.corruptions.severities import Parameters

__all__ = ["gaussian_noise", "impulse_noise", "poisson_quantiles", "shot_noise", "speckle_noise"]

_STEPS = 4096  # quantiles of each Poisson distribution
_RATES = 256


def gaussian_noise(images: Tensor, parameters: Parameters, draws: Draws) -> Tensor:
    """Add normal noise: x + σ z.

    Args:
        images: float32 in [0, 1], shape (n, channels, height, width).
        parameters: (σ,).
        draws: what is random.
    """
    return draws.normal(*images.shape[1:]).mul_(parameters[0]).add_(images)


def shot_noise(images: Tensor, parameters: Parameters, draws: Draws) -> Tensor:
    """Count photons: Poisson(λ x) / λ.

    Differs from the source: x is rounded to the 256 values of a byte, and the distribution to 4096
    equally likely values.

    Args:
        images: float32 in [0, 1], shape (n, channels, height, width).
        parameters: (λ,): how many photons make white.
        draws: what is random.
    """
    (photons,) = parameters
    quantiles = poisson_quantiles(photons, images.device)
    drawn = draws.words(*images.shape[1:]).bitwise_right_shift_(4)
    drawn += (images * (_RATES - 1)).round_().long().mul_(_STEPS)
    return torch.take(quantiles, drawn)


def impulse_noise(images: Tensor, parameters: Parameters, draws: Draws) -> Tensor:
    """Make a share of all values black or white, half of them each.

    Args:
        images: float32 in [0, 1], shape (n, channels, height, width).
        parameters: the share (p,).
        draws: what is random.
    """
    share = round(parameters[0] * WORDS)
    words = draws.words(*images.shape[1:])
    salt = (words < share // 2).to(images.dtype)
    return torch.where(words < share, salt, images)


def speckle_noise(images: Tensor, parameters: Parameters, draws: Draws) -> Tensor:
    """Multiply by normal noise: x + σ x z.

    Args:
        images: float32 in [0, 1], shape (n, channels, height, width).
        parameters: (σ,).
        draws: what is random.
    """
    return draws.normal(*images.shape[1:]).mul_(parameters[0]).add_(1).mul_(images)


@lru_cache(maxsize=32)
@ordinary_modes()
def poisson_quantiles(photons: float, device: torch.device) -> Tensor:
    """Return k / λ for quantiles k of the Poisson distributions with means λ i / 255.

    Args:
        photons: λ.
        device: where they are needed.

    Returns:
        float32, shape (256 · 4096,): 4096 for each i.

    Example:
        >>> table = poisson_quantiles(60.0, torch.device("cpu")).view(256, 4096)
        >>> float(table[0].max()), round(float(table[255].mean()), 3)
        (0.0, 1.0)
    """
    rates = torch.arange(_RATES, dtype=torch.float64).unsqueeze(1) * photons / (_RATES - 1)
    counts = torch.arange(int(photons + 10 * photons**0.5 + 10), dtype=torch.float64)
    logarithms = torch.xlogy(counts, rates) - rates - torch.lgamma(counts + 1)
    below = logarithms.exp().cumsum(1)
    steps = (torch.arange(_STEPS, dtype=torch.float64) + 0.5) / _STEPS
    quantiles = torch.searchsorted(below, steps.expand(_RATES, -1).contiguous())
    return (quantiles.double() / photons).float().flatten().to(device)
