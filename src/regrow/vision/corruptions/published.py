"""The published sets of corrupted images: CIFAR-10-C, CIFAR-100-C, Tiny-ImageNet-C, ImageNet-C."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from regrow.data.labels import check_labels
from regrow.data.npy import map_npy
from regrow.data.pictures import open_rgb
from regrow.data.places import Places
from regrow.vision.corruptions.catalogue import CORRUPTIONS, EXTRA, check_severity
from regrow.vision.data.image_folder import class_files, class_folders

__all__ = ["CorruptedFolder", "load_corrupted"]

_ARRAYS = {  # what the archive's folder is called, classes, where it is given out
    "cifar10-c": ("CIFAR-10-C", 10, "https://zenodo.org/records/2535967"),
    "cifar100-c": ("CIFAR-100-C", 100, "https://zenodo.org/records/3555552"),
}
_FOLDERS = {
    "tiny-imagenet-c": ("Tiny-ImageNet-C", "https://zenodo.org/records/2536630"),
    "imagenet-c": ("ImageNet-C", "https://zenodo.org/records/2235448"),
}
_SEVERITIES = 5


def load_corrupted(
    name: str, corruption: str, severity: int, data_dir: str | Path | None = None
) -> tuple[Tensor, Tensor]:
    """Map the images of CIFAR-10-C or CIFAR-100-C of one corruption and severity into memory.

    A set is looked for as :func:`~regrow.vision.data.load_data` does, in a folder of its name or of
    that which its archive has: ``CIFAR-10-C/gaussian_noise.npy``. Nothing is downloaded.

    Args:
        name: ``"cifar10-c"`` or ``"cifar100-c"``.
        corruption: one of :data:`~.catalogue.CORRUPTIONS` or
            :data:`~.catalogue.EXTRA`.
        severity: from 1 to 5; of the 50,000 images in a file, the first 10,000 are of severity 1.
        data_dir: the folder that holds the set's; None: only the usual places do.

    Returns:
        Images, uint8, shape (10000, 3, 32, 32), read as they are needed, and labels, int64. They
        are in the order of the clean test images.

    Raises:
        ValueError: name, corruption or severity are unknown, or a file is damaged.
        FileNotFoundError: a file is missing; the message says where it was looked for.
    """
    _check(name, _ARRAYS, corruption, severity)
    archive, classes, home = _ARRAYS[name]
    folder = _find(name, archive, f"{corruption}.npy", home, data_dir)
    images = _mapped(folder / f"{corruption}.npy", (None, 32, 32, 3))
    labels = _mapped(folder / "labels.npy", (len(images),))
    count = len(images) // _SEVERITIES
    if len(images) != count * _SEVERITIES or not count:
        raise ValueError(
            f"{folder / corruption}.npy holds {len(images)} images: must be {_SEVERITIES} times as "
            "many as are tested on; get it again"
        )
    rows = slice((severity - 1) * count, severity * count)
    pixels = torch.from_numpy(images[rows]).permute(0, 3, 1, 2)
    numbers = torch.from_numpy(labels[rows].astype(np.int64))
    check_labels(numbers, pixels, classes, str(folder / "labels.npy"))
    return pixels, numbers


class CorruptedFolder(Dataset[tuple[Tensor, int]]):
    """Images of ``root/CORRUPTION/SEVERITY/CLASS/*``, as Tiny-ImageNet-C and ImageNet-C have them.

    Args:
        root: the folder that holds one folder a corruption.
        corruption: one of :data:`~.catalogue.CORRUPTIONS` or
            :data:`~.catalogue.EXTRA`.
        severity: from 1 to 5.
        classes: names of the classes' folders in the order of their numbers, as of the data that a
            model was trained on; None: in alphabetical order.

    Raises:
        ValueError: corruption or severity are unknown, or a folder is no class.
        FileNotFoundError: there is no such folder, or no image in it.
    """

    def __init__(
        self,
        root: str | Path,
        corruption: str,
        severity: int,
        classes: Sequence[str] | None = None,
    ) -> None:
        _check("", None, corruption, severity)
        self.where = Path(root) / corruption / str(severity)
        self.classes = class_folders(self.where) if classes is None else list(classes)
        self._files, self.labels = class_files(self.where, self.classes)

    @classmethod
    def find(
        cls,
        name: str,
        corruption: str,
        severity: int,
        data_dir: str | Path | None = None,
        classes: Sequence[str] | None = None,
    ) -> CorruptedFolder:
        """Make one of the first folder found, as :func:`load_corrupted` looks for it.

        Args:
            name: ``"tiny-imagenet-c"`` or ``"imagenet-c"``.
            corruption: as of the class.
            severity: as of the class.
            data_dir: the folder that holds the set's; None: only the usual places do.
            classes: as of the class.

        Raises:
            ValueError: name, corruption or severity are unknown.
            FileNotFoundError: there is none; the message says where it was looked for.
        """
        _check(name, _FOLDERS, corruption, severity)
        archive, home = _FOLDERS[name]
        root = _find(name, archive, f"{corruption}/{severity}", home, data_dir)
        return cls(root, corruption, severity, classes)

    def __len__(self) -> int:
        """Return how many images there are."""
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Read an image as it is stored, uint8, shape (3, height, width), and its label."""
        path = self.where / os.fsdecode(bytes(self._files[index]))
        pixels = np.asarray(open_rgb(path, str(path)))
        return torch.from_numpy(pixels.transpose(2, 0, 1).copy()), int(self.labels[index])

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images (uint8) and labels (int64), in order; all images must have one size.

        Args:
            size: of a batch; the last may be smaller.

        Raises:
            ValueError: the size is below 1, or an image is damaged; it is named.
        """
        if size < 1:
            raise ValueError(f"size={size}: must be at least 1")
        for start in range(0, len(self), size):
            read = [self[i] for i in range(start, min(start + size, len(self)))]
            yield torch.stack([image for image, _ in read]), torch.tensor([i for _, i in read])


def _check(name: str, known: Mapping[str, object] | None, corruption: str, severity: int) -> None:
    if known is not None and name not in known:
        raise ValueError(f"name={name!r}: must be one of {', '.join(known)}")
    if corruption not in CORRUPTIONS + EXTRA:
        raise ValueError(
            f"corruption={corruption!r}: must be one of {', '.join(CORRUPTIONS + EXTRA)}"
        )
    severity = check_severity(severity)


def _find(name: str, archive: str, inside: str, home: str, data_dir: str | Path | None) -> Path:
    def look(folder: Path) -> Path | None:
        places = (folder, folder / archive, folder.parent / archive)
        return next((where for where in places if (where / inside).exists()), None)

    advice = f"unpack the archive of {home} there, or beside it as {archive}"
    return Places(name, data_dir).find(look, inside, advice)


def _mapped(path: Path, shape: tuple[int | None, ...]) -> npt.NDArray[np.uint8]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: get it where the others are from")
    array: npt.NDArray[np.uint8] = map_npy(path)
    sides = zip(shape, array.shape, strict=False)
    fits = array.ndim == len(shape) and all(want in (None, side) for want, side in sides)
    if array.dtype != np.uint8 or not fits:
        raise ValueError(
            f"{path} holds {array.dtype} of shape {array.shape}, not uint8 of "
            f"{'×'.join(str(side or 'n') for side in shape)}: get it again"
        )
    return array
