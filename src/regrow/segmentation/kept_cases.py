"""Prepared cases, kept in the user's cache and mapped into memory.

A data set of hundreds of CT volumes does not fit into memory, and takes an hour to prepare.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from regrow.data.kept import Arrays, kept
from regrow.data.trees import stamp
from regrow.segmentation.cases import Volume
from regrow.segmentation.folders import Case, Folder
from regrow.segmentation.grids import Grid
from regrow.segmentation.meaning import Meaning
from regrow.segmentation.planning import Preparation
from regrow.segmentation.prepare import Prepared, prepare
from regrow.segmentation.samples import Sample, places_of_classes
from regrow.segmentation.survey import read

__all__ = ["KeptCase", "kept_case", "prepared_sample"]

Array = npt.NDArray[Any]

_RULE = 2  # raised when the same files are prepared differently


@dataclass(frozen=True, eq=False)
class KeptCase:
    """A labelled case, ready to learn from and to be judged by.

    Args:
        sample: what a network takes.
        back: what leads back to the file's grid, without labels.
        truth: labels as the file has them, (depth, height, width).
    """

    sample: Sample
    back: Prepared
    truth: Array


def kept_case(case: Case, folder: Folder, how: Preparation, meaning: Meaning) -> KeptCase:
    """Return a prepared case from the cache, or prepare and keep it.

    It is kept under path, size and time of change of its files, and all that decides how it is
    prepared. Of several processes one prepares it, and the others wait.

    Args:
        case: with labels.
        folder: that it is of.
        how: it is prepared.
        meaning: of its labels.

    Raises:
        FileNotFoundError: one of its files is missing.
        UnreadableError: it is unfit; the message says which file, why, and what mends it.
    """
    sources = [_RULE, *map(stamp, case.files), folder.preprocessed, how, meaning]
    make = lambda: _arrays(read(case, folder), how, meaning)  # noqa: E731
    arrays = kept(case.name, sources, make, folder="volumes", alone=True)
    places = torch.from_numpy(arrays["places"]).split(arrays["counts"].tolist())
    image, classes = (torch.from_numpy(arrays[name]) for name in ("image", "classes"))
    (d, h, w), spacing = (slice(*ends) for ends in arrays["box"].tolist()), arrays["spacing"]
    grid = Grid(arrays["header"].tobytes())
    back = Prepared(case.name, arrays["image"], None, grid, (d, h, w), tuple(spacing.tolist()))
    return KeptCase(Sample(case.name, image, classes, places), back, arrays["truth"])


def _arrays(volume: Volume, how: Preparation, meaning: Meaning) -> Arrays:
    sample, prepared = _prepared(volume, how, meaning)
    assert sample.label is not None and volume.labels is not None
    places = places_of_classes(sample.label)
    return {
        "image": prepared.image,
        "classes": sample.label.numpy(),
        "places": torch.cat([torch.zeros(0, dtype=torch.int64), *places]).numpy(),
        "counts": np.array([len(voxels) for voxels in places], np.int64),
        "truth": volume.labels,
        "header": np.frombuffer(prepared.grid.header, np.uint8),
        "box": np.array([(side.start, side.stop) for side in prepared.box]),
        "spacing": np.array(prepared.spacing),
    }


def prepared_sample(
    case: Case, folder: Folder, how: Preparation, meaning: Meaning
) -> tuple[Sample, Prepared]:
    """Read and prepare a case, labelled or not, without keeping it.

    Returns:
        What a network takes, and what leads back to the file's grid.

    Raises:
        FileNotFoundError: one of its files is missing.
        UnreadableError: as of :func:`kept_case`.
    """
    return _prepared(read(case, folder), how, meaning)


def _prepared(volume: Volume, how: Preparation, meaning: Meaning) -> tuple[Sample, Prepared]:
    prepared = prepare(volume, how)
    label = None
    if prepared.labels is not None:
        kind = np.int8 if len(meaning.values) <= np.iinfo(np.int8).max else np.int16
        label = torch.from_numpy(meaning.classes(prepared.labels).astype(kind))
    return Sample(volume.name, torch.from_numpy(prepared.image), label), prepared
