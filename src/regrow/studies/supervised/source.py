"""Opens data sets for training: in memory, on the GPU, or read from a folder of images."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from regrow.spelling import did_you_mean
from regrow.studies.supervised.glosses import load_glosses
from regrow.studies.supervised.spoken_digits import load_spoken_digits
from regrow.training.batch import Source
from regrow.vision.data import (
    UCF101,
    Batches,
    DataSet,
    FolderBatches,
    ImageFolder,
    Own,
    OwnImages,
    load_data,
    load_own,
    names,
    open_own_files,
    split_off,
    standard,
)

__all__ = [
    "Change",
    "Keep",
    "LabelledSource",
    "Pairs",
    "check_data",
    "known_data",
    "open_source",
]

_IMAGENET_MEAN, _IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_TEST_BATCH = 1000  # images, or frames of clips
_FOLDER_BATCH = 256
_READERS = 16  # processes that read images, on all ranks together

Pairs = Iterator[tuple[Tensor, Tensor]]

Change = Callable[[DataSet, torch.device], DataSet]
"""Changes a data set before it is standardized; a device may do it. It must be hashable."""

Keep = Callable[[Tensor, Tensor], Tensor]
"""A function of labels and indices that returns indices; it may keep some, and some twice."""


_FOLDERS: dict[str, Callable[[str | None, int], tuple[Any, Any]]] = {
    "imagenet": lambda where, seed: (
        ImageFolder.find("imagenet", "train", where, seed=seed),
        ImageFolder.find("imagenet", "val", where),
    ),
    "ucf101": lambda where, seed: (
        UCF101.find("train", where, seed=seed),
        UCF101.find("test", where),
    ),
}

_OTHERS: dict[str, Callable[[str | None, int], DataSet]] = {
    "wordnet": lambda where, _: load_glosses(where),
    "spoken-digits": load_spoken_digits,
}
_TURNS = ("spoken-digits",)  # whose test part hangs on the seed


def known_data() -> list[str]:
    """Return the names of all data sets that a trial can open.

    Example:
        >>> known_data()[:3]
        ['cifar10', 'cifar100', 'digits']
    """
    return sorted({*names(), *_FOLDERS, *_OTHERS})


def check_data(name: str) -> None:
    """Refuse a data set that no trial can open.

    Raises:
        ValueError: there is none of this name.
    """
    if name not in (known := known_data()):
        meant = did_you_mean(name, known)
        absent = ", and here is none of this name" if {"/", "\\", "."} & set(name) else ""
        raise ValueError(
            f"data={name!r}: must be one of {', '.join(known)}, or the path of a folder or file of "
            f"your own{absent}{meant}"
        )


@dataclass(frozen=True, kw_only=True)
class LabelledSource(Source):
    """A data set of labelled samples, opened for training and testing.

    Args:
        shape: of one input.
        classes: how many labels there are.
        validation: yields what was split off for validation, batch by batch.
        test: yields the test part, batch by batch.
        moments: mean and deviation by which inputs were standardized; None: ``ready`` does it.
        scale: mean and deviation by which numbers to be learnt were; (0, 1) for classes.
        about: how data of one's own were read, for people.
    """

    shape: tuple[int, ...]
    classes: int
    validation: Callable[[], Pairs]
    test: Callable[[], Pairs]
    moments: tuple[Tensor, Tensor] | None = None
    scale: tuple[float, float] = (0.0, 1.0)
    about: str = ""


def open_source(
    name: str,
    *,
    data_dir: str | None,
    device: torch.device,
    batch: int,
    seed: int,
    augment: bool,
    samples: int | None = None,
    validation: float = 0.0,
    rank: int = 0,
    ranks: int = 1,
    change: Change | None = None,
    keep: Keep | None = None,
    own: Own | None = None,
) -> LabelledSource:
    """Open a data set for training.

    Args:
        name: of :func:`regrow.vision.data.names`, "imagenet" for a folder with ``train`` and
            ``val``, "ucf101", or of what is no vision: "wordnet", "spoken-digits".
        data_dir: where data lie, if not in the usual places.
        device: where batches are wanted.
        batch: samples in a batch, over all ranks.
        seed: of order, augmentation and splits.
        augment: whether to change training images as is usual for this set.
        samples: use only so many training samples, as many of each class; None is all.
        validation: the share of the training samples kept for validation, at least 0.
        rank: which process this is.
        ranks: how many train together.
        change: what is done to the data set first.
        keep: which samples are trained on, of those that ``samples`` and ``validation`` leave.
        own: data of one's own, which the name then only calls.

    Raises:
        ValueError: an argument is out of range.
        FileNotFoundError: the data are not there; the message says how to get them.
    """
    common: dict[str, Any] = {"seed": seed, "rank": rank, "ranks": ranks}
    files = None if own is None else open_own_files(own, augment=augment, seed=seed)
    if files is not None or (own is None and name in _FOLDERS):
        if samples is not None or validation:
            raise ValueError(f"data={name!r} is read as it is: leave samples and validation out")
        if change or keep:
            raise ValueError(f"data={name!r} is read as it is: use a data set that fits in memory")
        train_part, test_part = files or _FOLDERS[name](data_dir, seed)
        return _open_folder(train_part, test_part, device, batch, common)
    turn = seed if name in _TURNS else 0
    train, labels, test, test_labels, classes, moments, scale, about = _arrays(
        name, data_dir, device, change, own, turn
    )
    kept = torch.arange(len(labels), device=device)
    if samples is not None and samples != len(labels):
        if not 0 < samples < len(labels):
            raise ValueError(f"samples={samples}: data={name!r} has {len(labels)} for training")
        kept = split_off(_strata(labels), samples / len(labels), seed)[1]
    held_out = kept[:0]
    if validation:
        stay, off = split_off(_strata(labels[kept]), validation, seed)
        kept, held_out = kept[stay], kept[off]
    if keep is not None:
        kept = keep(labels[kept], kept)
    # As many need not be the same ones: ``keep`` may take some twice.
    whole = len(kept) == len(labels) and bool((kept.diff() > 0).all())
    inputs, targets = (train, labels) if whole else (train[kept], labels[kept])
    if batch > len(inputs):
        many = f"{len(inputs)} samples to train on"
        raise ValueError(f"batch={batch}: data={name!r} has {many}: take a smaller one")
    augmented = standard(name) if augment and own is None and name not in _OTHERS else None
    return LabelledSource(
        shape=tuple(train.shape[1:]),
        classes=classes,
        batches=Batches(inputs, targets, batch, augment=augmented, **common),
        validation=lambda: _in_parts(train, labels, held_out),
        test=lambda: zip(test.split(_many(test)), test_labels.split(_many(test)), strict=True),
        example=lambda n: torch.zeros(n, *train.shape[1:]),
        moments=moments,
        scale=scale,
        about=about,
    )


def _strata(labels: Tensor) -> Tensor:
    """Return what is split class by class: numbers are of no class."""
    return torch.zeros_like(labels, dtype=torch.int64) if labels.is_floating_point() else labels


def _in_parts(inputs: Tensor, labels: Tensor, kept: Tensor) -> Pairs:
    for index in kept.split(_many(inputs)):
        yield inputs[index], labels[index]


def _many(inputs: Tensor) -> int:
    frames = inputs.shape[2] if inputs.ndim == 5 else 1
    return max(1, _TEST_BATCH // frames)


@functools.lru_cache(maxsize=1)
def _arrays(
    name: str,
    data_dir: str | None,
    device: torch.device,
    change: Change | None = None,
    own: Own | None = None,
    turn: int = 0,
) -> tuple[Any, ...]:
    """Load and standardize once for all trials of this process."""
    if own is not None:
        data = load_own(own)
    elif name in _OTHERS:
        data = _OTHERS[name](data_dir, turn)
    else:
        data = load_data(name, data_dir)
    if change is not None:
        data = change(data, device)
    train, test = data.standardized()
    targets, scale = _scaled(data)
    labels = [part.to(device) for part in targets]
    mean, deviation = (moment.to(device) for moment in data.moments())
    train, test = train.to(device), test.to(device)
    about = "" if own is None else data.source
    return train, labels[0], test, labels[1], data.classes, (mean, deviation), scale, about


def _scaled(data: DataSet) -> tuple[tuple[Tensor, Tensor], tuple[float, float]]:
    """Standardize numbers that are learnt by those of the training part; classes stay."""
    parts = (data.train_labels, data.test_labels)
    if not parts[0].is_floating_point():
        return parts, (0.0, 1.0)
    deviation, mean = torch.std_mean(parts[0].double())
    train, test = (((part.double() - mean) / deviation).float() for part in parts)
    return (train, test), (float(mean), float(deviation))


def _open_folder(
    train: ImageFolder | OwnImages | UCF101,
    test: ImageFolder | OwnImages | UCF101,
    device: torch.device,
    batch: int,
    common: dict[str, Any],
) -> LabelledSource:
    """Read in worker processes what does not fit into memory; bytes turn floats on the device."""
    pin = device.type == "cuda"
    workers = max(1, min(_READERS, os.cpu_count() or 1) // common["ranks"])
    shape = train.read(0, 0)[0].shape
    many = max(1, _FOLDER_BATCH // math.prod(shape[1:-2]))
    tests = FolderBatches(
        test, min(many, len(test)), seed=0, drop_last=False, workers=workers, pin_memory=pin
    )
    mean, deviation = (
        255 * torch.tensor(v, device=device).view(-1, *(1 for _ in shape[1:]))
        for v in (_IMAGENET_MEAN, _IMAGENET_DEVIATION)
    )
    return LabelledSource(
        shape=tuple(shape),
        classes=len(train.classes),
        batches=FolderBatches(train, batch, workers=workers, pin_memory=pin, **common),
        validation=lambda: iter(()),
        test=lambda: ((batch.inputs, batch.targets) for batch in tests.epoch(0)),
        example=lambda n: torch.zeros(n, *shape),
        ready=lambda pixels: (pixels.to(device, non_blocking=True).float() - mean) / deviation,
        about=train.about if isinstance(train, OwnImages) else "",
    )
