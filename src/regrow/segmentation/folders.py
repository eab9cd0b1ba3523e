"""Finds the cases of a data set: Decathlon folders, nnU-Net's raw and preprocessed ones."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from regrow.machine import expanded
from regrow.reading import decoding, is_there, refused
from regrow.segmentation.listed import (
    as_mapping,
    channels_in,
    file_in,
    labels_in,
    plain_name,
    read_list,
)
from regrow.segmentation.volumes import ENDINGS

__all__ = ["Case", "Folder", "case_of", "cases_of", "open_folder", "stem_of", "volumes_in"]

_LIST = "dataset.json"
_CHANNEL = re.compile(r"_(\d{4})$")


@dataclass(frozen=True)
class Case:
    """One patient's files.

    Args:
        name: of the case, as nnU-Net would call it.
        images: one file a channel, or one of all channels.
        label: the file of labels; None: there is none, as in a test set.
    """

    name: str
    images: tuple[Path, ...]
    label: Path | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """All its files."""
        return (*self.images, *([] if self.label is None else [self.label]))


@dataclass(frozen=True)
class Folder:
    """A data set of volumes.

    Args:
        path: of the folder.
        cases: to learn from, with labels, by name.
        tests: that are never learnt from, by name; those with labels can be judged.
        labels: value to name, the background (0) included, by value.
        channels: names of the channels, in order; "CT" decides how it is normalised.
        regions: name to the values it consists of, in the order in which regions are written
            over one another; empty: labels are learnt as they are.
        ignore: the value of voxels that nobody has judged; None: all are.
        preprocessed: spacing along (depth, height, width) in mm, if nnU-Net has prepared the
            volumes; None: they are as published.
        written: the value that each region writes, over those before it (nnU-Net's
            ``regions_class_order``).
    """

    path: Path
    cases: tuple[Case, ...]
    tests: tuple[Case, ...]
    labels: Mapping[int, str]
    channels: tuple[str, ...]
    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    ignore: int | None = None
    preprocessed: tuple[float, ...] | None = None
    written: tuple[int, ...] = ()

    @property
    def judged(self) -> tuple[Case, ...]:
        """All cases with labels, those to learn from first."""
        return (*self.cases, *(case for case in self.tests if case.label is not None))

    @property
    def values(self) -> frozenset[int]:
        """What a voxel of a label file may be."""
        return frozenset(self.labels) | ({self.ignore} if self.ignore is not None else set())


def open_folder(path: str | Path, configuration: str = "3d_fullres") -> Folder:
    """Find the cases of a data set, and what its labels mean; no volume is read.

    Known are folders of the Medical Segmentation Decathlon, as AMOS is published, too
    (``dataset.json`` lists files; those of its ``validation`` are tests, too), nnU-Net's raw
    folders of version 1 (lists ``case.nii.gz`` for files ``case_0000.nii.gz``) and 2
    (``dataset.json`` has ``channel_names``; files are ``imagesTr/case_0000.nii.gz``), and what
    nnU-Net has preprocessed (``nnUNetPlans.json``). Labels of tests may lie in ``labelsTs``. Hidden
    files, such as a Mac's ``._case.nii.gz``, are no volumes.

    Args:
        path: of the folder.
        configuration: of nnU-Net's preprocessed volumes.

    Raises:
        FileNotFoundError: the folder, its ``dataset.json`` or a file that this lists is missing.
        UnreadableError: the folder is of none of these kinds, or says what cannot be.
    """
    path = expanded(path)
    if not os.path.lexists(path / _LIST):
        raise FileNotFoundError(
            f"{path}: no {_LIST} in it. Give the folder of a Decathlon or nnU-Net data set "
            "(DatasetXXX_Name), which has one"
        )
    with decoding(path / _LIST):
        return _opened(path, read_list(path / _LIST), configuration)


def _opened(path: Path, listed: Mapping[str, Any], configuration: str) -> Folder:
    channels, labels = channels_in(listed), labels_in(listed)
    meaning = labels.names, channels, labels.regions, labels.ignore
    if not (path / "imagesTr").is_dir() and (plans := sorted(path.glob("[!.]*Plans*.json"))):
        cases, spacing = _preprocessed(path, plans, configuration)
        _distinct(path, cases)
        return Folder(path, cases, (), *meaning, spacing, labels.written)
    if "training" in listed:
        cases, tests = _decathlon(path, listed, len(channels))
    else:
        cases, tests = _raw(path, str(listed.get("file_ending", ".nii.gz")), listed.get("dataset"))
    _distinct(path, (*cases, *tests))
    return Folder(path, cases, tests, *meaning, None, labels.written)


def _decathlon(
    path: Path, listed: Mapping[str, Any], channels: int
) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
    """Take the files as the list names them."""
    cases, tests = [], []
    for entry in _entries(listed, "training"):
        files = as_mapping(entry, "an entry of training")
        image, label = (file_in(path, files.get(key)) for key in ("image", "label"))
        cases.append(Case(stem_of(image), _images(image, channels), label))
    known = {case.images for case in cases}
    for entry in (*_entries(listed, "validation"), *_entries(listed, "test")):
        files = entry if isinstance(entry, dict) else {"image": entry}
        image, given = file_in(path, files.get("image")), files.get("label")
        judged = _test_label(path, image.name) if given is None else file_in(path, given)
        case = Case(stem_of(image), _images(image, channels), judged)
        if case.images not in known:  # lists of others name a file as validation and test
            known.add(case.images)
            tests.append(case)
    return _sorted(cases), _sorted(tests)


def _images(image: Path, channels: int) -> tuple[Path, ...]:
    """Return the files of a listed image: version 1 of nnU-Net leaves numbers of channels out."""
    ending = image.name.removeprefix(stem_of(image))
    numbered = [image.with_name(f"{stem_of(image)}_{i:04}{ending}") for i in range(channels)]
    return tuple(numbered) if not is_there(image) and is_there(numbered[0]) else (image,)


def _test_label(path: Path, name: str) -> Path | None:
    """Return the label of a test, if there is one."""
    return label if is_there(label := path / "labelsTs" / name) else None


def _entries(listed: Mapping[str, Any], key: str) -> list[Any]:
    entries = listed.get(key) or []
    if not isinstance(entries, list):
        raise ValueError(f"{key} must be a list of files, not {entries!r}")
    return entries


def _raw(path: Path, ending: str, listed: Any) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
    """Take the files by their names, or as nnU-Net's list of them says, if there is one."""
    if ending not in ENDINGS:
        said = f"has volumes that end in {ending}"
        raise refused(
            path, said, f"convert them to NIfTI ({' or '.join(ENDINGS)}), as SimpleITK can"
        )
    tests = _sorted(
        [
            Case(case.name, case.images, _test_label(path, case.name + ending))
            for case in _channel_files(path / "imagesTs", ending)
        ]
    )
    if listed:
        given = [
            Case(name, tuple(file_in(path, i) for i in of["images"]), file_in(path, of["label"]))
            for name, of in as_mapping(listed, "dataset").items()
        ]
        return _sorted(given), tests
    labels, images = path / "labelsTr", path / "imagesTr"
    found = {case.name: case.images for case in _channel_files(images, ending)}
    # A case whose images are called otherwise is not passed over: reading it says what is missing.
    names = {*found, *(stem_of(file) for file in volumes_in(labels, ending))}
    if not names and (others := volumes_in(images)):
        said = f"says that volumes end in {ending}, and not so does {others[0].name}"
        raise refused(path / _LIST, said, "mend its file_ending")
    missing = {name: (images / f"{name}_0000{ending}",) for name in names - found.keys()}
    cases = [
        Case(name, files, labels / (name + ending)) for name, files in (found | missing).items()
    ]
    return _sorted(cases), tests


def volumes_in(folder: Path, endings: str | tuple[str, ...] = ENDINGS) -> list[Path]:
    """Return the volumes in a folder by name; none, if there is none; hidden files are left out.

    Args:
        folder: to look in.
        endings: of the files.
    """
    files = sorted(folder.iterdir()) if folder.is_dir() else ()
    return [file for file in files if file.name.endswith(endings) and file.name[0] != "."]


def _channel_files(folder: Path, ending: str) -> list[Case]:
    """Collect files CASE_0000, CASE_0001, … of each case, channel by channel."""
    return cases_of(f for f in volumes_in(folder, ending) if case_of(f) != stem_of(f))


def cases_of(files: Iterable[Path]) -> list[Case]:
    """Put the channels CASE_0000, CASE_0001, … of each case together, by name.

    A file without such a number is a case of its own. A channel that is not there has the path that
    it would have: whoever reads the case is told.

    Args:
        files: in NIfTI.

    Raises:
        UnreadableError: a channel is there twice.

    Example:
        >>> [case] = cases_of([Path("liver_7_0001.nii.gz")])
        >>> case.name, [file.name for file in case.images]
        ('liver_7', ['liver_7_0000.nii.gz', 'liver_7_0001.nii.gz'])
    """
    single: list[Case] = []
    channels: dict[str, dict[int, Path]] = {}
    for file in sorted(files):
        name, stem = case_of(file), stem_of(file)
        if name == stem:
            single.append(Case(name, (file,)))
        elif channels.setdefault(name, {}).setdefault(int(stem[-4:]), file) != file:
            raise refused(file, f"is channel {stem[-4:]} of case {name} again", "keep one of them")
    return [*single, *(Case(name, _numbered(name, of)) for name, of in channels.items())]


def _numbered(name: str, files: Mapping[int, Path]) -> tuple[Path, ...]:
    any_of = next(iter(files.values()))
    ending = any_of.name.removeprefix(stem_of(any_of))
    return tuple(
        files.get(i) or any_of.with_name(f"{name}_{i:04}{ending}") for i in range(max(files) + 1)
    )


def _preprocessed(
    path: Path, plans: list[Path], configuration: str
) -> tuple[tuple[Case, ...], tuple[float, ...]]:
    """Find the volumes that nnU-Net wrote; its pickles of properties are never opened."""
    with decoding(plans[0]):
        planned = read_list(plans[0])["configurations"]
        if configuration not in planned or "spacing" not in planned[configuration]:
            there = ", ".join(name for name in planned if "spacing" in planned[name])
            raise refused(
                plans[0], f"has no configuration {configuration!r}", f"give one of {there}"
            )
        plan = planned[configuration]
        if len(plan["spacing"]) != 3:
            raise refused(plans[0], f"makes slices of {configuration!r}", "give 3d_fullres")
        folder = file_in(path, plan.get("data_identifier", f"{plans[0].stem}_{configuration}"))
        spacing = tuple(float(side) for side in plan["spacing"])
        if not all(0 < side < math.inf for side in spacing):
            raise ValueError(f"spacing must be three numbers above 0, not {plan['spacing']}")
    files = [file for file in sorted(folder.glob("[!.]*")) if file.suffix in (".b2nd", ".npz")]
    images = [file for file in files if not file.stem.endswith("_seg")]
    cases = [Case(f.stem, (f,), _segmentation(f)) for f in images]
    return _sorted(cases), spacing


def _segmentation(file: Path) -> Path:
    """Return where the labels of a preprocessed image are: ``.npz`` has both in one file."""
    return file if file.suffix == ".npz" else file.with_name(f"{file.stem}_seg.b2nd")


def case_of(file: Path) -> str:
    """Return which case a volume is of: its name without ending and channel number.

    Example:
        >>> case_of(Path("liver_7_0001.nii.gz")), case_of(Path("liver_7.nii"))
        ('liver_7', 'liver_7')
    """
    stem = stem_of(file)
    match = _CHANNEL.search(stem)
    return stem[: match.start()] if match and match.start() else stem


def stem_of(file: Path) -> str:
    """Return the name of a volume without its ending."""
    return file.name.removesuffix(".gz").removesuffix(".nii")


def _sorted(cases: list[Case]) -> tuple[Case, ...]:
    return tuple(sorted(cases, key=lambda case: case.name))


def _distinct(path: Path, cases: tuple[Case, ...]) -> None:
    names = [plain_name(case.name) for case in cases]
    if not cases:
        raise refused(path, "has no cases", "look for volumes in its imagesTr and labelsTr")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise refused(path, f"has case {twice[0]} twice", "name each case once")
