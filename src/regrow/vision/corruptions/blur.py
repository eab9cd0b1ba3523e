"""Blur: Gaussian, defocus, zoom, motion, glass."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from regrow.vision.corruptions import linear
from regrow.vision.corruptions.draws import Draws
from regrow.vision.corruptions.modes import ordinary_modes
from regrow.vision.corruptions.severities import Parameters

__all__ = [
    "defocus_blur",
    "gaussian_blur",
    "glass_blur",
    "motion_blur",
    "smeared",
    "smoothed",
    "zoom_blur",
]

_FAINTEST = 1e-4  # parts of a smear below this share of the brightest are left out
_SPECTRAL = 64  # sides up to which matrices are faster than spectra
_JUMPS = 6  # follow chains of 64 copies; a longer one has a chance below 2⁻⁶⁴


def gaussian_blur(images: Tensor, parameters: Parameters, draws: Draws) -> Tensor:
    """Filter with a Gaussian, cut off at four deviations.

    Args:
        images: float32 in [0, 1], shape (n, channels, height, width).
        parameters: its deviation in pixels (σ,).
        draws: nothing is random here.
    """
    return smoothed(images, parameters[0])


def defocus_blur(images: Tensor, parameters: Parameters, draws: Draws) -> Tensor:
    """Filter with a disk whose edge is softened.

    Args:
        images: float32 in [0, 1], shape (n, channels, height, width).
        parameters: (radius, deviation of the softening), in pixels.
        draws: nothing is random here.
    """
    height, width = images.shape[2:]
    if min(height, width) > _SPECTRAL:
        return linear.spectral(images, _disk(*parameters).float(), "mirror")
    return linear.apply(images, *_disk_in_parts(*parameters, height, width))


def zoom_blur(images: Tensor, parameters: Parameters, draws: Draws) -> Tensor:
    """Take the mean of the image and of its enlargements, by 1, 1 + step, … below ``end``.

    Args:
        images: float32 in [0, 1], shape (n, channels, height, width).
        parameters: (end, step).
        draws: nothing is random here.
    """
    end, step = parameters
    return linear.apply(images, *_zooms(end, step, images.shape[2], images.shape[3]))


def motion_blur(images: Tensor, parameters: Parameters, draws: Draws) -> Tensor:
    """Smear each image along a line within 45° of the horizontal.

    Differs from the source: the sets were made by ImageMagick. Here a smear moves by whole
    pixels, as in the package imagecorruptions, and the pixels of the border go on outside.

    Args:
        images: float32 in [0, 1], shape (n, channels, height, width).
        parameters: (radius, σ) as of :func:`smeared`.
        draws: what is random.
    """
    radius, sigma = parameters
    return smeared(images, radius, sigma, draws.uniform(1).squeeze(1) * 90 - 45)


def glass_blur(images: Tensor, parameters: Parameters, draws: Draws) -> Tensor:
    """Copy to each pixel one of its neighbours, several times, between two Gaussian filters.

    The source goes from the last pixel to the first and copies to each a neighbour as it is by
    then (it means to swap the two, but assigns a view). That is a chain of copies, and all chains
    are followed at once here, by doubling: the same distribution, without a sequence.

    Differs from the source: nothing is rounded to bytes after the first filter.

    Args:
        images: float32 in [0, 1], shape (n, channels, height, width).
        parameters: (σ, reach, times): of the filter; how far a neighbour is, from -reach to
            reach - 1 along either axis; how often.
        draws: what is random.
    """
    sigma, reach, times = parameters
    _, channels, height, width = images.shape
    glass = smoothed(images, sigma)
    for _ in range(int(times)):
        source = _copied_from(height, width, int(reach), draws)
        glass = glass.flatten(2).gather(2, source.unsqueeze(1).expand(-1, channels, -1))
        glass = glass.view(images.shape)
    return smoothed(glass, sigma)


def smoothed(images: Tensor, sigma: float) -> Tensor:
    """Filter with a Gaussian, cut off at four deviations; the border's pixels go on outside.

    Args:
        images: shape (n, channels, height, width).
        sigma: its deviation in pixels.
    """
    if sigma < 0.125:  # four deviations do not reach the next pixel
        return images
    height, width = images.shape[2:]
    return linear.apply(images, linear.gaussian(height, sigma), linear.gaussian(width, sigma))


def smeared(images: Tensor, radius: float, sigma: float, degrees: Tensor) -> Tensor:
    """Take the mean along half a line, with weights exp(-i² / 2σ²) for i = 0 … 2 radius.

    Args:
        images: shape (n, channels, height, width).
        radius: half as many pixels as the line has.
        sigma: in pixels.
        degrees: the line's direction in each image, shape (n,).
    """
    n, _, height, width = images.shape
    taps = linear.gaussian_taps(sigma, reach := int(2 * radius))[reach:]
    taps = taps[taps > _FAINTEST * taps[0]]
    reach = len(taps) - 1
    taps /= taps.sum()
    turned = torch.deg2rad(degrees.double())
    steps = torch.arange(reach + 1, device=images.device)
    down, right = ((steps[:, None] * f(turned) - 0.5).ceil().long() for f in (torch.sin, torch.cos))
    padded = functional.pad(images, (reach,) * 4, mode="replicate")
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    every = torch.arange(n, device=images.device)
    smear = images * taps[0].item()
    for tap, y, x in zip(taps.tolist()[1:], down[1:] + reach, right[1:] + reach, strict=True):
        smear.add_(windows[every, :, y, x], alpha=tap)
    return smear


def _copied_from(height: int, width: int, reach: int, draws: Draws) -> Tensor:
    """Return the flat index of the pixel that each pixel comes to show, shape (n, pixels)."""
    pixels = height * width
    shift = draws.integers(-reach, reach, 2, height, width)
    device = shift.device
    rows, columns = (torch.arange(side, device=device) for side in (height, width))
    inside = (
        ((rows > reach) & (rows <= height - reach)).unsqueeze(1)
        & (columns > reach)
        & (columns <= width - reach)
    ).flatten()
    own = torch.arange(pixels, device=device)
    neighbour = own + (shift[:, 0] * width + shift[:, 1]).flatten(1)
    # A neighbour that had its turn shows what was copied to it: the chain goes on there. Others
    # show themselves, which is the end: index + pixels.
    neighbour = torch.where(inside, neighbour, own)
    ends = (neighbour <= own) | ~inside[neighbour]
    following = torch.where(ends, neighbour + pixels, neighbour)
    for _ in range(_JUMPS):
        onwards = following.gather(1, following % pixels)
        following = torch.where(following < pixels, onwards, following)
    return following % pixels


def _disk(radius: float, softening: float) -> Tensor:
    """Return the taps of the disk, a square of an odd side, in float64."""
    reach = 8 if radius <= 8 else int(radius)
    x = torch.arange(-reach, reach + 1)
    disk = (x[:, None] ** 2 + x**2 <= radius**2).double()
    taps = linear.gaussian_taps(softening, 1 if radius <= 8 else 2)
    soften = linear.convolution(taps, len(x), "mirror").double()
    return soften @ (disk / disk.sum()) @ soften.T


@lru_cache(maxsize=32)
@ordinary_modes()
def _disk_in_parts(
    radius: float, softening: float, height: int, width: int
) -> tuple[Tensor, Tensor]:
    """Return the disk as a sum of separable filters: its singular vectors."""
    left, values, right = torch.linalg.svd(_disk(radius, softening))
    kept = int((values > 1e-6 * values[0]).sum())
    left, right = left.T[:kept] * values[:kept, None], right[:kept]
    rows = [linear.convolution(taps.float(), height, "mirror") for taps in left]
    columns = [linear.convolution(taps.float(), width, "mirror") for taps in right]
    return torch.stack(rows), torch.stack(columns)


@lru_cache(maxsize=32)
@ordinary_modes()
def _zooms(end: float, step: float, height: int, width: int) -> tuple[Tensor, Tensor]:
    count = math.ceil((end - 1) / step)
    factors = [1.0] + [1 + i * step for i in range(count)]  # the image itself, once more
    rows = torch.stack([linear.zoom(height, factor) for factor in factors])
    return rows / len(factors), torch.stack([linear.zoom(width, factor) for factor in factors])
