"""The strong augmentation of an agent, with the numbers that are drawn for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from regrow.control.draws import RunDraws
from regrow.control.pixels.images import overlay, random_convolution, resized_crops, splice
from regrow.control.pixels.setting import Augmentation
from regrow.data.pictures import is_image, open_rgb, shorter_side

__all__ = ["Augment", "read_photos"]

_SIDE = 128  # of photographs, as they are kept


class Augment:
    """Augments images strongly.

    Args:
        kind: overlay, conv, splice or none; auto: overlay if there are photographs, else conv.
        photos: squares, uint8, (N, 3, S, S).
        share: of the photograph, in overlays.
        seed: of what is drawn.
        device: where.

    Attributes:
        kind: the one that it is.

    Raises:
        ValueError: photographs are needed and there are none, or they are of another shape.
    """

    def __init__(
        self,
        kind: Augmentation,
        photos: Tensor | None,
        share: float,
        seed: int,
        device: torch.device,
    ) -> None:
        self.kind = kind if kind != "auto" else "conv" if photos is None else "overlay"
        self.share = share
        if self.kind in ("overlay", "splice"):
            if photos is None:
                raise ValueError(
                    f"augmentation={self.kind!r} needs photos: name a folder of them, or take "
                    "augmentation='conv'"
                )
            _check_photos(photos)
        self.photos = None if photos is None else photos.to(device)
        self.draws = {
            name: RunDraws([seed], f"augmentation: {name}", device)
            for name in ("pictures", "kernels")
        }

    def __call__(self, images: Tensor) -> Tensor:
        """Return an augmented copy of images in 0..1, (B, 3 · frames, H, W)."""
        if self.kind == "none":
            return images
        if self.kind == "conv":
            kernels = self.draws["kernels"].normal(len(images), 3, 3, 3, 3)[0]
            return random_convolution(images, kernels)
        assert self.photos is not None
        drawn = self.draws["pictures"].uniform(len(images), 6)[0]
        with torch.autocast(images.device.type, enabled=False):  # places need float32
            pictures = resized_crops(self.photos, drawn, images.shape[-1])
        if self.kind == "splice":
            return splice(images, pictures)
        return overlay(images, pictures, self.share)


def _check_photos(photos: Tensor) -> None:
    right = photos.ndim == 4 and photos.shape[1] == 3 and photos.shape[2] == photos.shape[3]
    if photos.dtype != torch.uint8 or not right or not len(photos):
        raise ValueError(
            f"photos: {photos.dtype} of shape {tuple(photos.shape)}; uint8 squares are needed, "
            "(N, 3, S, S)"
        )


def read_photos(folder: Path, side: int = _SIDE) -> Tensor:
    """Read the JPEG and PNG files of a folder, and cut squares out of their middles.

    Args:
        folder: of photographs; folders in it are read, too.
        side: of the squares.

    Returns:
        uint8, (N, 3, side, side), in the order of the files' names.

    Raises:
        ValueError: there is no image, or one is damaged.
        ImportError: Pillow is missing.
    """
    files = sorted(p for p in folder.rglob("*") if p.is_file() and is_image(p.name))
    if not files:
        raise ValueError(f"photos={folder}: no .jpg, .jpeg or .png in this folder")
    return torch.from_numpy(np.stack([_square(path, side) for path in files]))


def _square(path: Path, side: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    picture = shorter_side(open_rgb(path, str(path)), side, path)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    picture = picture.crop((left, top, left + side, top + side))
    return np.asarray(picture).transpose(2, 0, 1).copy()
