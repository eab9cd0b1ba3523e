"""Small grey images: scikit-learn's digits, and Fashion-MNIST."""

from __future__ import annotations

import numpy as np
import torch

from regrow.data.fashion_mnist import CLASSES, read_fashion_mnist
from regrow.data.places import Places
from regrow.machine import needed
from regrow.vision.data.dataset import DataSet

__all__ = ["load_digits", "load_fashion_mnist"]


def load_digits(places: Places) -> DataSet:
    """Load scikit-learn's digits; no file is needed.

    Args:
        places: is not looked at.
    """
    with needed("scikit-learn", "vision"):
        from sklearn import datasets  # noqa: PLC0415
        from sklearn.model_selection import train_test_split  # noqa: PLC0415
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


def load_fashion_mnist(places: Places) -> DataSet:
    """Load Fashion-MNIST from its four IDX files, gzipped or not.

    Args:
        places: where to look.
    """
    train, test = read_fashion_mnist(places, "train"), read_fashion_mnist(places, "t10k")
    return DataSet(
        name="fashion-mnist",
        train_inputs=train[0].unsqueeze(1),
        train_labels=train[1],
        test_inputs=test[0].unsqueeze(1),
        test_labels=test[1],
        classes=CLASSES,
        source="Fashion-MNIST (Xiao et al. 2017), 28×28 grey images",
    )
