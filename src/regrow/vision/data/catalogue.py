"""Image data sets in their published formats.

Files are looked for in the folder given, in ``$REGROW_DATA``, in the user's cache, and where the
system's packages put them, in this order. scikit-learn carries the digits itself.
"""

from __future__ import annotations

import gzip
import io
import math
import os
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

__all__ = ["ImageSet", "load_images", "names", "read_idx"]


@dataclass(frozen=True)
class ImageSet:
    """Images and labels, split for training and testing.

    Args:
        name: of the data set.
        train_images: uint8, shape (n, channels, height, width).
        train_labels: int64, shape (n,).
        test_images: as ``train_images``.
        test_labels: as ``train_labels``.
        classes: how many labels there are, counted from 0.
        source: where it came from, for a reader of results.
    """

    name: str
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    classes: int
    source: str

    def standardized(self) -> tuple[Tensor, Tensor]:
        """Return train and test images as float32, with mean 0 and deviation 1 by channel.

        Mean and deviation are those of the training images.
        """
        train, test = self.train_images.float(), self.test_images.float()
        deviation, mean = torch.std_mean(train, dim=(0, 2, 3), keepdim=True)
        return (train - mean) / deviation, (test - mean) / deviation


def names() -> tuple[str, ...]:
    """Return the names :func:`load_images` knows.

    Example:
        >>> names()
        ('digits', 'fashion-mnist', 'cifar10')
    """
    return tuple(_LOADERS)


def load_images(name: str, data_dir: str | Path | None = None) -> ImageSet:
    """Load an image data set by name.

    Args:
        name: one of :func:`names`.
        data_dir: the folder that holds a folder of this name; None looks in the usual places only.

    Returns:
        The data, in memory.

    Raises:
        ValueError: the name is unknown, or a file is damaged.
        FileNotFoundError: a file is missing; the message says which, where it was looked for and
            how to get it.
        ImportError: a package of the extra ``regrow[vision]`` is missing.

    Example:
        >>> digits = load_images("digits")
        >>> tuple(digits.train_images.shape), tuple(digits.test_images.shape)
        ((898, 1, 8, 8), (899, 1, 8, 8))
    """
    if name not in _LOADERS:
        raise ValueError(f"data={name!r}: must be one of {', '.join(_LOADERS)}")
    return _LOADERS[name](None if data_dir is None else Path(data_dir))


def read_idx(path: Path) -> Tensor:
    """Read an IDX file of bytes, plain or gzipped: the format of MNIST and its kin.

    Args:
        path: the file; gzipped if it ends in ``.gz``.

    Returns:
        uint8 tensor of the shape the file states.

    Raises:
        ValueError: the file is damaged or no IDX file of unsigned bytes.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        zeros, kind, dimensions = struct.unpack(">HBB", content[:4])
        shape = struct.unpack(f">{dimensions}I", content[4 : 4 + 4 * dimensions])
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise ValueError(f"{path} is damaged ({error}): get it again") from error
    body = np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions)
    if zeros != 0 or kind != 8 or body.size != math.prod(shape):
        raise ValueError(
            f"{path} is no IDX file of {shape} bytes (type {kind}, {body.size} entries): "
            "get it again"
        )
    return torch.from_numpy(body.reshape(shape).copy())


def _digits(data_dir: Path | None) -> ImageSet:
    try:
        from sklearn.datasets import load_digits  # noqa: PLC0415
        from sklearn.model_selection import train_test_split  # noqa: PLC0415
    except ImportError as error:
        raise ImportError("digits need scikit-learn: pip install 'regrow[vision]'") from error
    digits = load_digits()
    images = torch.from_numpy(np.round(digits.images * (255 / 16)).astype(np.uint8)).unsqueeze(1)
    labels = torch.from_numpy(digits.target.astype(np.int64))
    train, test = train_test_split(
        np.arange(len(labels)), test_size=0.5, stratify=labels, random_state=0
    )
    return ImageSet(
        name="digits",
        train_images=images[train],
        train_labels=labels[train],
        test_images=images[test],
        test_labels=labels[test],
        classes=10,
        source="scikit-learn's digits, 8×8 grey images; half train, half test, stratified",
    )


def _fashion_mnist(data_dir: Path | None) -> ImageSet:
    parts = {}
    for split, stem in (("train", "train"), ("test", "t10k")):
        for what, kind in (("images", "images-idx3-ubyte"), ("labels", "labels-idx1-ubyte")):
            path = _find(
                (f"{stem}-{kind}.gz", f"{stem}-{kind}"),
                _folders("fashion-mnist", data_dir),
                "install Debian's package dataset-fashion-mnist, or put the four IDX files of "
                "github.com/zalandoresearch/fashion-mnist there",
            )
            parts[split, what] = read_idx(path)
    return ImageSet(
        name="fashion-mnist",
        train_images=parts["train", "images"].unsqueeze(1),
        train_labels=parts["train", "labels"].long(),
        test_images=parts["test", "images"].unsqueeze(1),
        test_labels=parts["test", "labels"].long(),
        classes=10,
        source="Fashion-MNIST (Xiao et al. 2017), 28×28 grey images",
    )


def _cifar10(data_dir: Path | None) -> ImageSet:
    splits = {}
    for split in ("train", "test"):
        path = _find(
            (f"{split}-00000-of-00001.parquet",),
            _folders("cifar10", data_dir),
            "put the Parquet files of Hugging Face's cifar10 there (columns img, label)",
        )
        splits[split] = _read_image_parquet(path)
    return ImageSet(
        name="cifar10",
        train_images=splits["train"][0],
        train_labels=splits["train"][1],
        test_images=splits["test"][0],
        test_labels=splits["test"][1],
        classes=10,
        source=f"CIFAR-10 (Krizhevsky 2009), 32×32 colour images, stored as {splits['test'][2]}",
    )


def _read_image_parquet(path: Path) -> tuple[Tensor, Tensor, str]:
    """Read Hugging Face's layout: encoded images in ``img.bytes``, classes in ``label``."""
    try:
        from PIL import Image  # noqa: PLC0415
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError as error:
        raise ImportError("Parquet images need pip install 'regrow[vision]'") from error
    try:
        table = parquet.read_table(path, columns=["img", "label"])
        pictures = [Image.open(io.BytesIO(row["bytes"])) for row in table["img"].to_pylist()]
        images = np.stack([np.asarray(picture.convert("RGB")) for picture in pictures])
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{path} is damaged ({error}): get it again") from error
    labels = torch.tensor(table["label"].to_pylist(), dtype=torch.int64)
    tensor = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    return tensor, labels, str(pictures[0].format)


def _folders(name: str, data_dir: Path | None) -> list[Path]:
    """Return the folders to look in, in order."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "regrow"
    roots = [data_dir, os.environ.get("REGROW_DATA"), cache, "/usr/share/datasets"]
    return [Path(root) / name for root in roots if root]


def _find(candidates: Sequence[str], folders: Sequence[Path], advice: str) -> Path:
    for folder in folders:
        for candidate in candidates:
            if (folder / candidate).is_file():
                return folder / candidate
    places = ", ".join(map(str, folders))
    raise FileNotFoundError(f"{candidates[0]} not found; looked in {places}. To get it: {advice}")


_LOADERS: dict[str, Callable[[Path | None], ImageSet]] = {
    "digits": _digits,
    "fashion-mnist": _fashion_mnist,
    "cifar10": _cifar10,
}
