"""Test images under corruption: made where they are needed, or read from a published set."""

from __future__ import annotations

import functools
from collections.abc import Iterable

import torch
from torch import Tensor

from regrow.studies.supervised.source import LabelledSource, Pairs
from regrow.vision.corruptions import CorruptedFolder, corrupt, corrupt_video, load_corrupted
from regrow.vision.data import load_data

__all__ = ["SEED", "clean_test", "corrupted_test", "standardized"]

SEED = 0  # of what is drawn: every trial is tested on the same images
_AT_ONCE = 1000
_FOLDER_AT_ONCE = 256
_ARRAYS, _FOLDERS = ("cifar10", "cifar100"), ("tiny-imagenet", "imagenet")


def clean_test(
    source: LabelledSource, data: str, *, count: int | None = None, data_dir: str | None = None
) -> Pairs:
    """Yield the test part of a data set as bytes, batch by batch.

    Args:
        source: the data set, opened for training.
        data: its name.
        count: how many of the test images, the first ones, if they fit in memory; None is all.
        data_dir: where data lie, if not in the usual places.

    Raises:
        ValueError: the data are no images, or ``count`` is not among their numbers.
    """
    if source.moments is None:
        if count is not None:
            raise ValueError(f"count={count}: data={data!r} is tested whole, give None")
        yield from source.test()
    else:
        yield from _in_parts(*_bytes(data, count, data_dir, source.moments[0].device))


def corrupted_test(
    source: LabelledSource,
    data: str,
    corruption: str,
    severity: int,
    *,
    published: bool = False,
    count: int | None = None,
    data_dir: str | None = None,
) -> Pairs:
    """Yield the test part of a data set under one corruption, for ``source.ready``.

    What fits in memory is corrupted once for all trials of a process.

    Args:
        source: the data set, opened for training.
        data: its name.
        corruption: of :data:`regrow.vision.corruptions.CORRUPTIONS` or ``EXTRA``.
        severity: from 1 to 5.
        published: read the published set (CIFAR-10-C and its like) instead of making one.
        count: as of :func:`clean_test`.
        data_dir: where data lie, if not in the usual places.

    Raises:
        ValueError: an argument is unknown or out of range, or there is no such published set.
        FileNotFoundError: data are not there; the message says how to get them.
    """
    if published:
        pairs = _published(data, corruption, severity, data_dir)
    elif source.moments is None:
        pairs = _on_the_way(clean_test(source, data, count=count), corruption, severity)
    else:
        device = source.moments[0].device
        images = _made(data, corruption, severity, count, data_dir, device)
        labels = _bytes(data, count, data_dir, device)[1]
        pairs = _in_parts(images, labels)
    for images, labels in pairs:
        yield standardized(images, source), labels


def standardized(images: Tensor, source: LabelledSource) -> Tensor:
    """Standardize bytes, or floats on their scale 0 to 255, as the training images were.

    Args:
        images: shape (n, channels, ...).
        source: the data set; where it does so itself, images are left to it.
    """
    if source.moments is None:
        return images
    mean, deviation = source.moments
    return (images.to(mean.device).float() - mean) / deviation


@functools.lru_cache(maxsize=1)  # moved to the device once, not once a corruption
def _bytes(
    data: str, count: int | None, data_dir: str | None, device: torch.device
) -> tuple[Tensor, Tensor]:
    loaded = load_data(data, data_dir)
    if loaded.test_inputs.dtype != torch.uint8:
        raise ValueError(f"data={data!r} holds no images: there is nothing to corrupt")
    if count is not None and not 0 < count <= len(loaded.test_labels):
        raise ValueError(f"count={count}: data={data!r} has {len(loaded.test_labels)} to test on")
    return loaded.test_inputs[:count].to(device), loaded.test_labels[:count].to(device)


@functools.lru_cache(maxsize=100)  # nineteen corruptions of five severities
def _made(
    data: str,
    corruption: str,
    severity: int,
    count: int | None,
    data_dir: str | None,
    device: torch.device,
) -> Tensor:
    parts = _in_parts(*_bytes(data, count, data_dir, device))  # some take 100 times the memory
    return torch.cat([changed for changed, _ in _on_the_way(parts, corruption, severity)])


def _in_parts(images: Tensor, labels: Tensor) -> Pairs:
    return zip(images.split(_AT_ONCE), labels.split(_AT_ONCE), strict=True)


def _on_the_way(pairs: Pairs, corruption: str, severity: int) -> Pairs:
    first = 0
    for images, labels in pairs:
        yield _corrupt(images, corruption, severity, first), labels
        first += len(labels)


def _corrupt(images: Tensor, corruption: str, severity: int, first: int = 0) -> Tensor:
    if images.ndim == 4:
        return corrupt(images, corruption, severity, seed=SEED, first=first)
    clips = images.transpose(1, 2)  # a model takes channels first, a corruption frames
    return corrupt_video(clips, corruption, severity, seed=SEED, first=first).transpose(1, 2)


def _published(
    data: str, corruption: str, severity: int, data_dir: str | None
) -> Iterable[tuple[Tensor, Tensor]]:
    name = f"{data}-c"
    if data in _ARRAYS:
        images, labels = load_corrupted(name, corruption, severity, data_dir)
        return _in_parts(images, labels)
    if data in _FOLDERS:
        return CorruptedFolder.find(name, corruption, severity, data_dir).batches(_FOLDER_AT_ONCE)
    raise ValueError(
        f"data={data!r} has no published set of corruptions: must be one of "
        f"{', '.join(_ARRAYS + _FOLDERS)}; or give published=False"
    )
