"""Test images under corruption: made where they are needed, or read from a published set."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from regrow.studies.training.source import IMAGENET_DEVIATION, IMAGENET_MEAN, Pairs
from regrow.vision.corruptions import CorruptedFolder, corrupt, corrupt_video, load_corrupted
from regrow.vision.data import DataSet, load_data

__all__ = ["SEED", "bytes_of_test", "corrupted_test", "standardized"]

SEED = 0  # of what is drawn: every trial is tested on the same images
_AT_ONCE = 1000
_FOLDER_AT_ONCE = 256
_ARRAYS, _FOLDERS = ("cifar10", "cifar100"), ("tiny-imagenet", "imagenet")


def corrupted_test(
    data: str,
    corruption: str,
    severity: int,
    *,
    published: bool = False,
    count: int | None = None,
    data_dir: str | None = None,
    device: torch.device,
) -> Pairs:
    """Yield the test part of a data set under one corruption, standardized, batch by batch.

    Args:
        data: the data set's name.
        corruption: of :data:`regrow.vision.corruptions.CORRUPTIONS` or ``EXTRA``.
        severity: from 1 to 5.
        published: read the published set (CIFAR-10-C and its like) instead of making one.
        count: how many of the test images, the first ones; None is all. Of images made here only.
        data_dir: where data lie, if not in the usual places.
        device: where batches are wanted.

    Raises:
        ValueError: an argument is unknown or out of range, or there is no such published set.
        FileNotFoundError: data are not there; the message says how to get them.
    """
    if published:
        return _published(data, corruption, severity, data_dir, device)
    if data == "imagenet":
        raise ValueError("data='imagenet' is corrupted by its published set only: published=True")
    images = _made(data, corruption, severity, count, data_dir, device)
    labels = bytes_of_test(data, data_dir, device)[1][: len(images)]
    return _ready(data, data_dir, images, labels)


def bytes_of_test(
    data: str, data_dir: str | None, device: torch.device, count: int | None = None
) -> tuple[Tensor, Tensor]:
    """Return test images as uint8, and labels, on a device.

    Args:
        data: the data set's name.
        data_dir: where data lie, if not in the usual places.
        device: where they are wanted.
        count: how many, the first ones; None is all.

    Raises:
        ValueError: the data are no images, or ``count`` is not among their numbers.
    """
    loaded = _loaded(data, data_dir)
    if loaded.test_inputs.dtype != torch.uint8:
        raise ValueError(f"data={data!r} holds no images: there is nothing to corrupt")
    if count is not None and not 0 < count <= len(loaded.test_labels):
        raise ValueError(f"count={count}: data={data!r} has {len(loaded.test_labels)} to test on")
    return loaded.test_inputs[:count].to(device), loaded.test_labels[:count].to(device)


def standardized(data: str, data_dir: str | None, images: Tensor) -> Tensor:
    """Standardize bytes, or floats on their scale 0 to 255, as the training images were.

    Args:
        data: the data set's name.
        data_dir: where data lie, if not in the usual places.
        images: shape (n, channels, ...).
    """
    mean, deviation = _moments(data, data_dir, images.device)
    return (images.float() - mean) / deviation


def _ready(data: str, data_dir: str | None, images: Tensor, labels: Tensor) -> Pairs:
    for some, their in zip(images.split(_AT_ONCE), labels.split(_AT_ONCE), strict=True):
        yield standardized(data, data_dir, some), their


@functools.lru_cache(maxsize=1)
def _loaded(data: str, data_dir: str | None) -> DataSet:
    return load_data(data, data_dir)


@functools.lru_cache(maxsize=1)
def _moments(data: str, data_dir: str | None, device: torch.device) -> tuple[Tensor, Tensor]:
    if data == "imagenet":
        mean, deviation = (
            255 * torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_DEVIATION)
        )
    else:
        mean, deviation = _loaded(data, data_dir).moments()
    return mean.to(device), deviation.to(device)


@functools.lru_cache(maxsize=100)  # nineteen corruptions of five severities
def _made(
    data: str,
    corruption: str,
    severity: int,
    count: int | None,
    data_dir: str | None,
    device: torch.device,
) -> Tensor:
    images = bytes_of_test(data, data_dir, device, count)[0]
    if images.ndim == 5:  # models take (channels, frames, ...), corruptions (frames, channels, ...)
        clips = images.transpose(1, 2)
        return corrupt_video(clips, corruption, severity, seed=SEED).transpose(1, 2)
    return corrupt(images, corruption, severity, seed=SEED)


def _published(
    data: str, corruption: str, severity: int, data_dir: str | None, device: torch.device
) -> Pairs:
    name = f"{data}-c"
    if data in _ARRAYS:
        images, labels = load_corrupted(name, corruption, severity, data_dir)
        yield from _ready(data, data_dir, images.to(device), labels.to(device))
    elif data in _FOLDERS:
        folder = CorruptedFolder.find(name, corruption, severity, data_dir)
        for some, their in folder.batches(_FOLDER_AT_ONCE):
            yield standardized(data, data_dir, some.to(device)), their.to(device)
    else:
        raise ValueError(
            f"data={data!r} has no published set of corruptions: must be one of "
            f"{', '.join(_ARRAYS + _FOLDERS)}; or give published=False"
        )
