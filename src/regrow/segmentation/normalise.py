"""Normalises intensities as nnU-Net does: CT by its data set, magnetic resonance by each image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Normalisation", "channel_of", "foreground_channel", "normalise"]

Image = npt.NDArray[np.float32]

_SCHEMES = ("ct", "zscore", "nonorm", "rescale_to_0_1", "rgb_to_0_1")
_SMALLEST = 1e-8  # a deviation to divide by


@dataclass(frozen=True)
class Normalisation:
    """How one channel is normalised.

    Args:
        scheme: ``ct``: clip to low and high, then (x - mean) / deviation, of the foreground of the
            training set; ``zscore``: (x - mean) / deviation of the image itself; ``nonorm``:
            nothing; ``rescale_to_0_1``: by the image's smallest and largest value; ``rgb_to_0_1``:
            x / 255.
        low: 0.5 % of the foreground are below it.
        high: 0.5 % of the foreground are above it.
        mean: of the foreground.
        deviation: of the foreground.

    Raises:
        ValueError: there is no such scheme.
    """

    scheme: str
    low: float = -np.inf
    high: float = np.inf
    mean: float = 0.0
    deviation: float = 1.0

    def __post_init__(self) -> None:
        if self.scheme not in _SCHEMES:
            raise ValueError(f"scheme={self.scheme!r}: must be one of {', '.join(_SCHEMES)}")


def channel_of(name: str) -> str:
    """Return the scheme of a channel by its name, as nnU-Net does: what is no CT is z-scored.

    Example:
        >>> channel_of("CT"), channel_of("T1"), channel_of("noNorm")
        ('ct', 'zscore', 'nonorm')
    """
    return name.casefold() if name.casefold() in _SCHEMES else "zscore"


def foreground_channel(name: str, foreground: Sequence[npt.NDArray[Any]]) -> Normalisation:
    """Return how a channel is normalised, given intensities of the foreground of each case.

    Args:
        name: of the channel.
        foreground: samples a case; needed for CT only.

    Raises:
        ValueError: it is CT, and no case has any foreground.
    """
    scheme = channel_of(name)
    if scheme != "ct":
        return Normalisation(scheme)
    values = np.concatenate([np.empty(0), *foreground])
    if not values.size:
        raise ValueError(
            "labels: no training case has any foreground, by which CT is normalised: give labelled "
            "cases, or call the channel something else than CT"
        )
    low, high = np.percentile(values, (0.5, 99.5))
    return Normalisation(scheme, float(low), float(high), float(values.mean()), float(values.std()))


def normalise(
    image: Image, channels: Sequence[Normalisation], mask: npt.NDArray[np.bool_] | None = None
) -> Image:
    """Normalise each channel; the image that was given stays as it is.

    Args:
        image: (channels, depth, height, width).
        channels: how each is.
        mask: (depth, height, width): z-scores are of these voxels only, and the others stay as they
            are, 0 where the mask is of nonzero voxels; None: of all.

    Example:
        >>> image = np.arange(8, dtype=np.float32).reshape(1, 2, 2, 2)
        >>> normalise(image, [Normalisation("ct", 1, 6, 3.5, 2.0)])[0, :, 0, 0].tolist()
        [-1.25, 0.25]
    """
    return np.stack(
        [_normalised(x, channel, mask) for x, channel in zip(image, channels, strict=True)]
    )


def _normalised(x: Image, channel: Normalisation, mask: npt.NDArray[np.bool_] | None) -> Image:
    if channel.scheme == "ct":
        shifted = x.clip(channel.low, channel.high) - channel.mean
        return (shifted / max(channel.deviation, _SMALLEST)).astype(np.float32)
    if channel.scheme == "zscore":
        inside = x if mask is None else x[mask]
        mean, deviation = inside.mean(dtype=np.float64), inside.std(dtype=np.float64)
        scored = ((x - mean) / max(deviation, _SMALLEST)).astype(np.float32)
        return scored if mask is None else np.where(mask, scored, x)
    if channel.scheme == "rescale_to_0_1":
        low, high = float(x.min()), float(x.max())
        return ((x - low) / max(high - low, _SMALLEST)).astype(np.float32)
    return x / np.float32(255) if channel.scheme == "rgb_to_0_1" else x.copy()
