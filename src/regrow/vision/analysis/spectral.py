"""Frequencies of images: which a corruption changes, and which a network needs.

Frequencies are radii of the centred two-dimensional spectrum, √(u² + v²), where u and v are cycles
a pixel along rows and columns in units of the highest that a row can hold (half a cycle a pixel).
The mean of an image is at 0, stripes that alternate at every pixel are at 1, a chessboard is at √2.
In an image of n × n pixels a radius of r is r · n/2 places in the spectrum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, get_args

import torch
from torch import Tensor

from regrow.vision.corruptions import corrupt, corrupt_video
from regrow.vision.corruptions.severities import Table

__all__ = [
    "Pass",
    "high_frequency_share",
    "keep_frequencies",
    "order_by_frequency",
    "radius_accuracy",
]

Pass = Literal["low", "high"]

_AT_ONCE = 256  # channels whose spectra are held at once


def keep_frequencies(images: Tensor, radius: float, pass_: Pass) -> Tensor:
    """Keep the frequencies of images inside a radius, or those outside.

    x' = F⁻¹(F(x) · [ρ ≤ radius])  (low),  x' = F⁻¹(F(x) · [ρ > radius])  (high)

    Low and high add up to the image. Each channel and frame is taken by itself, as periodic.

    Source: Wu et al., ICLR 2025 (arXiv 2410.03030), equations 1-2; read in reviews of the paper.
    Whether its mask is as sharp, and how it counts radii, could not be verified.

    Args:
        images: floats, shape (…, height, width): grey, RGB, clips.
        radius: at least 0, in the unit of this module: at 1 a row is whole, at √2 an image.
        pass_: ``"low"`` or ``"high"``.

    Returns:
        New images of the same shape and dtype. They are not clipped: values leave the range of the
        image's, and without the mean at 0 they lie about 0.

    Raises:
        ValueError: images have no pixels, radius is negative or NaN, or ``pass_`` is unknown.
        TypeError: images are not floats.

    Example:
        >>> stripes = torch.tensor([[[0.25, 0.75, 0.25, 0.75]] * 3])
        >>> keep_frequencies(stripes, 0.5, "low")[0, 0].tolist()
        [0.5, 0.5, 0.5, 0.5]
        >>> keep_frequencies(stripes, 0.5, "high")[0, 0].tolist()
        [-0.25, 0.25, -0.25, 0.25]
    """
    _check_pixels("images", images)
    if not images.is_floating_point():
        raise TypeError(f"images of dtype {images.dtype}: must be floats, such as images / 255")
    _check_mask(radius, pass_)
    if not images.numel():
        return images.clone()
    exact = images if images.dtype == torch.float64 else images.float()
    height, width = images.shape[-2:]
    inside = _radii(height, width, images.device)[:, : width // 2 + 1] <= radius
    kept = torch.fft.rfft2(exact) * (inside if pass_ == "low" else ~inside)
    filtered: Tensor = torch.fft.irfft2(kept, s=(height, width))
    return filtered.to(images.dtype)


def high_frequency_share(images: Tensor, corrupted: Tensor, *, radius: float = 0.5) -> float:
    """Return the share of a corruption's change that lies at high frequencies.

    share = Σ_{ρ > radius} |F(c(x) - x)|² / Σ |F(c(x) - x)|², sums over all images and channels

    White noise has about 1 - π radius² / 4 for a radius up to 1: 0.80 at the default.

    Source: ordering corruptions by it follows Saikia et al., ICCV 2021 (arXiv 2103.16241), as Wu et
    al., ICLR 2025, do. How either measures it, and the radius, could not be verified.

    Args:
        images: floats or uint8, shape (…, height, width).
        corrupted: the same images, corrupted; the same shape and dtype.
        radius: where high frequencies begin, in the unit of this module.

    Returns:
        From 0 to 1.

    Raises:
        ValueError: shapes or dtypes differ, the radius is negative or NaN, a value is not finite,
            or nothing was changed.

    Example:
        >>> image, noise = torch.rand(1, 64, 64), torch.randn(1, 64, 64)
        >>> round(high_frequency_share(image, image + 0.1), 6)
        0.0
        >>> abs(high_frequency_share(image, image + 0.1 * noise) - 0.80) < 0.05
        True
    """
    _check_pixels("images", images)
    _check_mask(radius, "high")
    if images.shape != corrupted.shape or images.dtype != corrupted.dtype:
        raise ValueError(
            f"images are {images.dtype} of shape {tuple(images.shape)}, corrupted "
            f"{corrupted.dtype} of shape {tuple(corrupted.shape)}: must be the same"
        )
    change = corrupted.double() - images.double()
    if not (change != 0).any():
        raise ValueError("corrupted is the same as images: there is no change whose share to tell")
    if not change.isfinite().all():
        raise ValueError("images or corrupted hold NaN or infinity: must be finite")
    height, width = images.shape[-2:]
    # Scaled, so that the square of a small change does not vanish.
    parts = (change / change.abs().max()).reshape(-1, height, width).split(_AT_ONCE)
    power = torch.stack([torch.fft.fft2(part).abs().square().sum(0) for part in parts]).sum(0)
    outside = _radii(height, width, images.device) > radius
    return float((power * outside).sum() / power.sum())


def order_by_frequency(
    names: Iterable[str],
    images: Tensor,
    severity: int,
    *,
    radius: float = 0.5,
    seed: int = 0,
    table: Table | None = None,
) -> dict[str, float]:
    """Sort corruptions by how much of what they change lies at high frequencies.

    Args:
        names: of corruptions, each one of :data:`~regrow.vision.corruptions.catalogue.CORRUPTIONS`
            or :data:`~regrow.vision.corruptions.catalogue.EXTRA`.
        images: what is corrupted, as :func:`~regrow.vision.corruptions.corrupt` takes it; or clips,
            as :func:`~regrow.vision.corruptions.corrupt_video` does.
        severity: from 1 to 5.
        radius: as of :func:`high_frequency_share`.
        seed: of the corruptions.
        table: of the corruptions.

    Returns:
        :func:`high_frequency_share` by name, the highest first; equal ones in the order given.

    Raises:
        ValueError: as ``corrupt``, or a corruption changes nothing in these images.

    Example:
        >>> images = torch.linspace(0, 1, 32).expand(4, 3, 32, 32)
        >>> list(order_by_frequency(["brightness", "gaussian_noise"], images, 3))
        ['gaussian_noise', 'brightness']
    """
    changed = corrupt_video if images.ndim == 5 else corrupt
    shares = {}
    for name in names:
        corrupted = changed(images, name, severity, seed=seed, table=table)
        if torch.equal(corrupted, images):
            raise ValueError(f"{name} changes nothing in these images: leave it out of names")
        shares[name] = high_frequency_share(images, corrupted, radius=radius)
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def radius_accuracy(
    predict: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    radii: Iterable[float],
    pass_: Pass,
    *,
    batch_size: int = 256,
) -> dict[float, float]:
    """Return accuracy on images of which only some frequencies are kept, by radius.

    Source: radius-accuracy curves of Wu et al., ICLR 2025 (arXiv 2410.03030); see
    :func:`keep_frequencies`, also for what could not be verified.

    Args:
        predict: takes a batch of floats like the images, in their range [0, 1], and returns scores,
            shape (n, classes), of which the highest is chosen. It standardizes, if its network was
            trained so; the network is to be in evaluation mode. What was filtered is not clipped.
        images: floats in [0, 1] or uint8, shape (n, …, height, width).
        labels: int64, shape (n,).
        radii: in the unit of this module.
        pass_: ``"low"`` or ``"high"``.
        batch_size: images at once.

    Returns:
        Accuracy, from 0 to 1, by radius, in the order given.

    Raises:
        ValueError: there are no images or radii, not as many labels or scores as images, or a
            radius, ``pass_`` or batch_size is out of range.
        TypeError: images are neither floats nor uint8.

    Example:
        >>> images = torch.tensor([[[[0.25, 0.75] * 4] * 8], [[[0.5] * 8] * 8]])
        >>> striped = lambda x: torch.stack([x.var((1, 2, 3)) - 0.01, 0.01 - x.var((1, 2, 3))], 1)
        >>> radius_accuracy(striped, images, torch.tensor([0, 1]), [0.5, 1.0], "low")
        {0.5: 0.5, 1.0: 1.0}
    """
    radii = list(radii)
    _check_pixels("images", images)
    for radius in radii:
        _check_mask(radius, pass_)
    if not radii or not len(images) or labels.shape != images.shape[:1]:
        raise ValueError(
            f"{len(radii)} radii, images of shape {tuple(images.shape)} and labels of shape "
            f"{tuple(labels.shape)}: there must be some, and a label an image"
        )
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: must be at least 1")
    right = dict.fromkeys(radii, 0)
    with torch.no_grad():
        for start in range(0, len(images), batch_size):
            some = images[start : start + batch_size]
            floats = some.float() / 255 if some.dtype == torch.uint8 else some
            for radius in right:
                scores = predict(keep_frequencies(floats, radius, pass_))
                right[radius] += _count_right(scores, labels[start : start + batch_size])
    return {radius: count / len(images) for radius, count in right.items()}


def _count_right(scores: Tensor, labels: Tensor) -> int:
    if scores.ndim != 2 or len(scores) != len(labels):
        raise ValueError(
            f"predict returns shape {tuple(scores.shape)} for {len(labels)} images: must be "
            "(n, classes)"
        )
    return int((scores.argmax(1) == labels.to(scores.device)).sum())


def _radii(height: int, width: int, device: torch.device) -> Tensor:
    rows, columns = (
        # Quotients of whole numbers, rounded once: a radius of 0.3 is found where it is meant.
        2 * ((torch.arange(n, device=device) + n // 2) % n - n // 2).double() / n
        for n in (height, width)
    )
    return torch.hypot(rows[:, None], columns)


def _check_pixels(argument: str, images: Tensor) -> None:
    if images.ndim < 2 or 0 in images.shape[-2:]:
        raise ValueError(
            f"{argument} of shape {tuple(images.shape)}: must be (…, height, width), some pixels"
        )


def _check_mask(radius: float, pass_: str) -> None:
    if not radius >= 0:
        raise ValueError(f"radius={radius}: must be at least 0; 1 is half a cycle a pixel")
    if pass_ not in get_args(Pass):
        raise ValueError(f"pass_={pass_!r}: must be one of {', '.join(get_args(Pass))}")
