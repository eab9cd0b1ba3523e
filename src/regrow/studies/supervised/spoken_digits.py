"""Spoken digits as a data set of pictures of sound: speakers who are tested on are not learnt."""

from __future__ import annotations

import functools
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool1d

from regrow.speech.audio import read_samples
from regrow.speech.corpora.trees import find_spoken_digits, read_spoken_digits
from regrow.speech.features import log_mel, standardise
from regrow.vision.data import DataSet

__all__ = ["load_spoken_digits"]

_MELS, _PARTS = 40, 20
_OUT = 2  # speakers to test on


def load_spoken_digits(data_dir: str | Path | None = None, seed: int = 0) -> DataSet:
    """Load the Free Spoken Digit Dataset; its speakers take turns in being tested on.

    With seed s the speakers s and s + 1 are for testing, in alphabetical order and around the
    circle, and all others for training: of six speakers two, a third of the recordings. Six seeds
    in a row test each speaker twice.

    A recording is 40 log-mel bands, standardised over its length, of which 20 parts of equal length
    are averaged: 800 features, whatever it lasts.

    Args:
        data_dir: the folder that holds ``free-spoken-digit-dataset``; else the usual places.
        seed: decides who is tested on.

    Raises:
        FileNotFoundError: the recordings are not there.
        ValueError: there are too few speakers, or a recording is damaged.
        ImportError: soundfile is missing.

    Source: github.com/Jakobovski/free-spoken-digit-dataset.
    """
    folder = find_spoken_digits(data_dir)
    inputs, labels, speakers = _recordings(folder)
    many = int(speakers.max()) + 1
    if many <= _OUT:
        raise ValueError(f"{folder}: {many} speakers, and {_OUT} are left out to test on")
    test = ((speakers - seed) % many) < _OUT
    return DataSet(
        name="spoken-digits",
        train_inputs=inputs[~test],
        train_labels=labels[~test],
        test_inputs=inputs[test],
        test_labels=labels[test],
        classes=10,
        source=f"Free Spoken Digit Dataset, {_OUT} of {many} speakers for testing",
    )


@functools.lru_cache(maxsize=1)
def _recordings(folder: Path) -> tuple[Tensor, Tensor, Tensor]:
    """Return features, digits, and the numbers of speakers in alphabetical order."""
    corpus = read_spoken_digits(folder)
    names = sorted({one.speaker for one in corpus.utterances})
    inputs = []
    for one in corpus.utterances:
        samples, rate = read_samples(one.audio)
        bands = standardise(log_mel(torch.from_numpy(samples), rate, _MELS)).T
        inputs.append(adaptive_avg_pool1d(bands, _PARTS).flatten())
    labels = torch.tensor([int(one.id.partition("_")[0]) for one in corpus.utterances])
    speakers = torch.tensor([names.index(one.speaker) for one in corpus.utterances])
    return torch.stack(inputs), labels, speakers
