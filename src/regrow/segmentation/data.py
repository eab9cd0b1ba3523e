"""From a folder of volumes to tensors to train on, and from class scores back to files."""

from __future__ import annotations

import functools
import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from regrow.segmentation.cases import Volume
from regrow.segmentation.folders import Case, Folder, open_folder
from regrow.segmentation.folds import folds_of
from regrow.segmentation.labels import classes_of, of_classes, of_regions
from regrow.segmentation.metrics import scores_of
from regrow.segmentation.normalise import Normalisation
from regrow.segmentation.patches import Sample
from regrow.segmentation.planning import Preparation
from regrow.segmentation.prepare import Prepared, prepare, restore_scores
from regrow.segmentation.problem import Figures, Volumes
from regrow.segmentation.survey import Survey, plan, read, survey
from regrow.segmentation.volumes import write_volume

__all__ = [
    "Meaning",
    "figures_of",
    "fingerprint",
    "open_fold",
    "plan_from",
    "prepared_sample",
    "write_labels",
]

logger = logging.getLogger(__name__)

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Meaning:
    """What a network's outputs mean.

    Args:
        values: of label files, ascending, the background (0) first: class i is the i-th.
        names: of the values.
        regions: name to the values it consists of; later ones are written over earlier ones.
            Without any, outputs are the classes.
        ignore: the value of voxels that nobody has judged.
        written: the value that each region writes.
    """

    values: tuple[int, ...]
    names: tuple[str, ...]
    regions: Mapping[str, tuple[int, ...]]
    ignore: int | None = None
    written: tuple[int, ...] = ()

    @classmethod
    def of(cls, folder: Folder) -> Meaning:
        """Return what the labels of a data set mean."""
        labels = dict(sorted(folder.labels.items()))
        names = tuple(labels.values())
        return cls(tuple(labels), names, dict(folder.regions), folder.ignore, folder.written)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the network's outputs."""
        return tuple(self.regions) if self.regions else self.names

    @property
    def judged(self) -> dict[str, tuple[int, ...]]:
        """The values of each class but the background, or of each region, by name."""
        if self.regions:
            return dict(self.regions)
        return {n: (v,) for v, n in zip(self.values, self.names, strict=True) if v}

    @property
    def region_classes(self) -> list[list[int]] | None:
        """The classes of each region, if outputs are regions."""
        if not self.regions:
            return None
        return [[self.values.index(v) for v in of] for of in self.regions.values()]

    def classes(self, labels: Array) -> Array:
        """Number labels by class; what nobody has judged is -1.

        Example:
            >>> Meaning((0, 4), ("background", "tumour"), {}, ignore=9).classes(np.array([4, 0, 9]))
            array([ 1,  0, -1])
        """
        if self.ignore is None:
            return classes_of(labels, self.values)
        judged = labels != self.ignore
        return np.where(judged, classes_of(np.where(judged, labels, 0), self.values), -1)

    def labels(self, scores: Sequence[Array], prepared: Prepared, how: Preparation) -> Array:
        """Return the labels, on the grid of the input, that class scores say."""
        if not self.regions:
            return of_classes(restore_scores(scores, prepared, how), self.values)
        masks = [restore_scores([np.zeros_like(s), s], prepared, how) > 0 for s in scores]
        return of_regions(np.stack(masks), self.written)


def open_fold(path: Path, fold: int, cases: int | None = None) -> Volumes:
    """Read and prepare the cases of a data set, once in a process.

    Bad cases are left out, with a warning that names them.

    Args:
        path: a folder of the Decathlon, or of nnU-Net, raw or preprocessed.
        fold: of five, 0 to 4: which cases are held out. They are nnU-Net's folds.
        cases: learn from so many only; None: from all that are not held out.

    Returns:
        The volumes; they tell how they were prepared and what labels mean, for :func:`plan_from`.

    Raises:
        FileNotFoundError: the folder or a file of it is missing.
        ValueError: there is no such fold, or no case can be used.
    """
    if fold not in range(5):
        raise ValueError(f"fold={fold}: must be 0, 1, 2, 3 or 4")
    folder, known = _opened(path)
    for left in known.left_out:
        logger.warning("left out: %s: %s", left.name, left.why)
    split = folds_of(known.facts)[fold]
    if cases is not None and not 1 <= cases <= len(split.train):
        raise ValueError(f"cases={cases}: fold {fold} has {len(split.train)} to learn from")
    names = split.train[:cases]
    how, meaning = plan(folder, known, names), Meaning.of(folder)
    if folder.preprocessed is not None:  # normalised once already
        how = replace(how, channels=(Normalisation("nonorm"),) * len(folder.channels))
    by_name = {case.name: case for case in folder.cases}
    held = {name: prepared_sample(by_name[name], folder, how, meaning) for name in split.validation}

    def judge(case: Sample, scores: Tensor, into: Path | None) -> Mapping[str, Figures]:
        prepared = held[case.name][1]
        labels = meaning.labels(list(scores.cpu().numpy()), prepared, how)
        if into is not None:
            write_labels(into / f"{case.name}.nii.gz", labels, prepared)
        truth = read(by_name[case.name], folder)
        assert truth.labels is not None
        return figures_of(labels, truth, meaning)

    return Volumes(
        training=[prepared_sample(by_name[name], folder, how, meaning)[0] for name in names],
        held_out=[sample for sample, _ in held.values()],
        channels=len(folder.channels),
        outputs=meaning.outputs,
        spacing=how.spacing,
        judge=judge,
        regions=meaning.region_classes,
        told={"plan": asdict(how), "meaning": asdict(meaning)},
    )


def fingerprint(folder: Folder) -> str:
    """Return 16 hexadecimal digits that change with the list, names or sizes of a set's files.

    Raises:
        FileNotFoundError: a file is missing.
    """
    digest = hashlib.sha256()
    for case in folder.cases:
        for path in (*case.images, *([case.label] if case.label else [])):
            digest.update(f"{case.name} {path.name} {path.stat().st_size}\n".encode())
    digest.update(repr((folder.labels, folder.channels, folder.regions, folder.ignore)).encode())
    return digest.hexdigest()[:16]


def prepared_sample(
    case: Case, folder: Folder, how: Preparation, meaning: Meaning
) -> tuple[Sample, Prepared]:
    """Read and prepare a case.

    Returns:
        What a network takes, and what leads back to the file's grid.
    """
    prepared = prepare(read(case, folder), how)
    labels = prepared.labels
    label = None
    if labels is not None:
        label = torch.from_numpy(meaning.classes(labels).astype(np.int16))
    return Sample(case.name, torch.from_numpy(prepared.image), label), prepared


def write_labels(path: Path, labels: Array, prepared: Prepared) -> None:
    """Write labels as NIfTI in the geometry of the input file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_volume(path, labels, prepared.grid)


def figures_of(labels: Array, truth: Volume, meaning: Meaning) -> dict[str, dict[str, float]]:
    """Judge predicted labels of a case, on the grid of its files.

    Args:
        labels: predicted, (depth, height, width).
        truth: the case.
        meaning: of the labels.

    Returns:
        By class or region ``dice``, ``surface_dice`` at 1 mm, ``hausdorff95`` in mm, and lesions
        ``found``, ``missed`` and ``false``.
    """
    assert truth.labels is not None
    found = scores_of(
        labels, truth.labels, meaning.judged, truth.grid.spacing, ignore=meaning.ignore
    )
    return {
        name: {
            "dice": float(of.dice),
            "surface_dice": float(of.surface_dice),
            "hausdorff95": float(of.hausdorff95),
            "found": of.lesions.found,
            "missed": of.lesions.missed,
            "false": of.lesions.false,
        }
        for name, of in found.items()
    }


def plan_from(told: Mapping[str, Any]) -> tuple[Preparation, Meaning]:
    """Return how volumes were prepared and what labels mean, from plain data of :func:`open_fold`.

    Args:
        told: with ``plan`` and ``meaning``, as read from JSON.
    """
    how, meaning = told["plan"], told["meaning"]
    channels = tuple(Normalisation(**channel) for channel in how["channels"])
    return (
        Preparation(tuple(how["axes"]), tuple(how["spacing"]), channels, how["masked"]),
        Meaning(
            tuple(meaning["values"]),
            tuple(meaning["names"]),
            {name: tuple(of) for name, of in meaning["regions"].items()},
            meaning["ignore"],
            tuple(meaning["written"]),
        ),
    )


@functools.lru_cache(maxsize=1)
def _opened(path: Path) -> tuple[Folder, Survey]:
    folder = open_folder(path)
    return folder, survey(folder)
