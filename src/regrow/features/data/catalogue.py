"""The data sets known by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from regrow.data.fashion_mnist import read_fashion_mnist
from regrow.data.places import Places
from regrow.features.data.feature_set import FeatureSet, make_feature_set
from regrow.features.data.madelon import make_madelon
from regrow.features.data.mat import read_mat
from regrow.spelling import did_you_mean

__all__ = ["FEATURE_SETS", "MatFile", "load_features"]

_MADE = {"made-madelon": (2600, 500), "small-madelon": (1000, 100)}
_GARMENTS = 10_000
_FOLDER = "feature-selection"
_ADVICE = "github.com/jundongl/scikit-feature, folder skfeature/data"


@dataclass(frozen=True)
class MatFile:
    """A set of the scikit-feature repository.

    Args:
        kind: what its rows are.
        shape: height and width of images.
    """

    kind: str
    shape: tuple[int, ...] = ()


FEATURE_SETS: Mapping[str, MatFile] = {
    "lymphoma": MatFile("gene expression"),
    "Yale": MatFile("faces", (32, 32)),
    "Prostate-GE": MatFile("gene expression"),
    "arcene": MatFile("mass spectra"),
    "ORL": MatFile("faces", (32, 32)),
    "madelon": MatFile("synthetic"),
    "Isolet": MatFile("speech"),
    "COIL20": MatFile("photographs", (32, 32)),
    "RELATHE": MatFile("text"),
    "PCMAC": MatFile("text"),
    "BASEHOCK": MatFile("text"),
}
"""The eleven sets of the field that are files of MATLAB, smallest training part first."""


def load_features(
    name: str, data_dir: Path | str | None = None, download: bool = True
) -> FeatureSet:
    """Load a data set by its name.

    Args:
        name: one of :data:`~regrow.features.data.catalogue.FEATURE_SETS`; "fashion-mnist" (the
            first 10,000 training images); "digits" (scikit-learn's); "made-madelon" and
            "small-madelon" (:func:`make_madelon` with seed 0, of 2600 × 500, and 1000 × 100).
        data_dir: folder that holds the folder ``feature-selection`` with the MATLAB files, and
            ``fashion-mnist``; else ``$REGROW_DATA``, the user's cache and the system's folder.
        download: whether missing files of Fashion-MNIST may be downloaded into the user's cache;
            the MATLAB files have no published checksum, and are not.

    Raises:
        ValueError: the name is unknown, or a file is damaged.
        FileNotFoundError: a file is nowhere; the message says where it was looked for.
        OSError: a download failed; the message says which, and how to get the file by hand.

    Example:
        >>> digits = load_features("digits")
        >>> digits.X.shape, digits.shape
        ((1797, 64), (8, 8))
    """
    if name in FEATURE_SETS:
        path = Places(_FOLDER, data_dir).file((f"{name}.mat",), _ADVICE)
        return read_mat(path, name=name, shape=FEATURE_SETS[name].shape)
    if name == "fashion-mnist":
        return _fashion_mnist(Places(name, data_dir, download))
    if name in _MADE:
        return replace(make_madelon(*_MADE[name]), name=name)
    if name == "digits":
        return _digits()
    known = (*FEATURE_SETS, "fashion-mnist", "digits", *_MADE)
    meant = did_you_mean(name, known)
    raise ValueError(f"data set {name!r}: there is none; known are {', '.join(known)}{meant}")


def _digits() -> FeatureSet:
    from sklearn.datasets import load_digits  # noqa: PLC0415 (slow to import)

    X, y = load_digits(return_X_y=True)
    source = "scikit-learn's digits"
    return make_feature_set("digits", X, y, where="digits", shape=(8, 8), source=source)


def _fashion_mnist(places: Places) -> FeatureSet:
    images, labels = (part[:_GARMENTS].numpy() for part in read_fashion_mnist(places, "train"))
    return make_feature_set(
        "fashion-mnist",
        images.reshape(len(images), -1),
        labels,
        where="fashion-mnist",
        shape=(28, 28),
        source=f"Fashion-MNIST (Xiao et al. 2017), the first {len(images)} training images",
    )
