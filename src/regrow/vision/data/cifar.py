"""CIFAR-10 and CIFAR-100: the Python version, the binary version, and Hugging Face's Parquet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from regrow.data.download import Remote
from regrow.data.kept import Arrays, kept
from regrow.data.labels import check_labels
from regrow.data.pickles import read_pickle
from regrow.data.pictures import read_image_parquet
from regrow.data.places import Places
from regrow.data.trees import Tree, open_tree, stamp
from regrow.reading import damaged
from regrow.vision.data.dataset import DataSet

__all__ = ["CIFAR10", "CIFAR100", "Cifar", "load_cifar"]

_SIDE = 32
_PIXELS = 3 * _SIDE**2

Split = tuple[Tensor, Tensor]  # images, labels
Version = tuple[Split, Split, str]  # training, testing, how the images were stored


@dataclass(frozen=True)
class Cifar:
    """How one of the two is published.

    Args:
        title: its name in a sentence.
        classes: how many.
        folders: of the Python and the binary archive.
        remotes: those archives.
        train: files of the Python version for training; binary ones end in ``.bin``.
        test: the file for testing.
        key: of the labels, in a Python file.
        label_bytes: before each image of a binary file; the last is the label.
        column: of the labels, in Parquet.
    """

    title: str
    classes: int
    folders: tuple[str, str]
    remotes: tuple[Remote, Remote]
    train: tuple[str, ...]
    test: str
    key: str
    label_bytes: int
    column: str


_HOME = "https://www.cs.toronto.edu/~kriz"

CIFAR10 = Cifar(
    title="CIFAR-10",
    classes=10,
    folders=("cifar-10-batches-py", "cifar-10-batches-bin"),
    remotes=(
        Remote(f"{_HOME}/cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a"),
        Remote(f"{_HOME}/cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"),
    ),
    train=tuple(f"data_batch_{i}" for i in range(1, 6)),
    test="test_batch",
    key="labels",
    label_bytes=1,
    column="label",
)
CIFAR100 = Cifar(
    title="CIFAR-100",
    classes=100,
    folders=("cifar-100-python", "cifar-100-binary"),
    remotes=(
        Remote(f"{_HOME}/cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85"),
        Remote(f"{_HOME}/cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8"),
    ),
    train=("train",),
    test="test",
    key="fine_labels",
    label_bytes=2,
    column="fine_label",
)


def load_cifar(cifar: Cifar, places: Places) -> DataSet:
    """Load the first version found, folder by folder; else download the Python one.

    Args:
        cifar: which.
        places: where to look.
    """
    read = next((read for folder in places.folders for read in _versions(cifar, folder)), None)
    if read is None:
        remote = cifar.remotes[0]
        path = places.fetch(
            remote,
            remote.name,
            f"put {remote.name} or {cifar.remotes[1].name} of {_HOME}/cifar.html there, packed or "
            f"unpacked, or the Parquet files of Hugging Face's {places.name} (columns img, "
            f"{cifar.column})",
        )
        read = next(_versions(cifar, path.parent))
    train, test, stored = read()
    return DataSet(
        places.name,
        *train,
        *test,
        cifar.classes,
        f"{cifar.title} (Krizhevsky 2009), 32×32 colour images, stored as {stored}",
    )


def _versions(cifar: Cifar, folder: Path) -> Iterator[Callable[[], Version]]:
    """Yield a reader for each version that lies in the folder."""
    for inside, remote, read in zip(
        cifar.folders, cifar.remotes, (_read_python, _read_binary), strict=True
    ):
        files = [name + ".bin" * (read is _read_binary) for name in (*cifar.train, cifar.test)]
        for where in (folder / inside, folder):
            if any((where / name).is_file() for name in files):
                yield partial(_read, cifar, where, inside, read)
        if (folder / remote.name).is_file():
            yield partial(_read, cifar, folder / remote.name, inside, read)
    for where in (folder, folder / "data", folder / "plain_text", folder / folder.name):
        if any(where.glob("t*-*-of-*.parquet")):
            yield partial(_read_parquet, cifar, where)


def _read(
    cifar: Cifar, where: Path, inside: str, read: Callable[[Cifar, Tree, str], Split]
) -> Version:
    tree = open_tree(where, inside)
    parts = [read(cifar, tree, name) for name in cifar.train]
    train = torch.cat([images for images, _ in parts]), torch.cat([labels for _, labels in parts])
    return train, read(cifar, tree, cifar.test), "published"


def _read_python(cifar: Cifar, tree: Tree, name: str) -> Split:
    of = tree.at(name)
    content = read_pickle(tree.read(name), of)
    data, listed = content.get("data"), content.get(cifar.key)
    if not isinstance(data, np.ndarray) or data.ndim != 2 or data.shape[1] != _PIXELS:
        raise damaged(of, f"no data of shape (n, {_PIXELS})")
    if not isinstance(listed, list) or not all(type(label) is int for label in listed):
        raise damaged(of, f"no list {cifar.key!r} of integers")
    return _checked(cifar, torch.from_numpy(data.copy()), torch.tensor(listed).long(), of)


def _read_binary(cifar: Cifar, tree: Tree, name: str) -> Split:
    of = tree.at(name := f"{name}.bin")
    content = np.frombuffer(tree.read(name), np.uint8)
    width = cifar.label_bytes + _PIXELS
    if not content.size or content.size % width:
        raise damaged(of, f"{content.size} bytes, no multiple of {width}")
    rows = torch.from_numpy(content.reshape(-1, width).copy())
    labels = rows[:, cifar.label_bytes - 1].long()
    return _checked(cifar, rows[:, cifar.label_bytes :], labels, of)


def _checked(cifar: Cifar, data: Tensor, labels: Tensor, of: str) -> Split:
    check_labels(labels, data, cifar.classes, of)
    return data.reshape(-1, 3, _SIDE, _SIDE), labels


def _read_parquet(cifar: Cifar, folder: Path) -> Version:
    train, test = _shards(folder, "train"), _shards(folder, "test")
    arrays = kept(
        cifar.title,
        [stamp(path) for path in (*train, *test)],
        partial(_decode_parquet, train, test, cifar.column),
    )
    parts = {name: torch.from_numpy(array) for name, array in arrays.items() if name != "stored"}
    for split, files in (("train", train), ("test", test)):
        images, labels = parts[f"{split}-images"], parts[f"{split}-labels"]
        if images.shape[1:] != (3, _SIDE, _SIDE):
            raise ValueError(f"{files[0]} holds images of {tuple(images.shape[2:])}, not 32×32")
        check_labels(labels, images, cifar.classes, str(files[0]))
    return (
        (parts["train-images"], parts["train-labels"]),
        (parts["test-images"], parts["test-labels"]),
        str(arrays["stored"][0]),
    )


def _decode_parquet(train: list[Path], test: list[Path], column: str) -> Arrays:
    arrays: dict[str, npt.NDArray[Any]] = {}
    for split, files in (("train", train), ("test", test)):
        images, labels, stored = read_image_parquet(files, "img", column)
        arrays |= {f"{split}-images": images, f"{split}-labels": labels}
        arrays["stored"] = np.array([stored])
    return arrays


def _shards(folder: Path, split: str) -> list[Path]:
    """Return the files of a split: NAME-00000-of-00002.parquet and so on, all of them."""
    shards = sorted(folder.glob(f"{split}-*-of-*.parquet"))
    total = int(shards[0].stem.rpartition("-")[2]) if shards else 1
    wanted = [folder / f"{split}-{i:05d}-of-{total:05d}.parquet" for i in range(total)]
    for path in wanted:
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: get it where the others are from")
    return wanted
