"""From a folder of volumes to tensors to train on, and from class scores back to files."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy.typing as npt
from torch import Tensor

from regrow.engine.ranks import rank_and_ranks
from regrow.reading import is_there, read_file
from regrow.segmentation.folders import Folder, open_folder
from regrow.segmentation.folds import Fold, absent, folds_of, read_folds
from regrow.segmentation.grids import Grid
from regrow.segmentation.kept_cases import kept_case
from regrow.segmentation.meaning import Meaning
from regrow.segmentation.metrics import scores_of
from regrow.segmentation.normalise import Normalisation
from regrow.segmentation.planning import Preparation
from regrow.segmentation.prepare import Prepared
from regrow.segmentation.problem import Figures, Volumes
from regrow.segmentation.samples import Sample
from regrow.segmentation.survey import Survey, over_cases, plan, survey
from regrow.segmentation.volumes import write_volume

__all__ = ["figures_of", "fingerprint", "open_fold", "plan_from", "write_labels"]

logger = logging.getLogger(__name__)

_FOLDS = 5
_SPLITS = "splits_final.json"

Array = npt.NDArray[Any]


def open_fold(
    path: Path, fold: int, cases: int | None = None, tell: Callable[[str], object] = str
) -> Volumes:
    """Read and prepare the cases of a data set; what was prepared once is kept in the user's cache.

    Bad cases are left out, with a warning that names them, as it does classes that a part of the
    fold lacks.

    Args:
        path: a folder of the Decathlon, or of nnU-Net, raw or preprocessed.
        fold: of five, 0 to 4: which cases are held out. They are nnU-Net's folds; if the folder has
            its ``splits_final.json``, those that this names.
        cases: learn from so many only; None: from all that are not held out.
        tell: takes a few words on how far it is.

    Returns:
        The volumes; they tell how they were prepared and what labels mean, for :func:`plan_from`,
        and ``left_out`` and ``absent``, as the warnings do.

    Raises:
        FileNotFoundError: the folder or its list is missing.
        ValueError: there is no such fold, or fewer than five cases can be used.
    """
    if fold not in range(_FOLDS):
        raise ValueError(f"fold={fold}: must be 0, 1, 2, 3 or 4")
    folder = open_folder(path)
    known = survey(folder, tell=tell)
    split = _split(folder, known, fold, cases)
    lacking = absent(split, {name: of.values for name, of in known.facts.items()}, folder.labels)
    warn = logger.warning if rank_and_ranks()[0] == 0 else logger.debug
    for left in known.left_out:
        warn("left out: %s: %s", left.name, left.why)
    for sentence in lacking:
        warn("fold %d: %s", fold, sentence)
    how, meaning = plan(folder, known, split.train), Meaning.of(folder)
    if folder.preprocessed is not None:  # normalised once already
        how = replace(how, channels=(Normalisation("nonorm"),) * len(folder.channels))
    names = {*split.train, *split.validation}
    chosen = [case for case in folder.cases if case.name in names]
    ready = over_cases(
        partial(kept_case, folder=folder, how=how, meaning=meaning), chosen, "prepared", tell
    )

    def judge(case: Sample, scores: Tensor, into: Path | None) -> Mapping[str, Figures]:
        own = ready[case.name]
        labels = meaning.labels(list(scores.cpu().numpy()), own.back, how)
        if into is not None:
            write_labels(into / f"{case.name}.nii.gz", labels, own.back)
        return figures_of(labels, own.truth, own.back.grid, meaning)

    return Volumes(
        training=[ready[name].sample for name in split.train],
        held_out=[ready[name].sample for name in split.validation],
        channels=len(folder.channels),
        outputs=meaning.outputs,
        spacing=how.spacing,
        judge=judge,
        regions=meaning.region_classes,
        told={
            "plan": asdict(how),
            "meaning": asdict(meaning),
            "preprocessed": folder.preprocessed is not None,
            "left_out": {left.name: left.why for left in known.left_out},
            "absent": lacking,
        },
    )


def _split(folder: Folder, known: Survey, fold: int, cases: int | None) -> Fold:
    """Choose a fold, and cases to learn from."""
    if os.path.lexists(chosen := folder.path / _SPLITS):
        split = _chosen(chosen, folder, known, fold)
    elif len(known.facts) < _FOLDS:
        why = "; ".join(f"{left.name}: {left.why}" for left in known.left_out[:3])
        raise ValueError(
            f"{folder.path}: {len(known.facts)} of {len(folder.cases)} cases can be used, and "
            f"{_FOLDS} folds need one each: add cases{', or mend ' + why if why else ''}"
        )
    else:
        split = folds_of(known.facts, _FOLDS)[fold]
    if cases is not None and not 1 <= cases <= len(split.train):
        raise ValueError(f"cases={cases}: fold {fold} has {len(split.train)} to learn from")
    return replace(split, train=split.train[:cases])


def _chosen(path: Path, folder: Folder, known: Survey, fold: int) -> Fold:
    """Return a fold that somebody has chosen, without the cases that cannot be used."""
    folds = read_folds(path, {case.name for case in folder.cases})
    if fold >= len(folds):
        raise ValueError(f"fold={fold}: {path} has {len(folds)} folds, the first is 0")
    parts = (folds[fold].train, folds[fold].validation)
    train, validation = (tuple(n for n in sorted(part) if n in known.facts) for part in parts)
    if not train or not validation:
        which = "to learn from" if validation else "held out"
        raise ValueError(f"fold={fold}: of {path}, no case that is {which} can be used")
    return Fold(train, validation)


def fingerprint(folder: Folder) -> str:
    """Return 16 hexadecimal digits that change with the list, names, sizes and folds of a set.

    Files that are missing count, too: their cases are left out later.
    """
    digest = hashlib.sha256()
    for case in folder.cases:
        for path in case.files:
            size = path.stat().st_size if is_there(path) else "missing"
            digest.update(f"{case.name} {path.name} {size}\n".encode())
    digest.update(repr((folder.labels, folder.channels, folder.regions, folder.ignore)).encode())
    if os.path.lexists(chosen := folder.path / _SPLITS):
        digest.update(read_file(chosen))
    return digest.hexdigest()[:16]


def write_labels(path: Path, labels: Array, prepared: Prepared) -> None:
    """Write labels as NIfTI in the geometry of the input file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_volume(path, labels, prepared.grid)


def figures_of(
    labels: Array, truth: Array, grid: Grid, meaning: Meaning
) -> dict[str, dict[str, float]]:
    """Judge predicted labels of a case, on the grid of its files.

    Args:
        labels: predicted, (depth, height, width).
        truth: labels, of the same shape.
        grid: of both.
        meaning: of the labels.

    Returns:
        By class or region ``dice``, ``surface_dice`` at 1 mm, ``hausdorff95`` in mm, and lesions
        ``found``, ``missed`` and ``false``.
    """
    found = scores_of(labels, truth, meaning.judged, grid.spacing, ignore=meaning.ignore)
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
