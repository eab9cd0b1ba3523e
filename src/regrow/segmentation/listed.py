"""Reads what ``dataset.json`` says: labels, regions, channels, files; what cannot be is refused."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regrow.reading import check_names, read_file

__all__ = ["Labels", "as_mapping", "channels_in", "file_in", "labels_in", "plain_name", "read_list"]

_IGNORE = "ignore"  # nnU-Net's name of voxels that nobody has judged
_HIGHEST = 2**31 - 1  # what a label file can hold


@dataclass(frozen=True)
class Labels:
    """What the values of label files mean.

    Args:
        names: value to name, by value.
        regions: name to values, in the order in which regions are written over one another.
        ignore: the value of voxels that nobody has judged.
        written: the value that each region writes.
    """

    names: dict[int, str]
    regions: dict[str, tuple[int, ...]]
    ignore: int | None
    written: tuple[int, ...]


def read_list(path: Path) -> Mapping[str, Any]:
    """Read a JSON object in which no key is there twice.

    Raises:
        ValueError: it is none.
    """
    return as_mapping(json.loads(read_file(path), object_pairs_hook=_object), "the file")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    check_names([key for key, _ in pairs], "key")
    return dict(pairs)


def as_mapping(value: Any, what: str) -> Mapping[str, Any]:
    """Return a value that must be a mapping, and not empty."""
    if not isinstance(value, dict) or not value:
        raise ValueError(f"{what} must be a mapping, not {value!r}")
    return value


def labels_in(listed: Mapping[str, Any]) -> Labels:
    """Return what labels mean.

    The Decathlon lists {"0": "background"}, nnU-Net {"background": 0}, or lists of values, which
    are regions.

    Raises:
        ValueError: two labels share a value or a name, a value is none, or 0 has no name.
    """
    given = as_mapping(listed.get("labels"), "labels")
    if all(key.isdecimal() for key in given):
        found = Labels(_named((_value(k), str(name)) for k, name in given.items()), {}, None, ())
    else:
        found = _of_nnunet(given, listed.get("regions_class_order"))
    if 0 not in found.names:
        raise ValueError(f"labels must name 0, the background, beside {sorted(found.names)}")
    if found.ignore in found.names:
        raise ValueError(f"labels: {found.ignore} is to be ignored, and a label as well")
    return found


def _of_nnunet(given: Mapping[str, Any], order: Any) -> Labels:
    ignore = _value(given[_IGNORE]) if _IGNORE in given else None
    values = {name: _values(name, value) for name, value in given.items() if name != _IGNORE}
    if not any(len(of) > 1 for of in values.values()):
        return Labels(_named((of[0], name) for name, of in values.items()), {}, ignore, ())
    regions = {name: of for name, of in values.items() if of != (0,)}
    if background := [name for name, of in regions.items() if 0 in of]:
        raise ValueError(f"labels: region {background[0]!r} must not hold 0, the background")
    single = {of[0]: name for name, of in values.items() if len(of) == 1}
    every = sorted({value for of in values.values() for value in of})
    written = tuple(map(_value, order)) if isinstance(order, list) else ()
    # What a region writes and no later one overwrites.
    rest = {v: f"rest of {name}" for v, name in zip(written, regions, strict=False)}
    names = {v: single.get(v, rest.get(v, f"label {v}")) for v in every}
    if len(set(written)) != len(regions) or not names.keys() >= {*written}:
        said = f"regions_class_order must list {len(regions)} different labels, one a region"
        raise ValueError(f"{said}, not {order!r}")
    return Labels(names, regions, ignore, written)


def _named(pairs: Iterable[tuple[int, str]]) -> dict[int, str]:
    ordered = sorted(pairs)
    check_names([str(value) for value, _ in ordered], "label")
    check_names([name for _, name in ordered], "label")
    return dict(ordered)


def _values(name: str, value: Any) -> tuple[int, ...]:
    found = tuple(map(_value, value)) if isinstance(value, list) else (_value(value),)
    if not found:
        raise ValueError(f"labels: region {name!r} is of no label")
    return found


def _value(value: Any) -> int:
    text = str(value)
    if not (text.isascii() and text.isdecimal() and int(text) <= _HIGHEST):
        raise ValueError(f"a label is a whole number from 0 to {_HIGHEST}, not {value!r}")
    return int(text)


def channels_in(listed: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the channels, in order.

    Raises:
        ValueError: they are not numbered from 0.
    """
    names = listed.get("channel_names") or listed.get("modality")
    given = as_mapping(names, "channel_names or modality")
    if sorted(given) != sorted(map(str, range(len(given)))):
        raise ValueError(f"channels must be numbered from 0, not {', '.join(given)}")
    return tuple(str(given[str(number)]) for number in range(len(given)))


def file_in(folder: Path, name: Any) -> Path:
    """Return the path of a listed file, which may not lead out of the folder.

    Raises:
        ValueError: it would, or is no name of a file.
    """
    if not isinstance(name, str) or not Path(name).name or not _encodable(name):
        raise ValueError(f"it lists {name!r} as a file")
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(f"it lists {name}, outside the folder")
    return folder.joinpath(*Path(name).parts)


def plain_name(name: str) -> str:
    """Return the name of a case, by which files are called; it may not lead to another folder.

    Raises:
        ValueError: it would, or no file can be called so.
    """
    if not name or Path(name).name != name or not _encodable(name):
        raise ValueError(f"no case can be called {name!r}")
    return name


def _encodable(name: str) -> bool:
    """Whether a file can be called so."""
    return "\0" not in name and name == name.encode("utf-8", "ignore").decode()
