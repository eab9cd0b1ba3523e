"""The streams of the study: data sets in memory, sampled, standardized."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from regrow.continual.streams import STREAMS, Stream, load_mini_imagenet, make_stream
from regrow.data.places import Places
from regrow.engine.selection import sample, seeded_generator
from regrow.vision.data import DataSet, load_data

__all__ = ["open_stream"]

_MINI = "mini-imagenet"


def open_stream(
    name: str,
    *,
    data_dir: str | None,
    seed: int,
    device: torch.device,
    samples: int | None = None,
    tests: int | None = None,
) -> Stream:
    """Open a stream of images, standardized by mean and deviation of all training images.

    Args:
        name: of :data:`regrow.continual.streams.STREAMS`.
        data_dir: where data lie, if not in the usual places.
        seed: of permutations, and of the samples used.
        device: where tasks are wanted.
        samples: training images used, of the whole data set; None is all.
        tests: test images used; None is all.

    Raises:
        ValueError: there is no such stream, or not so many images.
        FileNotFoundError: the data are not there; the message says how to get them.
    """
    if name not in STREAMS:
        raise ValueError(f"stream={name!r}: must be one of {', '.join(STREAMS)}")
    data, mean, deviation = _loaded(STREAMS[name].data, data_dir, device)
    parts = _some(data, "train", samples, seed) | _some(data, "test", tests, seed)
    stream = make_stream(name, replace(data, **parts), seed=seed)
    return stream.prepared(lambda inputs: (inputs.float() - mean) / deviation)


def _some(data: DataSet, part: str, n: int | None, seed: int) -> dict[str, Any]:
    """Draw images of one part; the same ones for all learners with one seed."""
    names = (f"{part}_inputs", f"{part}_labels")
    inputs, labels = (getattr(data, name) for name in names)
    if n is None:
        return {}
    if not 0 < n <= len(labels):
        raise ValueError(f"{part} images: {n} are wanted, and {data.name} has {len(labels)}")
    index = sample(len(labels), n, seeded_generator(seed, part)).to(labels.device)
    return dict(zip(names, (inputs[index], labels[index]), strict=True))


@functools.lru_cache(maxsize=1)
def _loaded(
    name: str, data_dir: str | None, device: torch.device
) -> tuple[DataSet, Tensor, Tensor]:
    """Load once for all trials of this process: raw pixels, their mean and deviation."""
    data = _mini_imagenet(data_dir) if name == _MINI else load_data(name, data_dir)
    mean, deviation = data.moments()
    moved: dict[str, Any] = {
        field: getattr(data, field).to(device)
        for field in ("train_inputs", "train_labels", "test_inputs", "test_labels")
    }
    return replace(data, **moved), mean.to(device), deviation.to(device)


def _mini_imagenet(data_dir: str | None) -> DataSet:
    root = Places(_MINI, data_dir).find(
        lambda folder: folder if folder.is_dir() else None,
        "a folder of images",
        "put train.csv, val.csv, test.csv and images/, or a folder a class, into one of them; it "
        "cannot be downloaded",
    )
    arrays = load_mini_imagenet(root)
    return DataSet(
        _MINI,
        arrays.train_inputs,
        arrays.train_labels,
        arrays.test_inputs,
        arrays.test_labels,
        arrays.classes,
        str(root),
    )
