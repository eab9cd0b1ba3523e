"""Images of one's own: files in folders of classes, or stored in tables as Hugging Face does."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from torch import Tensor
from torch.utils.data import Dataset

from regrow.data.parts import by_part, part_of, test_part
from regrow.data.pictures import Bytes, decode, is_image, open_rgb
from regrow.data.table_files import open_table
from regrow.reading import check_size, decoding, read_file, refused
from regrow.vision.data.image_folder import (
    as_bytes,
    class_files,
    class_folders,
    middle_of,
    random_square,
)
from regrow.vision.data.own_tables import check_leave_out
from regrow.vision.data.own_targets import Targets, target_column, targets_of

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Files", "OwnImages", "find_images", "read_images", "read_stored_images"]

_RESIZED = 256 / 224  # shorter side before the middle is cut out, as for ImageNet


@dataclass(frozen=True)
class Files:
    """Images of one part of a data set.

    Args:
        root: the folder that holds those of classes.
        names: of the files from there on, as bytes.
        labels: of the files.
        classes: names of the classes, in the order of their numbers.
    """

    root: Path
    names: npt.NDArray[Any]
    labels: npt.NDArray[np.int64]
    classes: Sequence[str]

    def only(self, kept: Tensor) -> Files:
        """Return some of the images."""
        index = kept.numpy()
        return replace(self, names=self.names[index], labels=self.labels[index])

    def path(self, index: int) -> Path:
        """Return an image's file."""
        return self.root / os.fsdecode(bytes(self.names[index]))


def find_images(path: Path) -> Mapping[str, Any]:
    """Find images in folders of classes, split into parts or not.

    Args:
        path: holds ``train/CLASS/`` and ``test/CLASS/`` (or ``val``, ``valid``, ...), or
            ``CLASS/``.

    Returns:
        ``train`` and ``test``, which may be None, and what to say of the ``split``; nothing if
        there are no such folders.

    Raises:
        ValueError: there is but one class, or a part has a class that is not learnt.
    """
    if not path.is_dir():
        return {}
    named = [name for name in class_folders(path) if part_of(name) and _has_classes(path / name)]
    parts = by_part(path, named)
    if "train" in parts:
        train = _files(path / parts["train"], None)
        tested = test_part(parts)
        test = _files(path / parts[tested], train.classes) if tested else None
        split = f"tested on its folder {parts[tested]!r}" if tested else ""
        return {"train": train, "test": test, "split": split}
    if not _has_classes(path):
        return {}
    return {"train": _files(path, None), "test": None, "split": ""}


def _has_classes(path: Path) -> bool:
    for name in class_folders(path):
        with os.scandir(path / name) as entries:
            if any(is_image(entry.name) for entry in entries):
                return True
    return False


def _files(root: Path, classes: Sequence[str] | None) -> Files:
    known = class_folders(root) if classes is None else classes
    if len(known) < 2:
        raise refused(root, f"has one class, {known[0]!r}", "put images of another beside it")
    names, labels = class_files(root, known)
    empty = [name for i, name in enumerate(known) if i not in labels]
    if classes is None and empty:
        raise refused(root, f"has no image in {', '.join(map(repr, empty))}", "remove the folder")
    return Files(root, names, labels, known)


class OwnImages(Dataset[tuple[Tensor, int]]):
    """Image files as squares, read as they are needed.

    Args:
        files: the images.
        pixels: side of the squares.
        crops: whether they are random boxes, mirrored or not; else the middle is cut out.
        seed: of what is random; it depends on seed, epoch and image alone.
        about: where they are from, for people.
    """

    def __init__(
        self, files: Files, pixels: int, *, crops: bool, seed: int, about: str = ""
    ) -> None:
        self.files, self.pixels, self.crops, self.seed = files, pixels, crops, seed
        self.classes, self.labels, self.about = files.classes, files.labels, about

    def __len__(self) -> int:
        """Return how many images there are."""
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return an image as it is in epoch 0, and its label."""
        return self.read(index, 0)

    def read(self, index: int, epoch: int) -> tuple[Tensor, int]:
        """Return an image as it is in an epoch, and its label.

        Returns:
            uint8, shape (3, pixels, pixels), and the label.

        Raises:
            ValueError: the image is damaged; its file is named.
        """
        path = self.files.path(index)
        if self.crops:
            image = random_square(path, self.pixels, self.seed, epoch, index)
        else:
            image = as_bytes(_square(open_rgb(path, str(path)), self.pixels, path))
        return image, int(self.labels[index])


def read_images(files: Files) -> Bytes:
    """Decode image files of one size into memory.

    Returns:
        uint8, shape (n, 3, height, width).

    Raises:
        ValueError: an image is damaged, or they differ in size.
    """
    paths = [files.path(i) for i in range(len(files.labels))]
    sizes = {open_rgb(path, str(path)).size for path in paths[:: max(1, len(paths) // 50)]}
    if len(sizes) > 1:
        raise _sizes_differ(files.root)
    return decode(((str(path), read_file(path)) for path in paths), len(paths))[0]


def read_stored_images(
    paths: Sequence[Path],
    image: str,
    target: str,
    pixels: int | None,
    *,
    leave_out: Sequence[str] = (),
    regression: bool = False,
) -> tuple[Bytes, Targets]:
    """Decode images that tables hold, as Hugging Face's do, into memory.

    Args:
        paths: the tables of a part.
        image: the column of images, with a field ``bytes``, or bytes themselves.
        target: the column of what is learnt; empty: the one that is marked, or called so.
        pixels: side of the squares that they become; None: all are of one size.
        leave_out: columns that are not looked at, as none is beside these two.
        regression: whether numbers are learnt; else classes.

    Returns:
        uint8, shape (n, 3, height, width), and what is learnt.

    Raises:
        ValueError: an image is damaged, or they differ in size.
    """
    label = target_column(paths[0], target, regression=regression)
    check_leave_out(paths[0], label, leave_out)
    tables = [open_table(path, [image, label], 64) for path in paths]
    labels = np.concatenate(
        [
            targets_of(table[label].to_numpy(), label, path, regression=regression)
            for table, path in zip(tables, paths, strict=True)
        ]
    )
    stored = _stored(paths, tables, image)
    if pixels is not None:
        return _as_squares(stored, len(labels), pixels), labels
    encoded = [*stored]
    sizes = {
        open_rgb(content, name).size for name, content in encoded[:: max(1, len(labels) // 50)]
    }
    if len(sizes) > 1:
        raise _sizes_differ(paths[0].parent)
    return decode(encoded, len(labels))[0], labels


def _stored(
    paths: Sequence[Path], tables: Sequence[Any], image: str
) -> Iterator[tuple[str, bytes]]:
    for path, table in zip(paths, tables, strict=True):
        for i, value in enumerate(table[image]):
            found = value.as_py()
            content = found.get("bytes") if isinstance(found, dict) else found
            if not isinstance(content, bytes):
                where = found.get("path") if isinstance(found, dict) else None
                why = f"holds only a path, {where!r}, and no image" if where else "holds no image"
                raise refused(f"{path}, row {i}", why, "write the images' bytes, or take it out")
            yield f"{path}, image {i}", content


def _as_squares(stored: Iterator[tuple[str, bytes]], count: int, pixels: int) -> Bytes:
    made: Bytes | None = None
    for i, (name, content) in enumerate(stored):
        picture = open_rgb(content, name)
        if made is None:
            check_size(name, 3 * count * pixels**2, count * len(content))
            made = np.empty((count, 3, pixels, pixels), np.uint8)
        made[i] = np.asarray(_square(picture, pixels, name)).transpose(2, 0, 1)
    return np.zeros((0, 3, pixels, pixels), np.uint8) if made is None else made


def _square(picture: Image.Image, pixels: int, of: object) -> Image.Image:
    with decoding(of):
        return middle_of(picture, pixels, max(pixels, round(pixels * _RESIZED)), of)


def _sizes_differ(where: Path) -> ValueError:
    return refused(where, "has images of different sizes", "give --pixels, such as --pixels 224")
