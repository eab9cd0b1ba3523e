"""The corruptions that are known by name, applied to images and to videos."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from regrow.engine.checks import check_integer
from regrow.vision.corruptions.blur import (
    defocus_blur,
    gaussian_blur,
    glass_blur,
    motion_blur,
    zoom_blur,
)
from regrow.vision.corruptions.colour import saturate
from regrow.vision.corruptions.digital import contrast, elastic_transform, pixelate
from regrow.vision.corruptions.draws import Draws
from regrow.vision.corruptions.jpeg import jpeg_compression
from regrow.vision.corruptions.modes import ordinary_modes
from regrow.vision.corruptions.noise import gaussian_noise, impulse_noise, shot_noise, speckle_noise
from regrow.vision.corruptions.severities import (
    Parameters,
    Table,
    check_table,
    parameters,
    table_for,
)
from regrow.vision.corruptions.spatter import spatter
from regrow.vision.corruptions.weather import brightness, fog, frost, snow

__all__ = ["CORRUPTIONS", "EXTRA", "FAMILIES", "check_severity", "corrupt", "corrupt_video"]

Corruption = Callable[[Tensor, Parameters, Draws], Tensor]

_FAMILIES: dict[str, tuple[Corruption, ...]] = {
    "noise": (gaussian_noise, shot_noise, impulse_noise),
    "blur": (defocus_blur, glass_blur, motion_blur, zoom_blur),
    "weather": (snow, frost, fog, brightness),
    "digital": (contrast, elastic_transform, pixelate, jpeg_compression),
}
_EXTRA: tuple[Corruption, ...] = (speckle_noise, gaussian_blur, spatter, saturate)
_FUNCTIONS = {f.__name__: f for functions in (*_FAMILIES.values(), _EXTRA) for f in functions}

FAMILIES: dict[str, tuple[str, ...]] = {
    family: tuple(function.__name__ for function in functions)
    for family, functions in _FAMILIES.items()
}
"""The 15 corruptions of the benchmark, by family."""

CORRUPTIONS: tuple[str, ...] = tuple(name for family in FAMILIES.values() for name in family)
"""The 15 corruptions of the benchmark, in its order."""

EXTRA: tuple[str, ...] = tuple(function.__name__ for function in _EXTRA)
"""The four that the benchmark leaves for validation, one more of each family."""

# Values corrupted at once: what a core's cache holds, and what keeps a GPU busy.
_AT_ONCE = {"cpu": 1 << 18}


def corrupt(
    images: Tensor,
    name: str,
    severity: int,
    *,
    seed: int = 0,
    first: int = 0,
    table: Table | None = None,
) -> Tensor:
    """Corrupt images as those of CIFAR-10-C, Tiny-ImageNet-C and ImageNet-C were.

    What is random depends on the seed, the name, the severity and the image's index alone: not on
    how images are split into batches, nor on the device. (Sums may be rounded otherwise in their
    last bit; a byte may then be the next one.) Nor on what modes torch is in: autocast, inference
    mode, gradients (the result has no graph), the default dtype and device, the precision of
    products.

    Source: Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions
    and Perturbations, ICLR 2019.

    Differs from the source: where a corruption differs from the programs that made the published
    sets, its function says so. ImageNet-C and Tiny-ImageNet-C were then saved as JPEG of quality
    85, which is not done here.

    Args:
        images: floats in [0, 1] or uint8, shape (n, 1 or 3, height, width).
        name: one of :data:`~.catalogue.CORRUPTIONS` or :data:`~.catalogue.EXTRA`.
        severity: from 1 to 5.
        seed: another one, another draw.
        first: index of the first of these images, for one batch of many.
        table: whose parameters are taken: ``"cifar"``, ``"tiny-imagenet"`` or ``"imagenet"``; None:
            those of the set whose images are nearest in size
            (:func:`~regrow.vision.corruptions.severities.table_for`).

    Returns:
        New images of the same shape, dtype and range, on the same device. Bytes are truncated, not
        rounded, as in the published sets.

    Raises:
        ValueError: name, severity or table are unknown, images have another shape or another
            number of channels, or a value is NaN or outside [0, 1].
        TypeError: images are neither floats nor uint8, or ``seed`` or ``first`` is no integer
            (``np.int64(3)`` is 3; ``True`` and ``3.0`` are none).

    Example:
        >>> images = torch.full((2, 3, 32, 32), 0.5)
        >>> noisy = corrupt(images, "gaussian_noise", 3)
        >>> round(float((noisy - images).std()), 2)
        0.08
        >>> torch.equal(noisy[1:], corrupt(images[1:], "gaussian_noise", 3, first=1))
        True
    """
    if images.ndim != 4:
        raise ValueError(
            f"images of shape {tuple(images.shape)}: must be (n, channels, height, width)"
        )
    first = check_integer(first, "first")
    index = torch.arange(first, first + len(images), device=images.device)
    return _corrupted(images, name, severity, seed, index, table)


def corrupt_video(
    clips: Tensor,
    name: str,
    severity: int,
    *,
    seed: int = 0,
    consistent: bool = True,
    first: int = 0,
    table: Table | None = None,
) -> Tensor:
    """Corrupt the frames of clips; otherwise as :func:`corrupt`.

    Args:
        clips: floats in [0, 1] or uint8, shape (n, frames, 1 or 3, height, width).
        name: one of :data:`~.catalogue.CORRUPTIONS` or :data:`~.catalogue.EXTRA`.
        severity: from 1 to 5.
        seed: another one, another draw.
        consistent: all frames of a clip share one draw: the same snow on each of them, the same
            direction of motion. Else each frame has its own.
        first: index of the first of these clips.
        table: as of :func:`corrupt`.

    Raises:
        ValueError: as :func:`corrupt`.
        TypeError: as :func:`corrupt`.

    Example:
        >>> clip = corrupt_video(torch.full((1, 2, 3, 32, 32), 0.5), "fog", 3)
        >>> torch.equal(clip[0, 0], clip[0, 1])
        True
    """
    if clips.ndim != 5:
        raise ValueError(
            f"clips of shape {tuple(clips.shape)}: must be (n, frames, channels, height, width)"
        )
    n, frames = clips.shape[:2]
    count = n if consistent else n * frames
    first = check_integer(first, "first") * (count // max(n, 1))
    index = torch.arange(first, first + count, device=clips.device)
    index = index.repeat_interleave(frames) if consistent else index
    return _corrupted(clips.flatten(0, 1), name, severity, seed, index, table).view(clips.shape)


def check_severity(severity: int) -> int:
    """Return a severity as Python's own integer.

    Args:
        severity: must be an integer from 1 to 5, of any type.

    Raises:
        ValueError: it is not.
    """
    try:
        number = check_integer(severity, "severity")
    except TypeError:
        number = 0
    if number not in range(1, 6):
        raise ValueError(f"severity={severity!r}: must be an integer from 1 to 5")
    return number


def _corrupted(
    images: Tensor, name: str, severity: int, seed: int, index: Tensor, table: Table | None
) -> Tensor:
    if name not in _FUNCTIONS:
        raise ValueError(f"name={name!r}: must be one of {', '.join(_FUNCTIONS)}")
    severity, seed = check_severity(severity), check_integer(seed, "seed")
    images = images.detach()
    _check_images(images)
    height, width = images.shape[2:]
    table = table_for(height, width) if table is None else table
    check_table(table)
    strength = parameters(table, name, severity)
    budget = _AT_ONCE.get(images.device.type, 1 << 25)
    at_once = max(budget // images[:1].numel(), 1) if len(images) else 1
    with ordinary_modes(images.device):
        changed = torch.empty_like(images, memory_format=torch.contiguous_format)
        for start in range(0, len(images), at_once):
            some = slice(start, start + at_once)
            draws = Draws((seed, name, severity), index[some])
            floats = _as_floats(images[some])
            changed[some] = _as_given(_FUNCTIONS[name](floats, strength, draws), images.dtype)
    return changed


def _check_images(images: Tensor) -> None:
    if images.shape[1] not in (1, 3) or 0 in images.shape[2:]:
        raise ValueError(
            f"images of shape {tuple(images.shape)}: must have 1 or 3 channels and some pixels"
        )
    if images.dtype == torch.uint8:
        return
    if not images.is_floating_point():
        raise TypeError(f"images of dtype {images.dtype}: must be floats in [0, 1] or uint8")
    if images.numel():
        low, high = (float(end) for end in images.aminmax())
        if not (low >= 0 and high <= 1):
            raise ValueError(
                f"images have values from {low:g} to {high:g}: must be in [0, 1], none NaN; scale "
                "them, and standardize after corrupting"
            )


def _as_floats(images: Tensor) -> Tensor:
    floats = images.to(torch.float32).contiguous()
    return floats / 255 if images.dtype == torch.uint8 else floats


def _as_given(changed: Tensor, dtype: torch.dtype) -> Tensor:
    if dtype != torch.uint8:
        return changed.clamp(0, 1).to(dtype)
    return (changed * 255 + 1e-3).clamp_(0, 255).to(dtype)  # 1e-3: whole numbers stay what they are
