"""Random changes to a batch of images or clips, in tensor code on their device.

What is random is drawn from the generator given, on its device: with a CPU generator the changes
are the same wherever the images are. All frames of a clip are changed alike. Images may be bytes
or floats. Padding with zeros is black in bytes, and the mean colour in standardized images.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from regrow.vision.data.boxes import random_boxes

__all__ = [
    "STANDARD",
    "crop_and_flip",
    "random_crop",
    "random_flip",
    "random_resized_crop",
    "random_roll",
    "standard",
]


def random_crop(
    images: Tensor,
    generator: torch.Generator,
    padding: int = 4,
    mode: Literal["zeros", "reflect"] = "zeros",
) -> Tensor:
    """Pad each image on all sides and cut its size out again, anywhere.

    Args:
        images: shape (n, channels, height, width), or clips (n, channels, frames, height, width).
        generator: what is random.
        padding: pixels on each side, at least 0.
        mode: what to pad with: zeros, or the image mirrored at its outermost pixels.

    Returns:
        Images of the same shape.

    Raises:
        ValueError: the padding is negative, or too wide to mirror; the mode is unknown; these are
            no images.

    Example:
        >>> image = torch.ones(1, 1, 2, 2)
        >>> random_crop(image, torch.Generator().manual_seed(0), padding=1)[0, 0].tolist()
        [[0.0, 1.0], [0.0, 0.0]]
    """
    n, height, width = _shape(images)
    if padding < 0:
        raise ValueError(f"padding={padding}: must be at least 0")
    padded = _pad(images, padding, mode)
    down, right = torch.randint(
        2 * padding + 1, (2, n), generator=generator, device=generator.device
    ).to(images.device)
    windows = padded.unfold(-2, height, 1).unfold(-2, width, 1)
    windows = windows.movedim((-4, -3), (1, 2))
    return windows[torch.arange(n, device=images.device), down, right]


def random_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image left to right, or not, with equal chance.

    Args:
        images: shape (n, channels, height, width), or clips (n, channels, frames, height, width).
        generator: what is random.

    Raises:
        ValueError: these are no images.

    Example:
        >>> image = torch.tensor([[[[1, 2]]]]).expand(3, 1, 1, 2)
        >>> random_flip(image, torch.Generator().manual_seed(0)).flatten(1).tolist()
        [[2, 1], [1, 2], [2, 1]]
    """
    n = _shape(images)[0]
    flip = torch.rand(n, generator=generator, device=generator.device) < 0.5
    flip = flip.to(images.device).view(n, *(1,) * (images.ndim - 1))
    return torch.where(flip, images.flip(-1), images)


def random_roll(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shift each image by any number of pixels: what leaves on one side comes in on the other.

    Args:
        images: shape (n, channels, height, width), or clips (n, channels, frames, height, width).
        generator: what is random.

    Raises:
        ValueError: these are no images.

    Example:
        >>> image = torch.arange(4).view(1, 1, 1, 4)
        >>> random_roll(image, torch.Generator().manual_seed(1)).flatten().tolist()
        [1, 2, 3, 0]
    """
    n, height, width = _shape(images)
    shift = torch.rand(2, n, 1, generator=generator, device=generator.device).to(images.device)
    rows, columns = (
        (torch.arange(side, device=images.device) + (side * part).long()) % side
        for side, part in zip((height, width), shift, strict=True)
    )
    each = torch.arange(n, device=images.device).view(n, 1, 1)
    first = images.movedim((-2, -1), (1, 2))
    return first[each, rows.unsqueeze(2), columns.unsqueeze(1)].movedim((1, 2), (-2, -1))


def random_resized_crop(
    images: Tensor,
    generator: torch.Generator,
    size: int | None = None,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Tensor:
    """Cut a box out of each image and resize it, bilinearly.

    Boxes are those of :func:`~regrow.vision.data.boxes.random_boxes`. Nothing is smoothed before a
    box is made smaller, so images should not be several times larger than ``size``.

    Args:
        images: shape (n, channels, height, width).
        generator: what is random.
        size: side of the square returned; None keeps height and width.
        scale: least and greatest share of the image's area.
        ratio: least and greatest width over height.

    Returns:
        Images of the same dtype; bytes are rounded.

    Raises:
        ValueError: scale or ratio are no ranges above 0, size is below 1, or these are no images.

    Example:
        >>> image = torch.full((1, 3, 8, 8), 7, dtype=torch.uint8)
        >>> random_resized_crop(image, torch.Generator(), size=4).unique().tolist()
        [7]
    """
    n, height, width = _shape(images, clips=False)
    if size is not None and size < 1:
        raise ValueError(f"size={size}: must be at least 1")
    boxes = random_boxes(n, height, width, generator, scale, ratio).to(images.device)
    top, left, tall, wide = boxes.unsqueeze(2).float().unbind(1)
    grid = torch.empty(n, size or height, size or width, 2, device=images.device)
    grid[..., 0] = _places(left, wide, grid.shape[2], width).unsqueeze(1)
    grid[..., 1] = _places(top, tall, grid.shape[1], height).unsqueeze(2)
    resized = functional.grid_sample(images.float(), grid, align_corners=True)
    return (resized if images.is_floating_point() else resized.round()).to(images.dtype)


def crop_and_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Crop at random after padding with 4 zeros, and flip: usual for CIFAR and Tiny-ImageNet.

    Args:
        images: shape (n, channels, height, width).
        generator: what is random.
    """
    return random_flip(random_crop(images, generator), generator)


STANDARD: dict[str, Callable[[Tensor, torch.Generator], Tensor] | None] = {
    "digits": None,
    "fashion-mnist": None,
    "cifar10": crop_and_flip,
    "cifar100": crop_and_flip,
    "tiny-imagenet": crop_and_flip,
    "higgs": None,
    "moving-fashion": random_roll,  # a mirrored clip would show another action
}
"""The usual augmentation of each data set, or None."""


def standard(name: str) -> Callable[[Tensor, torch.Generator], Tensor] | None:
    """Return what is usually done to the training images of a data set; None: nothing.

    Args:
        name: of the data set.

    Raises:
        ValueError: the name is unknown.

    Example:
        >>> standard("cifar10").__name__
        'crop_and_flip'
    """
    if name not in STANDARD:
        raise ValueError(f"data={name!r}: must be one of {', '.join(STANDARD)}")
    return STANDARD[name]


def _shape(images: Tensor, clips: bool = True) -> tuple[int, int, int]:
    if images.ndim != 4 and not (clips and images.ndim == 5):
        wanted = "(n, channels, height, width)"
        wanted += ", or (n, channels, frames, height, width)" if clips else ""
        raise ValueError(f"images of shape {tuple(images.shape)}: must be {wanted}")
    return len(images), images.shape[-2], images.shape[-1]


def _pad(images: Tensor, padding: int, mode: str) -> Tensor:
    if mode == "zeros":
        return functional.pad(images, (padding,) * 4)
    if mode != "reflect":
        raise ValueError(f"mode={mode!r}: must be 'zeros' or 'reflect'")
    height, width = images.shape[-2:]
    if padding >= min(height, width):
        raise ValueError(
            f"padding={padding}: must be below {min(height, width)} to mirror {height}×{width}"
        )
    rows, columns = (_mirrored(side, padding, images.device) for side in (height, width))
    return images[..., rows, :][..., columns]  # torch's own reflection knows no bytes


def _mirrored(side: int, padding: int, device: torch.device) -> Tensor:
    places = torch.arange(-padding, side + padding, device=device).abs()
    return side - 1 - (side - 1 - places).abs()


def _places(start: Tensor, length: Tensor, count: int, side: int) -> Tensor:
    """Return where a box is sampled, shape (n, count), as fractions of -1..1 between end pixels."""
    steps = torch.arange(count, device=start.device)
    inside = ((steps + 0.5) * length / count - 0.5).clamp(min=0)
    inside = torch.minimum(inside, length - 1)  # not the pixels beside the box
    return 2 * (start + inside) / max(side - 1, 1) - 1
