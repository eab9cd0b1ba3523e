"""miniImageNet from folders or from its CSV splits: 100 classes of 600 images."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from regrow.data.pictures import is_image, open_rgb
from regrow.engine.selection import sample, seeded_generator
from regrow.reading import decoding, read_file

__all__ = ["FolderArrays", "load_mini_imagenet"]

_SPLITS = ("train", "val", "test")
_BILINEAR = 2  # Pillow's Image.Resampling.BILINEAR


@dataclass(frozen=True)
class FolderArrays:
    """Images read from folders, fit to make a stream of.

    Args:
        train_inputs: uint8, shape (n, 3, size, size).
        train_labels: int64, shape (n,).
        test_inputs: as ``train_inputs``.
        test_labels: as ``train_labels``.
        names: of the classes, in the order of their labels.
    """

    train_inputs: Tensor
    train_labels: Tensor
    test_inputs: Tensor
    test_labels: Tensor
    names: tuple[str, ...]

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return len(self.names)


def load_mini_imagenet(
    root: str | Path, *, size: int = 32, test_per_class: int = 100, seed: int = 0
) -> FolderArrays:
    """Read miniImageNet, and hold out images of every class to test on.

    Its own splits are of classes, for learning from few examples; here all classes are put together
    and every class gives images to train and to test on. Two layouts are read: ``train.csv``,
    ``val.csv``, ``test.csv`` with columns ``filename`` and ``label`` beside a folder ``images``;
    and a folder a class, in ``root`` or in ``root/train``, ``root/val``, ``root/test``. Classes are
    in the order of their names. Images are resized bilinearly and become RGB.

    Args:
        root: the folder.
        size: side of the images, in pixels.
        test_per_class: images of every class held out, at least 1.
        seed: of what is held out.

    Raises:
        FileNotFoundError: there is no such folder, no image in it, or an image of a list is not
            there; the message says which.
        ValueError: an argument is out of range, a list has other columns, or a class has too few
            images.
        ImportError: Pillow is missing.

    Source: Vinyals et al. 2016 (arXiv 1606.04080); the lists are those of Ravi & Larochelle 2017.
    Held-out images and 32 pixels as in the public code of Continual Learning with Dynamic Sparse
    Training (CPAL 2024).
    """
    if size < 1 or test_per_class < 1:
        raise ValueError(f"size={size}, test_per_class={test_per_class}: must be at least 1")
    by_class = _listed(Path(root)) or _in_folders(Path(root))
    if not by_class:
        raise FileNotFoundError(
            f"{root}: holds no miniImageNet; expected train.csv, val.csv, test.csv and images/, or "
            "a folder of JPEG or PNG files a class"
        )
    names = sorted(by_class)
    parts: dict[bool, list[tuple[Path, int]]] = {True: [], False: []}
    for label, name in enumerate(names):
        files = sorted(by_class[name])
        if len(files) <= test_per_class:
            raise ValueError(
                f"class {name} has {len(files)} images, and test_per_class={test_per_class} leaves "
                "none to train on: hold out fewer"
            )
        out = set(sample(len(files), test_per_class, seeded_generator(seed, name)).tolist())
        for i, file in enumerate(files):
            parts[i in out].append((file, label))
    train, test = (_read(parts[out], size) for out in (False, True))
    return FolderArrays(*train, *test, tuple(names))


def _listed(root: Path) -> dict[str, list[Path]]:
    """Return the files of the lists by class; nothing if there are no lists."""
    by_class: dict[str, list[Path]] = {}
    for path in (root / f"{split}.csv" for split in _SPLITS):
        if not path.exists():
            continue
        with decoding(path):
            rows = csv.DictReader(io.StringIO(read_file(path).decode(), newline=""), strict=True)
            if not {"filename", "label"} <= set(rows.fieldnames or ()):
                raise ValueError(f"its columns are {rows.fieldnames}: filename, label needed")
            for row in rows:
                if not (row["label"] and row["filename"]):
                    raise ValueError(f"line {rows.line_num} has no filename and label")
                # A name alone: a list must not lead out of its folder.
                by_class.setdefault(row["label"], []).append(
                    root / "images" / Path(row["filename"]).name
                )
    return by_class


def _in_folders(root: Path) -> dict[str, list[Path]]:
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: there is no such folder")
    splits = [root / split for split in _SPLITS if (root / split).is_dir()] or [root]
    by_class: dict[str, list[Path]] = {}
    for folder in (one for split in splits for one in sorted(split.iterdir()) if one.is_dir()):
        files = [f for f in folder.rglob("*") if is_image(f.name)]
        if files:
            by_class.setdefault(folder.name, []).extend(files)
    return by_class


def _read(files: list[tuple[Path, int]], size: int) -> tuple[Tensor, Tensor]:
    pixels = np.empty((len(files), 3, size, size), dtype=np.uint8)
    for i, (path, _) in enumerate(files):
        if not path.exists():
            raise FileNotFoundError(f"{path}: is listed and not there; get miniImageNet again")
        small = open_rgb(path, str(path)).resize((size, size), _BILINEAR)
        pixels[i] = np.asarray(small).transpose(2, 0, 1)
    labels = torch.tensor([label for _, label in files], dtype=torch.int64)
    return torch.from_numpy(pixels), labels
