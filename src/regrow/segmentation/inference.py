"""Prediction of whole volumes: a sliding window with Gaussian weights, mirrored at test time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from regrow.segmentation.samples import crop
from regrow.segmentation.segmenter import Sides

__all__ = ["gaussian_weights", "mirrored", "predict_scores", "window_starts"]

_AT_ONCE = 2**18  # voxels: small windows would leave a processor idle

Network = Callable[[Tensor], Tensor | Sequence[Tensor]]


def window_starts(side: int, patch: int, overlap: float) -> list[int]:
    """Return where windows along an axis begin: ⌊patch · (1 - overlap)⌋ apart, the last at the end.

    Example:
        >>> window_starts(10, 4, 0.5), window_starts(3, 4, 0.5)
        ([0, 2, 4, 6], [0])
    """
    step = max(int(patch * (1 - overlap)), 1)
    count = max(-(-(side - patch) // step), 0) + 1
    return [max(min(i * step, side - patch), 0) for i in range(count)]


def gaussian_weights(patch: Sides, sigma: float = 1 / 8) -> Tensor:
    """Return how much each voxel of a window counts: a Gaussian about its centre, at least 0.001.

    Args:
        patch: the window's sides.
        sigma: its standard deviation, as a share of the side.

    Example:
        >>> [round(w, 4) for w in gaussian_weights((1, 1, 3), 1.0).flatten().tolist()]
        [0.946, 1.0, 0.946]
    """
    weights = torch.ones(1)
    for side in patch:
        places = torch.arange(side) - (side - 1) / 2
        axis = torch.exp(-(places**2) / (2 * (sigma * side) ** 2))
        weights = weights[..., None] * axis
    return weights[0].clamp_min(1e-3)


def mirrored(network: Network, axes: Iterable[int]) -> Network:
    """Return a network that gives the mean over all mirrorings of its input.

    Args:
        network: takes (n, channels, depth, height, width).
        axes: 0, 1, 2: depth, height, width; none: the network's own scores.
    """
    axes = tuple(axes)
    ways = [
        [axis + 2 for axis in chosen]
        for count in range(len(axes) + 1)
        for chosen in itertools.combinations(axes, count)
    ]

    def mean(x: Tensor) -> Tensor:
        total = _scores(network(x))
        for way in ways[1:]:
            total = total + _scores(network(x.flip(way))).flip(way)
        return total / len(ways)

    return mean


@torch.no_grad()
def predict_scores(
    network: Network,
    image: Tensor,
    patch: Sides,
    *,
    overlap: float = 0.5,
    mirror: Iterable[int] = (),
    batch: int | None = None,
    device: torch.device | str | None = None,
    tell: Callable[[float], object] = float,
) -> Tensor:
    """Return the class scores of a whole volume.

    Windows of the patch's size slide over it; where they overlap, scores are averaged with
    :func:`gaussian_weights`. A volume smaller than the patch is padded with zeros on both sides.

    Args:
        network: in evaluation mode; of several outputs the first is taken.
        image: shape (channels, depth, height, width); scores are summed where it lies.
        patch: the window's sides.
        overlap: the share of a window's side that the next one covers again, from 0 to below 1.
        mirror: axes along which windows are mirrored, too; each doubles the time.
        batch: windows that the network is given at once; None: as many as have 2¹⁸ voxels.
        device: where the network is; None: where the image is.
        tell: takes the share that is done, from 0 to 1.

    Returns:
        float32, shape (classes, depth, height, width).

    Raises:
        ValueError: an argument is out of range.

    Source: nnU-Net (Isensee et al. 2021); windows, weights and numbers are those of MONAI's
    ``SlidingWindowInferer(mode="gaussian")``.

    Example:
        >>> image = torch.randn(1, 5, 9, 9)
        >>> torch.allclose(predict_scores(lambda x: x, image, (4, 4, 4)), image, atol=1e-6)
        True
    """
    if image.ndim != 4:
        raise ValueError(f"image has shape {tuple(image.shape)}: (channels, d, h, w) is needed")
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap={overlap}: must be at least 0 and below 1")
    network = mirrored(network, mirror)
    batch = batch or max(1, _AT_ONCE // math.prod(patch))
    sides = image.shape[1:]
    size = [max(side, p) for side, p in zip(sides, patch, strict=True)]
    before = [(s - side) // 2 for s, side in zip(size, sides, strict=True)]
    padded = crop(image, (-before[0], -before[1], -before[2]), (size[0], size[1], size[2]))
    starts = [window_starts(s, p, overlap) for s, p in zip(size, patch, strict=True)]
    windows = list(itertools.product(*starts))
    weights = gaussian_weights(patch).to(image.device)
    total: Tensor | None = None
    count = torch.zeros(size, device=image.device)
    for first in range(0, len(windows), batch):
        some = windows[first : first + batch]
        x = torch.stack([crop(padded, (d, h, w), patch) for d, h, w in some])
        for start, scores in zip(some, network(x.to(device or image.device)), strict=True):
            if total is None:
                total = torch.zeros(len(scores), *size, device=image.device)
            box = tuple(slice(s, s + p) for s, p in zip(start, patch, strict=True))
            total[:, *box] += scores.float().to(image.device) * weights
            count[box] += weights
        tell(min(first + batch, len(windows)) / len(windows))
    assert total is not None
    return crop(total / count, (before[0], before[1], before[2]), (sides[0], sides[1], sides[2]))


def _scores(outputs: Tensor | Sequence[Tensor]) -> Tensor:
    return outputs if isinstance(outputs, Tensor) else outputs[0]
