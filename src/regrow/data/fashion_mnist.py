"""Fashion-MNIST: 70,000 grey images of garments, in four IDX files."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from torch import Tensor

from regrow.data.download import Remote
from regrow.data.idx import read_idx
from regrow.data.labels import check_labels
from regrow.data.places import Places
from regrow.reading import damaged

__all__ = ["CLASSES", "FILES", "fashion_mnist_files", "read_fashion_mnist"]

Split = Literal["train", "t10k"]

CLASSES = 10
_SIDE = 28

_HOME = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
_ADVICE = (
    "install Debian's package dataset-fashion-mnist, or put the four IDX files of "
    "github.com/zalandoresearch/fashion-mnist there"
)

FILES = {
    stem: Remote(f"{_HOME}/{stem}.gz", checksum)
    for stem, checksum in {
        "train-images-idx3-ubyte": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte": "bb300cfdad3c16e7a12a480ee83cd310",
    }.items()
}
"""What is published."""


def fashion_mnist_files(places: Places, split: Split) -> tuple[Path, Path]:
    """Find the files of a split's images and labels, gzipped or not; else download them.

    Args:
        places: where to look.
        split: ``"train"`` (60,000 images) or ``"t10k"`` (10,000 images to test on).

    Raises:
        FileNotFoundError: as of :meth:`~regrow.data.places.Places.find`.
        OSError: as of :meth:`~regrow.data.places.Places.find`.
        ValueError: as of :meth:`~regrow.data.places.Places.find`.
    """
    stems = (f"{split}-images-idx3-ubyte", f"{split}-labels-idx1-ubyte")
    images, labels = (places.file((f"{stem}.gz", stem), _ADVICE, FILES[stem]) for stem in stems)
    return images, labels


def read_fashion_mnist(places: Places, split: Split) -> tuple[Tensor, Tensor]:
    """Read the images and labels of a split.

    Args:
        places: where to look.
        split: as of :func:`fashion_mnist_files`.

    Returns:
        Images, uint8 of shape (n, 28, 28), and labels, int64 of 0 to 9.

    Raises:
        FileNotFoundError: as of :meth:`~regrow.data.places.Places.find`.
        OSError: as of :meth:`~regrow.data.places.Places.find`.
        ValueError: a file is damaged, or labels do not fit the images; the file is named.

    Source: Xiao et al. 2017 (arXiv 1708.07747).
    """
    paths = fashion_mnist_files(places, split)
    images, labels = read_idx(paths[0]), read_idx(paths[1]).long()
    if images.shape[1:] != (_SIDE, _SIDE) or not len(images):
        raise damaged(paths[0], f"images of shape {tuple(images.shape)}, not (n, {_SIDE}, {_SIDE})")
    check_labels(labels, images, CLASSES, str(paths[1]))
    return images, labels
