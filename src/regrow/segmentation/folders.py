"""Finds the cases of a data set: Decathlon folders, nnU-Net's raw and preprocessed ones."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from regrow.reading import decoding, read_file, refused
from regrow.segmentation.volumes import ENDINGS

__all__ = ["Case", "Folder", "case_of", "open_folder"]

_LIST = "dataset.json"
_CHANNEL = re.compile(r"_(\d{4})$")
_IGNORE = "ignore"  # nnU-Net's name of voxels that nobody has judged


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
        cases: with labels, by name.
        tests: without labels, by name.
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
    def values(self) -> frozenset[int]:
        """What a voxel of a label file may be."""
        return frozenset(self.labels) | ({self.ignore} if self.ignore is not None else set())


def open_folder(path: str | Path, configuration: str = "3d_fullres") -> Folder:
    """Find the cases of a data set, and what its labels mean; no volume is read.

    Known are folders of the Medical Segmentation Decathlon, as AMOS is published, too
    (``dataset.json`` lists files), nnU-Net's raw folders of version 2 (``dataset.json`` has
    ``channel_names``; files are ``imagesTr/case_0000.nii.gz``), and what nnU-Net has preprocessed
    (``nnUNetPlans.json``).

    Args:
        path: of the folder.
        configuration: of nnU-Net's preprocessed volumes.

    Raises:
        FileNotFoundError: the folder, its ``dataset.json`` or a file that this lists is missing.
        UnreadableError: the folder is of none of these kinds, or does not say what it must.
    """
    path = Path(path).expanduser()
    if not (path / _LIST).is_file():
        raise FileNotFoundError(
            f"{path}: no {_LIST} in it. Give the folder of a Decathlon or nnU-Net data set "
            "(DatasetXXX_Name), which has one"
        )
    with decoding(path / _LIST):
        listed = _mapping(json.loads(read_file(path / _LIST)), "the file")
        return _opened(path, listed, configuration)


def _opened(path: Path, listed: Mapping[str, Any], configuration: str) -> Folder:
    names = listed.get("channel_names") or listed.get("modality")
    channels = _channels(_mapping(names, "channel_names or modality"))
    labels, regions, ignore = _labels(_mapping(listed.get("labels"), "labels"))
    order = listed.get("regions_class_order") or () if regions else ()
    written = tuple(int(value) for value in order)
    if len(written) != len(regions) or not labels.keys() >= set(written):
        said = f"regions_class_order must list {len(regions)} labels, one a region"
        raise ValueError(f"{said}, not {written}")
    if 0 not in labels:
        raise ValueError(f"labels must name 0, the background, beside {sorted(labels)}")
    if not (path / "imagesTr").is_dir() and (plans := sorted(path.glob("*Plans*.json"))):
        cases, spacing = _preprocessed(path, plans, configuration)
        return Folder(path, cases, (), labels, channels, regions, ignore, spacing, written)
    if "training" in listed:
        cases, tests = _decathlon(path, listed)
    else:
        cases, tests = _raw(path, str(listed.get("file_ending", ".nii.gz")), listed.get("dataset"))
    _distinct(path, (*cases, *tests))
    return Folder(path, cases, tests, labels, channels, regions, ignore, None, written)


def _labels(
    listed: Mapping[str, Any],
) -> tuple[dict[int, str], dict[str, tuple[int, ...]], int | None]:
    """Return values with names, regions, and the value to ignore.

    The Decathlon lists {"0": "background"}, nnU-Net {"background": 0}, or a list of values.
    """
    if all(str(key).isdecimal() for key in listed):
        return (
            {int(key): str(name) for key, name in sorted(listed.items(), key=_by_value)},
            {},
            None,
        )
    ignore = int(listed[_IGNORE]) if _IGNORE in listed else None
    values = {str(n): _values(v) for n, v in listed.items() if n != _IGNORE}
    if not any(len(of) > 1 for of in values.values()):
        return {of[0]: name for name, of in sorted(values.items(), key=lambda i: i[1])}, {}, ignore
    regions = {name: of for name, of in values.items() if of != (0,)}
    single = {of[0]: name for name, of in values.items() if len(of) == 1}
    every = sorted({value for of in values.values() for value in of})
    return {v: single.get(v, f"label {v}") for v in every}, regions, ignore


def _values(value: Any) -> tuple[int, ...]:
    return tuple(int(v) for v in value) if isinstance(value, list) else (int(value),)


def _by_value(item: tuple[str, Any]) -> int:
    return int(item[0])


def _channels(listed: Mapping[str, Any]) -> tuple[str, ...]:
    if sorted(map(int, listed)) != list(range(len(listed))):
        raise ValueError(f"channels must be numbered from 0, not {', '.join(listed)}")
    return tuple(str(listed[key]) for key in sorted(listed, key=int))


def _decathlon(path: Path, listed: Mapping[str, Any]) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
    """Take the files as the list names them."""
    cases, tests = [], []
    for entry in listed["training"]:
        image, label = (_inside(path, entry[key]) for key in ("image", "label"))
        cases.append(Case(_stem(image), (image,), label))
    for entry in listed.get("test", ()):
        image = _inside(path, entry["image"] if isinstance(entry, dict) else entry)
        tests.append(Case(_stem(image), (image,)))
    return _sorted(cases), _sorted(tests)


def _inside(path: Path, name: Any) -> Path:
    """Return the path of a listed file, which may not lead out of the folder."""
    parts = Path(str(name)).parts
    if Path(str(name)).is_absolute() or ".." in parts:
        raise ValueError(f"it lists {name}, outside the folder")
    return path.joinpath(*parts)


def _raw(path: Path, ending: str, listed: Any) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
    """Take the files by their names, or as nnU-Net's list of them says, if there is one."""
    if ending not in ENDINGS:
        said = f"has volumes that end in {ending}"
        raise refused(
            path, said, f"convert them to NIfTI ({' or '.join(ENDINGS)}), as SimpleITK can"
        )
    tests = _sorted(_channel_files(path / "imagesTs", ending))
    if listed:
        given = [
            Case(name, tuple(_inside(path, i) for i in of["images"]), _inside(path, of["label"]))
            for name, of in _mapping(listed, "dataset").items()
        ]
        return _sorted(given), tests
    cases = _channel_files(path / "imagesTr", ending)
    labelled = [Case(c.name, c.images, path / "labelsTr" / (c.name + ending)) for c in cases]
    return _sorted(labelled), tests


def _channel_files(folder: Path, ending: str) -> list[Case]:
    """Collect files CASE_0000, CASE_0001, … of each case, channel by channel."""
    found: dict[str, list[Path]] = {}
    for file in sorted(folder.glob(f"*{ending}")) if folder.is_dir() else ():
        if not file.name.startswith(".") and (match := _CHANNEL.search(_stem(file))):
            found.setdefault(_stem(file)[: match.start()], []).append(file)
    return [Case(name, tuple(files)) for name, files in found.items()]


def _preprocessed(
    path: Path, plans: list[Path], configuration: str
) -> tuple[tuple[Case, ...], tuple[float, ...]]:
    """Find the volumes that nnU-Net wrote; its pickles of properties are never opened."""
    with decoding(plans[0]):
        planned = _mapping(json.loads(read_file(plans[0])), "the file")["configurations"]
        if configuration not in planned or "spacing" not in planned[configuration]:
            there = ", ".join(name for name in planned if "spacing" in planned[name])
            raise refused(
                plans[0], f"has no configuration {configuration!r}", f"give one of {there}"
            )
        plan = planned[configuration]
        if len(plan["spacing"]) != 3:
            raise refused(plans[0], f"makes slices of {configuration!r}", "give 3d_fullres")
        folder = path / plan.get("data_identifier", f"{plans[0].stem}_{configuration}")
        spacing = tuple(float(side) for side in plan["spacing"])
    files = [file for file in sorted(folder.glob("*")) if file.suffix in (".b2nd", ".npz")]
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
    stem = _stem(file)
    match = _CHANNEL.search(stem)
    return stem[: match.start()] if match and match.start() else stem


def _stem(file: Path) -> str:
    return file.name.removesuffix(".gz").removesuffix(".nii")


def _sorted(cases: list[Case]) -> tuple[Case, ...]:
    return tuple(sorted(cases, key=lambda case: case.name))


def _distinct(path: Path, cases: tuple[Case, ...]) -> None:
    names = [case.name for case in cases]
    if not cases:
        raise refused(path, "has no cases", "look for volumes in its imagesTr and labelsTr")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise refused(path, f"has case {twice[0]} twice", "name each case once")


def _mapping(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict) or not value:
        raise ValueError(f"{what} must be a mapping, not {value!r}")
    return value
