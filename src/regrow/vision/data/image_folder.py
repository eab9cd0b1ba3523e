"""Image folders, one a class, as ImageNet is published: read image by image, as they are needed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from regrow.data.pictures import is_image, open_rgb, shorter_side
from regrow.data.places import Places
from regrow.engine.selection import seeded_generator
from regrow.reading import decoding
from regrow.vision.data.boxes import random_boxes

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "ImageFolder",
    "as_bytes",
    "class_files",
    "class_folders",
    "middle_of",
    "random_square",
]


class ImageFolder(Dataset[tuple[Tensor, int]]):
    """Images of ``root/train/CLASS/*`` or ``root/val/CLASS/*``; they need not fit into memory.

    Classes are numbered in the order of their folders' names under ``train``. An image to train on
    is a random box (:func:`~regrow.vision.data.boxes.random_boxes`) resized to a square, flipped
    or not; an image to test on is resized to ``resize`` pixels on its shorter side, and its middle
    cut out. Resizing is bilinear and smoothed. Every image becomes RGB.

    Args:
        root: the folder that holds ``train`` and ``val``.
        split: which of them.
        size: side of the images given, in pixels.
        resize: shorter side before the middle is cut out, at least ``size``.
        seed: of what is random; it depends on seed, epoch and image alone.

    Raises:
        FileNotFoundError: there is no such folder, or no image in it.
        ValueError: a folder of ``val`` is no class of ``train``, or an argument is out of range.
    """

    def __init__(
        self,
        root: str | Path,
        split: Literal["train", "val"] = "train",
        *,
        size: int = 224,
        resize: int = 256,
        seed: int = 0,
    ) -> None:
        if split not in ("train", "val"):
            raise ValueError(f"split={split!r}: must be 'train' or 'val'")
        if not 1 <= size <= resize:
            raise ValueError(f"size={size}, resize={resize}: must be 1 <= size <= resize")
        self.root, self.split, self.size = Path(root), split, size
        self.resize, self.seed = resize, seed
        self.classes = class_folders(self.root / "train")
        # One array of bytes, not a list of strings: their reference counts would be written to in
        # each worker, and copy the memory it shares with this process.
        self._files, self.labels = class_files(self.root / split, self.classes)

    @classmethod
    def find(
        cls,
        name: str = "imagenet",
        split: Literal["train", "val"] = "train",
        data_dir: str | Path | None = None,
        **options: int,
    ) -> ImageFolder:
        """Make one of the first folder of a name that :func:`load_data` would look in.

        Args:
            name: of the data set, and of its folder.
            split: ``"train"`` or ``"val"``.
            data_dir: the folder that holds a folder of this name; None: only the usual places do.
            **options: as of the class: ``size``, ``resize``, ``seed``.

        Raises:
            FileNotFoundError: there is none; the message says where it was looked for.
        """
        root = Places(name, data_dir).find(
            lambda folder: folder if (folder / "train").is_dir() else None,
            "a folder 'train'",
            "put the training images into train/CLASS/ there, and those to test on into "
            "val/CLASS/; ImageNet is given out at image-net.org to those who register",
        )
        return cls(root, split, **options)

    def __len__(self) -> int:
        """Return how many images there are."""
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return an image as it is in epoch 0, and its label."""
        return self.read(index, 0)

    def path(self, index: int) -> Path:
        """Return an image's file.

        Args:
            index: of the image.
        """
        return self.root / self.split / os.fsdecode(bytes(self._files[index]))

    def read(self, index: int, epoch: int) -> tuple[Tensor, int]:
        """Return an image as it is in an epoch, and its label.

        Args:
            index: of the image.
            epoch: its number; it makes no difference in testing.

        Returns:
            uint8, shape (3, size, size), and the label.

        Raises:
            ValueError: the image is damaged; its file is named.
        """
        path = self.path(index)
        if self.split == "train":
            image = random_square(path, self.size, self.seed, epoch, index)
        else:
            image = as_bytes(middle_of(open_rgb(path, str(path)), self.size, self.resize, path))
        return image, int(self.labels[index])


def random_square(path: Path, size: int, seed: int, epoch: int, index: int) -> Tensor:
    """Return a random box of an image as a square, mirrored or not: uint8, (3, size, size).

    Args:
        path: the image's file.
        size: side of the square.
        seed: fixes, with epoch and index, what is drawn.
        epoch: its number.
        index: of the image.

    Raises:
        ValueError: the image is damaged; its file is named.
    """
    generator = seeded_generator(seed, "image", epoch, index)
    square = as_bytes(random_part(open_rgb(path, str(path)), size, generator))
    return square.flip(2) if torch.rand((), generator=generator) < 0.5 else square


def as_bytes(picture: Image.Image) -> Tensor:
    """Return a picture of Pillow's as uint8, shape (3, height, width)."""
    return torch.from_numpy(np.asarray(picture).transpose(2, 0, 1).copy())


def class_folders(where: Path) -> list[str]:
    """Return the names of the folders in a folder, sorted, without hidden ones."""
    if not where.is_dir():
        raise FileNotFoundError(f"{where} is missing: it must hold a folder of images a class")
    with decoding(where), os.scandir(where) as entries:  # of links that lead to themselves
        names = sorted(entry.name for entry in entries if entry.is_dir())
    return [name for name in names if not name.startswith(".")]


def class_files(where: Path, classes: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the images in the folders of classes: names from ``where`` on as bytes, and labels."""
    number = {name: i for i, name in enumerate(classes)}
    files: list[bytes] = []
    labels: list[int] = []
    for name in class_folders(where):
        if name not in number:
            raise ValueError(f"{where / name} is none of the {len(classes)} classes learnt")
        inside = os.fsencode(name)
        entries = [entry.name for entry in os.scandir(where / name) if is_image(entry.name)]
        images = sorted(map(os.fsencode, entries))
        files += [os.path.join(inside, image) for image in images]  # noqa: PTH118 (bytes)
        labels += [number[name]] * len(images)
    if not files:
        raise FileNotFoundError(
            f"{where} holds no image: put JPEG or PNG files into {where}/CLASS/"
        )
    return np.array(files, np.bytes_), np.array(labels, np.int64)


def random_part(picture: Image.Image, size: int, generator: torch.Generator) -> Image.Image:
    """Cut a random box out of an image and resize it to a square of so many pixels a side."""
    from PIL import Image  # noqa: PLC0415

    (top, left, tall, wide), *_ = random_boxes(1, picture.height, picture.width, generator).tolist()
    box = left, top, left + wide, top + tall
    return picture.crop(box).resize((size, size), Image.Resampling.BILINEAR)


def middle_of(picture: Image.Image, size: int, resize: int, of: object) -> Image.Image:
    """Resize an image to so many pixels on its shorter side, and cut its middle out.

    Args:
        picture: any image.
        size: side of the square that is cut out, in pixels.
        resize: shorter side before that.
        of: what to call it in a message.
    """
    resized = shorter_side(picture, resize, of)
    left, top = (round((side - size) / 2) for side in resized.size)
    return resized.crop((left, top, left + size, top + size))
