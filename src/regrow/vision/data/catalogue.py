"""The data sets that are known by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from regrow.data.places import Places
from regrow.vision.data.cifar import CIFAR10, CIFAR100, load_cifar
from regrow.vision.data.dataset import DataSet
from regrow.vision.data.higgs import load_higgs
from regrow.vision.data.moving_fashion import load_moving_fashion
from regrow.vision.data.small import load_digits, load_fashion_mnist
from regrow.vision.data.tiny_imagenet import load_tiny_imagenet

__all__ = ["load_data", "names"]

_LOADERS: dict[str, Callable[[Places], DataSet]] = {
    "digits": load_digits,
    "fashion-mnist": load_fashion_mnist,
    "cifar10": partial(load_cifar, CIFAR10),
    "cifar100": partial(load_cifar, CIFAR100),
    "tiny-imagenet": load_tiny_imagenet,
    "higgs": load_higgs,
    "moving-fashion": load_moving_fashion,
}


def names() -> tuple[str, ...]:
    """Return the names :func:`load_data` knows.

    Example:
        >>> names()[:3]
        ('digits', 'fashion-mnist', 'cifar10')
    """
    return tuple(_LOADERS)


def load_data(name: str, data_dir: str | Path | None = None, download: bool = True) -> DataSet:
    """Load a data set by name.

    Files are looked for in ``data_dir``, in ``$REGROW_DATA``, in the user's cache, and where the
    system's packages put them, in this order, in a folder of the set's name each. What is nowhere
    is downloaded into the user's cache, and taken only if its checksum is the published one.
    Nothing that is read can run code. What takes long to decode is decoded once and kept there too.

    Args:
        name: one of :func:`names`.
        data_dir: the folder that holds a folder of this name; None looks in the usual places only.
        download: whether a missing file may be downloaded.

    Returns:
        The data, in memory or mapped into it.

    Raises:
        ValueError: the name is unknown, or a file is damaged; it is named.
        FileNotFoundError: a file is missing; the message says which, where it was looked for and
            how to get it.
        OSError: a download failed; the message says which, and how to get the file by hand.
        ImportError: a package of the extra ``regrow[vision]`` is missing.

    Example:
        >>> digits = load_data("digits")
        >>> tuple(digits.train_inputs.shape), tuple(digits.test_inputs.shape)
        ((898, 1, 8, 8), (899, 1, 8, 8))
    """
    if name not in _LOADERS:
        raise ValueError(f"data={name!r}: must be one of {', '.join(_LOADERS)}")
    return _LOADERS[name](Places(name, data_dir, download))
