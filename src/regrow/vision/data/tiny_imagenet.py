"""Tiny-ImageNet: 200 classes of 64×64 images, in the folders it is published in."""

from __future__ import annotations

from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
import torch

from regrow.data.download import Remote
from regrow.data.kept import Arrays, kept
from regrow.data.labels import check_labels
from regrow.data.pictures import decode, is_image
from regrow.data.places import Places
from regrow.data.trees import Tree, open_tree
from regrow.reading import damaged
from regrow.vision.data.dataset import DataSet

__all__ = ["TINY_IMAGENET", "load_tiny_imagenet"]

TINY_IMAGENET = Remote(
    "http://cs231n.stanford.edu/tiny-imagenet-200.zip", "90528d7ca1a48142e341f4ef8d21d0de"
)

_INSIDE = "tiny-imagenet-200"

Labelled = list[tuple[str, int]]  # name of an image in the tree, class


def load_tiny_imagenet(places: Places) -> DataSet:
    """Load Tiny-ImageNet from its folders, or straight from its zip archive.

    Its validation part, which has labels, is the part for testing; its test part has none and is
    not read. It may lie as published (``val/images`` and ``val/val_annotations.txt``) or in one
    folder a class. Classes are numbered in the order of their WordNet ids, as readers of image
    folders do. Grey images become RGB.

    Args:
        places: where to look.
    """
    advice = f"put {TINY_IMAGENET.name} of {TINY_IMAGENET.url} there, packed or unpacked"
    where = places.find(_look, TINY_IMAGENET.name, advice, TINY_IMAGENET)
    tree = open_tree(where.parent if where.name == "wnids.txt" else where, _INSIDE)
    arrays = kept("tiny-imagenet", tree.stamps(), partial(_decode, tree))
    classes = int(arrays["classes"][0])
    parts = {}
    for split in ("train", "test"):
        images, labels = (
            torch.from_numpy(arrays[f"{split}-{what}"]) for what in ("images", "labels")
        )
        check_labels(labels, images, classes, str(tree.where))
        parts[split] = images, labels
    return DataSet(
        "tiny-imagenet",
        *parts["train"],
        *parts["test"],
        classes,
        "Tiny-ImageNet (CS231n), 64×64 colour images, tested on its validation part",
    )


def _look(folder: Path) -> Path | None:
    names = ("wnids.txt", f"{_INSIDE}/wnids.txt", TINY_IMAGENET.name)
    return next((folder / name for name in names if (folder / name).exists()), None)


def _decode(tree: Tree) -> Arrays:
    ids = sorted(tree.read("wnids.txt").decode("ascii", "replace").split())
    number = {name: i for i, name in enumerate(ids)}
    names = tree.names()
    arrays = {"classes": np.array([len(ids)])}
    for split, listed in (
        ("train", _by_class(names, "train", number)),
        ("test", _annotated(tree, names, number) or _by_class(names, "val", number)),
    ):
        if missing := set(range(len(ids))) - {label for _, label in listed}:
            folder = "train" if split == "train" else "val"
            raise tree.missing(f"any image of class {ids[min(missing)]} in {folder}")
        images = ((tree.at(name), tree.read(name)) for name, _ in listed)
        arrays[f"{split}-images"] = decode(images, len(listed))[0]
        arrays[f"{split}-labels"] = np.array([label for _, label in listed], np.int64)
    return arrays


def _by_class(names: list[str], part: str, number: dict[str, int]) -> Labelled:
    """Return the images of ``part/wnid/images`` or ``part/wnid``."""
    images = []
    for name in names:
        folders = PurePosixPath(name).parts[:-1]
        if is_image(name) and folders[:1] == (part,) and folders[2:] in ((), ("images",)):
            wnid = folders[1] if len(folders) > 1 else ""
            if wnid in number:
                images.append((name, number[wnid]))
    return images


def _annotated(tree: Tree, names: list[str], number: dict[str, int]) -> Labelled:
    """Return the images of ``val/images``, if they are there."""
    images = {name for name in names if name.startswith("val/images/") and is_image(name)}
    labelled = []
    annotations = tree.read("val/val_annotations.txt") if images else b""
    for line in annotations.decode("ascii", "replace").splitlines():
        image, _, rest = line.partition("\t")
        wnid = rest.partition("\t")[0]  # then a box, which is not read
        if wnid not in number:
            of = tree.at("val/val_annotations.txt")
            raise damaged(of, f"line {line!r}")
        if f"val/images/{image}" not in images:
            raise tree.missing(f"val/images/{image}")
        labelled.append((f"val/images/{image}", number[wnid]))
    return labelled
