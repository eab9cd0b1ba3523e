"""Data of one's own: folders of images, tables, data sets of Hugging Face, as they lie on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from regrow.data.labels import split_off
from regrow.data.parts import TEST_NAMES, WHOLE, find_parts, is_table, test_part
from regrow.data.pictures import is_image
from regrow.data.table_files import open_schema
from regrow.machine import expanded
from regrow.reading import decoding, read_file, refused
from regrow.vision.data.dataset import DataSet
from regrow.vision.data.own_images import (
    Files,
    OwnImages,
    find_images,
    read_images,
    read_stored_images,
)
from regrow.vision.data.own_tables import image_column, read_tables, table_set
from regrow.vision.data.own_targets import (
    Targets,
    are_hidden,
    check_numbers,
    code_labels,
    target_column,
)

__all__ = ["Own", "digest_of", "load_own", "open_own_files"]

_HELD_OUT = 0.2  # of what is not split: for testing
_MOST_PIXELS = 4096
_HASHED = 256 << 20  # bytes up to which files are read for their digest; sizes tell larger ones


@dataclass(frozen=True)
class Own:
    """Where data of one's own lie, and how they are read.

    Args:
        path: a folder of images by class, with ``train`` and ``test`` (or ``val``) or without; a
            CSV, Parquet or Arrow file; a folder of those; what Hugging Face's ``save_to_disk``
            wrote, or a snapshot of a data set. What is not split is: a fifth of each class, drawn
            by seed 0, is for testing.
        target: the column with what is learnt; empty: the one that is marked, or called so.
        leave_out: columns that are not looked at.
        pixels: side of the squares that images become; None: all are of one size, and stay so.
        digest: of what lies there: another one, other data.
        regression: learn the numbers of the target, not classes.
    """

    path: str
    target: str = ""
    leave_out: tuple[str, ...] = ()
    pixels: int | None = None
    digest: str = ""
    regression: bool = False


def digest_of(path: Path) -> str:
    """Return 16 hexadecimal digits that change with the names, sizes or content of data.

    Content counts up to 256 MiB, of larger data the names and sizes of files alone.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: it holds no images and no tables.
    """
    root = expanded(path)
    if not root.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    with decoding(path):
        within = sorted(root.rglob("*")) if root.is_dir() else [root]
        files = [f for f in within if f == root or is_image(f.name) or is_table(f)]
        sizes = [file.stat().st_size for file in files]
    if not files:
        find_parts(root)  # says what is missing
    digest, whole = hashlib.sha256(), sum(sizes) <= _HASHED
    for file, size in zip(files, sizes, strict=True):
        digest.update(f"{file.relative_to(root) if file != root else ''} {size}\n".encode())
        if whole:
            digest.update(read_file(file))
    return digest.hexdigest()[:16]


def open_own_files(
    own: Own, *, augment: bool = True, seed: int = 0
) -> tuple[OwnImages, OwnImages] | None:
    """Open image files that are read as they are needed, to train and to test on.

    Args:
        own: where they are.
        augment: train on random boxes, mirrored or not; else on the middles, as in testing.
        seed: of those.

    Returns:
        None where all is to be loaded: these are tables, or images that stay as they are.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: there is one class, or pixels are none.
    """
    if own.pixels is None:
        return None
    if not 1 <= own.pixels <= _MOST_PIXELS:
        raise ValueError(f"pixels={own.pixels}: must be at least 1 and at most {_MOST_PIXELS}")
    if (found := _split_files(own)) is None:
        return None
    train, test, about = found
    return (
        OwnImages(train, own.pixels, crops=augment, seed=seed, about=about),
        OwnImages(test, own.pixels, crops=False, seed=0, about=about),
    )


def load_own(own: Own) -> DataSet:
    """Load data of one's own into memory.

    Args:
        own: where they are.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: nothing can be learnt from it as it is; the message says why and what to do.
        ImportError: pyarrow or Pillow is missing.
    """
    path = expanded(own.path)
    if (found := _split_files(own)) is not None:
        train, test, about = found
        images = [read_images(part) for part in (train, test)]
        if images[0].shape[1:] != images[1].shape[1:]:
            raise refused(own.path, "has images of other sizes to test on", "give --pixels")
        known = [part.labels for part in (train, test)]
        return _data_set(path.name, _grey(images), known, len(train.classes), about)
    parts = dict(find_parts(path))
    files = [file for part in parts.values() for file in part]
    if (tested := test_part(parts)) is None or "train" not in parts:
        _check_unsplit(own, parts, tested)
        parts, tested = {"train": files}, None
    image = image_column(files[0], own.leave_out)
    if image is None:
        _check_unused(own, ("pixels",), f"is of images, and {files[0].name} is a table of numbers")
    told = "" if image is None else _unread(own, files[0], image)
    read = [_read_part(own, parts["train"], image)]
    while tested is not None:
        part = _read_part(own, parts[tested], image)
        if not are_hidden(part[1]):
            read.append(part)
            break
        told += f"; the classes of its part {tested!r} are hidden"
        tested = test_part({*parts} - {tested}) if tested == TEST_NAMES[0] else None
    about = f"{path.name}, " + (f"tested on its part {tested!r}" if tested else _fifth(own))
    if unread := sorted({*parts} - {"train", tested}):
        about += f"; not read: {', '.join(unread)}"
    inputs: list[Any] = [inputs for inputs, _ in read]
    labels, classes = _targets(own, [targets for _, targets in read])
    if tested is None:  # before anything is learnt of columns: what is held out is not looked at
        whole, coded = inputs[0], labels[0]
        halves = _halves(own, coded)
        inputs = [
            {name: column[half] for name, column in whole.items()} if image is None else whole[half]
            for half in halves
        ]
        labels = [coded[half] for half in halves]
        if own.regression:
            check_numbers(labels, own.path)
    if image is None:
        inputs, said = table_set(inputs, own.path)
        told += said
    about += told
    return _data_set(path.name, inputs if image is None else _grey(inputs), labels, classes, about)


def _check_unsplit(own: Own, parts: Mapping[str, Sequence[Path]], tested: str | None) -> None:
    """Refuse parts of which it is not sure what is learnt, and what tested on."""
    if {*parts} - {WHOLE, "train"}:
        fix = "add one to train" if tested else "add one called test or validation"
        known = " or ".join(sorted(parts))
        fix += f", or give {known} by itself, as --data, of which a fifth is tested on"
        raise refused(own.path, f"has the parts {', '.join(sorted(parts))}", fix)


def _unread(own: Own, path: Path, image: str) -> str:
    """Say which columns are beside images, and not learnt from."""
    used = {image, target_column(path, own.target, regression=own.regression), *own.leave_out}
    beside = [name for name in open_schema(path)[0] if name not in used]
    return f"; columns not read: {', '.join(beside)}" if beside else ""


def _read_part(own: Own, files: Sequence[Path], image: str | None) -> tuple[Any, Targets]:
    options: Mapping[str, Any] = {"leave_out": own.leave_out, "regression": own.regression}
    if image is None:
        return read_tables(files, own.target, **options)
    return read_stored_images(files, image, own.target, own.pixels, **options)


def _targets(own: Own, parts: Sequence[Targets]) -> tuple[list[Any], int]:
    """Return what is learnt as numbers, and of how many classes they are: one, if of none."""
    if own.regression:
        check_numbers(parts, own.path)
        return [*parts], 1
    return code_labels(parts, own.path)


def _halves(own: Own, targets: Any) -> list[Any]:
    """Return which rows are learnt and which tested on: of classes the same share of each."""
    strata = torch.zeros(len(targets), dtype=torch.int64)
    strata = strata if own.regression else torch.from_numpy(targets)
    return [half.numpy() for half in split_off(strata, _HELD_OUT, seed=0)]


def _fifth(own: Own) -> str:
    return _FIFTH.replace("of each class", "of the rows") if own.regression else _FIFTH


_FIFTH = "a fifth of each class for testing, drawn by seed 0"


def _split_files(own: Own) -> tuple[Files, Files, str] | None:
    """Return the image files to train and to test on, and how they were split; None: no images."""
    path = expanded(own.path)
    if not (found := find_images(path)):
        return None
    _check_unused(
        own, ("target", "leave_out", "regression"), "is of tables, and these are images in folders"
    )
    train, test, split = found["train"], found["test"], found["split"]
    if test is None:
        kept, held = split_off(torch.from_numpy(train.labels), _HELD_OUT, seed=0)
        train, test, split = train.only(kept), train.only(held), _FIFTH
    return train, test, f"{path.name}, {split}"


def _grey(parts: Sequence[Any]) -> list[Any]:
    """Keep one channel of images that are grey throughout, as scans of digits are."""
    if all((part == part[:, :1]).all() for part in parts):
        return [np.ascontiguousarray(part[:, :1]) for part in parts]
    return [*parts]


def _data_set(
    name: str, inputs: Sequence[Any], labels: Sequence[Any], classes: int, source: str
) -> DataSet:
    (train, test), (known, tested) = map(torch.from_numpy, inputs), map(torch.from_numpy, labels)
    return DataSet(name, train, known, test, tested, classes, source)


def _check_unused(own: Own, names: Sequence[str], why: str) -> None:
    for name in names:
        if value := getattr(own, name):
            raise ValueError(f"{name}={value!r}: {why}; leave it out")
