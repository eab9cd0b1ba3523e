"""Which files of a folder are tables to train on, and which to test on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from regrow.reading import decoding, read_file, refused

__all__ = ["TEST_NAMES", "WHOLE", "by_part", "find_parts", "is_table", "part_of", "test_part"]

WHOLE = "all"
"""The name of the part of a data set that is not split."""

# Names of parts as people and Hugging Face's data sets spell them; what is tested on is the first.
_SPELT = {
    "train": ("train", "training"),
    "test": ("test", "testing", "eval", "evaluation"),
    "validation": ("validation", "valid", "val", "dev"),
}
TEST_NAMES = ("test", "validation")
_PART = {spelt: part for part, names in _SPELT.items() for spelt in names}
_TABLES = (".parquet", ".pq", ".csv", ".csv.gz", ".tsv", ".tsv.gz", ".arrow")
_COUNTED = re.compile(r"-(\d{5})-of-(\d{5})")
_DICT, _STATE = "dataset_dict.json", "state.json"


def is_table(path: Path) -> bool:
    """Tell whether a file's name is that of a table that can be read, and not of a hidden file.

    Example:
        >>> is_table(Path("a/tea.CSV.gz")), is_table(Path("a/.tea.csv")), is_table(Path("a/b.txt"))
        (True, False, False)
    """
    return path.name.lower().endswith(_TABLES) and not path.name.startswith(".")


def part_of(name: str) -> str | None:
    """Return which part a name is of: "train", "test", "validation"; None if it does not say.

    Example:
        >>> part_of("train-00000-of-00002.parquet"), part_of("my_dev.csv"), part_of("trains.csv")
        ('train', 'validation', None)
    """
    words = re.split(r"[^a-z]+", name.lower())
    return next((_PART[word] for word in words if word in _PART), None)


def by_part(path: Path, names: Iterable[str]) -> dict[str, str]:
    """Return names by the part they are of; one that does not say is a part of its own.

    Args:
        path: where they are, for the message.
        names: of folders.

    Raises:
        ValueError: two are of one part, and which is meant is not said.

    Example:
        >>> by_part(Path("tea"), ["training", "dev", "extra"])
        {'train': 'training', 'validation': 'dev', 'extra': 'extra'}
    """
    found: dict[str, str] = {}
    for name in names:
        part = part_of(name) or name
        if part in found:
            raise refused(
                path,
                f"has two parts called {part!r}: {found[part]!r} and {name!r}",
                "give a folder with one of them",
            )
        found[part] = name
    return found


def test_part(parts: Iterable[str]) -> str | None:
    """Return which of the parts is tested on: "test", else "validation"; None if there is neither.

    Example:
        >>> test_part(["train", "validation"])
        'validation'
    """
    return next((name for name in TEST_NAMES if name in {*parts}), None)


test_part.__test__ = False  # type: ignore[attr-defined]  # pytest takes it for one of its own


def find_parts(path: Path) -> Mapping[str, list[Path]]:
    """Return the tables of a data set by part; a data set that is not split has the part "all".

    Args:
        path: a table; a folder of tables whose names, or folders, say what they are for
            (``train.csv``, ``data/test-00000-of-00001.parquet``); or what Hugging Face's
            ``save_to_disk`` writes.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: there is no table, or there are those of several data sets.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("train.csv", "test.csv"):
        ...         _ = (Path(folder) / name).write_text("")
        ...     {part: [file.name for file in files] for part, files in find_parts(folder).items()}
        {'test': ['test.csv'], 'train': ['train.csv']}
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    if path.is_file():
        return {WHOLE: [path]}
    if (path / _DICT).is_file():
        names = by_part(path, map(str, _json(path / _DICT).get("splits", [])))
        if absent := [name for name in names.values() if not (path / name).is_dir()]:
            why = f"names the part {absent[0]!r}, whose folder is missing"
            raise refused(path / _DICT, why, "save the data set again, or get it again")
        return {part: _saved(path / name) for part, name in names.items()}
    if (path / _STATE).is_file():
        return {WHOLE: _saved(path)}
    return _named(path, sorted(file for file in path.rglob("*") if is_table(file)))


def _named(path: Path, files: list[Path]) -> dict[str, list[Path]]:
    parts: dict[str, list[Path]] = {}
    for file in files:
        within = file.relative_to(path)
        names = [part_of(file.name), *(part_of(folder) for folder in within.parts[-2:-1])]
        parts.setdefault(next((name for name in names if name), WHOLE), []).append(file)
    if not files:
        raise refused(
            path,
            "holds no images in folders of classes and no tables",
            "put images into train/CLASS/ and test/CLASS/, or give a CSV or Parquet file",
        )
    if len(parts) > 1:
        parts.pop(WHOLE, None)  # beside tables that say what they are for: labels' names and such
    files = [file for part in parts.values() for file in part]
    _check_one(path, files)
    _check_whole(files)
    return parts


def _check_one(path: Path, files: Iterable[Path]) -> None:
    """Refuse tables of several data sets, which Hugging Face calls configurations."""
    within = [file.relative_to(path).parent.parts for file in files]
    kinds = {tuple(n for n in names if n != "data" and not part_of(n)) for names in within}
    if len(kinds) > 1:
        shown = ", ".join(sorted("/".join(kind) or "." for kind in kinds))
        raise refused(path, f"holds several data sets ({shown})", "give the folder of one of them")


def _check_whole(files: Iterable[Path]) -> None:
    """Refuse tables of which some are missing, as they count themselves: 00000-of-00002."""
    counted: dict[tuple[Path, str, int], dict[int, Path]] = {}
    for file in files:
        if found := _COUNTED.search(file.name):
            key = (file.parent, file.name[: found.start()], int(found[2]))
            counted.setdefault(key, {})[int(found[1])] = file
    for (_, _, total), there in counted.items():
        if absent := [i for i in range(total) if i not in there]:
            one = next(iter(there.values()))
            name = _COUNTED.sub(f"-{absent[0]:05}-of-{total:05}", one.name)
            why = f"is one of {total} files, of which {len(absent)} are missing, such as {name}"
            raise refused(one, why, "get the data set again")


def _saved(folder: Path) -> list[Path]:
    listed = _json(folder / _STATE).get("_data_files", [])
    with decoding(folder / _STATE):
        names = [str(one["filename"]) for one in listed]
    if not names or any(Path(name).name != name for name in names):
        raise refused(folder / _STATE, "names no files of its folder", "save the data set again")
    return [folder / name for name in names]


def _json(path: Path) -> dict[str, Any]:
    with decoding(path):
        found: dict[str, Any] = dict(json.loads(read_file(path)))
        return found
