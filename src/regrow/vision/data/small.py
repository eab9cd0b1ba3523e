"""Small grey images: scikit-learn's digits, and Fashion-MNIST."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from regrow.vision.data.dataset import DataSet, check_labels
from regrow.vision.data.download import Remote
from regrow.vision.data.idx import read_idx
from regrow.vision.data.places import Places

__all__ = ["FASHION_MNIST", "fashion_mnist_files", "load_digits", "load_fashion_mnist"]

_FASHION = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"

FASHION_MNIST = {
    "train-images-idx3-ubyte": Remote(
        f"{_FASHION}/train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"
    ),
    "train-labels-idx1-ubyte": Remote(
        f"{_FASHION}/train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe"
    ),
    "t10k-images-idx3-ubyte": Remote(
        f"{_FASHION}/t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79"
    ),
    "t10k-labels-idx1-ubyte": Remote(
        f"{_FASHION}/t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310"
    ),
}


def load_digits(places: Places) -> DataSet:
    """Load scikit-learn's digits; no file is needed.

    Args:
        places: is not looked at.
    """
    try:
        from sklearn import datasets  # noqa: PLC0415
        from sklearn.model_selection import train_test_split  # noqa: PLC0415
    except ImportError as error:
        raise ImportError("digits need scikit-learn: pip install 'regrow[vision]'") from error
    digits = datasets.load_digits()
    images = torch.from_numpy(np.round(digits.images * (255 / 16)).astype(np.uint8)).unsqueeze(1)
    labels = torch.from_numpy(digits.target.astype(np.int64))
    train, test = train_test_split(
        np.arange(len(labels)), test_size=0.5, stratify=labels, random_state=0
    )
    return DataSet(
        name="digits",
        train_inputs=images[train],
        train_labels=labels[train],
        test_inputs=images[test],
        test_labels=labels[test],
        classes=10,
        source="scikit-learn's digits, 8×8 grey images; half train, half test, stratified",
    )


def fashion_mnist_files(places: Places) -> dict[str, Path]:
    """Find the four IDX files of Fashion-MNIST, gzipped or not.

    Args:
        places: where to look.

    Returns:
        Their paths, by the names of :data:`FASHION_MNIST`.
    """
    advice = (
        "install Debian's package dataset-fashion-mnist, or put the four IDX files of "
        "github.com/zalandoresearch/fashion-mnist there"
    )
    return {
        stem: places.file((f"{stem}.gz", stem), remote, advice)
        for stem, remote in FASHION_MNIST.items()
    }


def load_fashion_mnist(places: Places) -> DataSet:
    """Load Fashion-MNIST from its four IDX files, gzipped or not.

    Args:
        places: where to look.
    """
    paths = fashion_mnist_files(places)
    parts = {stem: read_idx(path) for stem, path in paths.items()}
    splits = {}
    for split in ("train", "t10k"):
        images, labels = f"{split}-images-idx3-ubyte", f"{split}-labels-idx1-ubyte"
        splits[split] = parts[images].unsqueeze(1), parts[labels].long()
        check_labels(splits[split][1], splits[split][0], 10, str(paths[labels]))
    return DataSet(
        name="fashion-mnist",
        train_inputs=splits["train"][0],
        train_labels=splits["train"][1],
        test_inputs=splits["t10k"][0],
        test_labels=splits["t10k"][1],
        classes=10,
        source="Fashion-MNIST (Xiao et al. 2017), 28×28 grey images",
    )
