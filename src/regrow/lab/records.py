"""Records of finished trials: a folder each, whole or not there.

A folder of a study holds

- ``trials/<identity>/``: ``config.json``, ``environment.json``, ``metrics.jsonl``, ``result.json``,
  see ``regrow.lab.record_files``;
- ``running/<identity>/``: trials that are under way or were cut off, with their checkpoints;
- ``failed/<identity>.json``: trials that raised, with their traceback;
- or ``records.jsonl.gz``: finished trials packed into one file, to be kept and passed on.
"""

from __future__ import annotations

import dataclasses
import functools
import gzip
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regrow.lab.design import Labels
from regrow.lab.files import Damaged, read_lines, read_object, read_whole, write_bytes, write_json
from regrow.lab.record_files import (
    LABELS,
    config_flaw,
    environment_flaw,
    labels_flaw,
    read_record_files,
)
from regrow.lab.run import METRICS

__all__ = [
    "FAILED",
    "PACKED",
    "RUNNING",
    "TRIALS",
    "Record",
    "Records",
    "flat",
    "packed_identities",
    "write_labels",
]

TRIALS, RUNNING, FAILED = "trials", "running", "failed"
PACKED = "records.jsonl.gz"


@dataclass(frozen=True)
class Record:
    """What one trial was and found.

    Args:
        identity: the trial's.
        config: its content.
        result: what it returned.
        environment: versions, hardware, commit, seconds.
        folder: where the files are.
        logged: the lines logged, of a record without a folder of its own.
        labels: what the trial is in its study, once for each question that it belongs to.
    """

    identity: str
    config: Mapping[str, Any]
    result: Mapping[str, Any]
    environment: Mapping[str, str]
    folder: Path
    logged: Sequence[dict[str, Any]] | None = None
    labels: Sequence[Labels] = ()

    def metrics(self) -> list[dict[str, Any]]:
        """Return the lines logged."""
        return read_lines(self.folder / METRICS) if self.logged is None else list(self.logged)

    def get(self, name: str) -> Any:
        """Return a field of the result or the config, inner ones by dots; None if there is none.

        Example:
            >>> config = {"method": {"kind": "RigL"}, "seed": 1}
            >>> Record("", config, {"accuracy": 0.9}, {}, Path()).get("method.kind")
            'RigL'
        """
        for source in (self.result, self.config):
            found: Any = source
            for part in name.split("."):
                found = found.get(part) if isinstance(found, Mapping) else None
            if found is not None:
                return found
        return None


class Records:
    """Records of one study.

    Args:
        records: in any order; they are held by identity.
    """

    def __init__(self, records: Iterable[Record]) -> None:
        self.all = sorted(records, key=lambda record: record.identity)

    @classmethod
    def read(cls, *folders: Path | str, damaged: Callable[[str], None] | None = None) -> Records:
        """Read the finished trials of one or several folders; a trial found twice counts once.

        A folder's trials lie in folders of their own, or packed in one file (:meth:`pack`).

        Args:
            folders: of studies.
            damaged: is told of each record that cannot be read, which is left out.

        Raises:
            Damaged: a file is, and there is no ``damaged``; the message names it.
        """
        found = {}
        for folder in map(Path, folders):
            for part in [folder, *_trial_folders(folder)]:
                try:
                    records = _read_packed(folder) if part == folder else [_read(part)]
                except Damaged as error:
                    if damaged is None:
                        raise
                    damaged(str(error))
                else:
                    found.update({record.identity: record for record in records})
        return cls(found.values())

    def pack(self, path: Path) -> None:
        """Write all records to one file of compressed JSON lines, in one step.

        It reads like the folders they are in; named ``records.jsonl.gz`` it takes their place.

        Args:
            path: the file; equal records make equal files.
        """
        lines = [
            json.dumps(
                {
                    "identity": record.identity,
                    "config": record.config,
                    "result": record.result,
                    "environment": record.environment,
                    "metrics": record.metrics(),
                    "labels": list(record.labels),
                },
                ensure_ascii=False,
            )
            for record in self.all
        ]
        text = "".join(line + "\n" for line in lines)
        write_bytes(path, gzip.compress(text.encode(), mtime=0))

    def labelled(self, labels: Mapping[str, Sequence[Labels]]) -> Records:
        """Return the same records with the labels given by identity; others keep their own."""
        return Records(
            dataclasses.replace(record, labels=labels.get(record.identity, record.labels))
            for record in self.all
        )

    def __len__(self) -> int:
        return len(self.all)

    def __iter__(self) -> Iterator[Record]:
        return iter(self.all)

    def rows(self) -> list[dict[str, Any]]:
        """Return a flat row a record, such as ``{"config.method.density": 0.1, ...}``.

        Lists are written as JSON.
        """
        rows = []
        for record in self.all:
            row: dict[str, Any] = {"identity": record.identity}
            for labels in reversed(record.labels):
                row |= flat(labels, "label.")
            for part in ("config", "result", "environment"):
                row |= flat(getattr(record, part), f"{part}.")
            rows.append(row)
        return rows


def flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turn mappings inside one another into one, with dots in its keys; lists become JSON.

    Args:
        content: plain data.
        prefix: of all keys.

    Example:
        >>> flat({"method": {"kind": "RigL"}, "sizes": [1, 2]})
        {'method.kind': 'RigL', 'sizes': '[1, 2]'}
    """
    row: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            row |= flat(value, f"{prefix}{key}.")
        else:
            row[prefix + key] = json.dumps(value) if isinstance(value, list) else value
    return row


def write_labels(folder: Path, labels: Sequence[Labels]) -> None:
    """Keep labels beside a record, unless they are there already, or damaged ones are."""
    try:
        if read_record_files(folder).labels != list(labels):
            write_json(folder / LABELS, {"labels": list(labels)})
    except Damaged:  # stays as it is, for whoever reads the record to be told
        return


def packed_identities(folder: Path) -> frozenset[str]:
    """Return which trials a folder holds in its packed file; none if it is damaged or not there."""
    try:
        stamp = (folder / PACKED).stat()
    except OSError:
        return frozenset()
    return _identities(folder, stamp.st_mtime_ns, stamp.st_size)


@functools.lru_cache(maxsize=4)
def _identities(folder: Path, *stamp: int) -> frozenset[str]:
    try:
        return frozenset(record.identity for record in _read_packed(folder))
    except Damaged:
        return frozenset()


def _read_packed(folder: Path) -> list[Record]:
    path = folder / PACKED
    if not os.path.lexists(path):
        return []
    content = read_whole(path)
    try:
        if not content:
            raise ValueError("empty")
        lines = gzip.decompress(content).decode().splitlines()
        return [_unpacked(read_object(line), folder) for line in lines]
    except (EOFError, ValueError, zlib.error, gzip.BadGzipFile) as error:
        raise Damaged(f"{path} is damaged ({error}): get it again") from error


def _unpacked(one: Mapping[str, Any], folder: Path) -> Record:
    """Make a record of a line of a pack.

    Raises:
        ValueError: something in it is not what it must be.
    """
    parts: list[Any] = [one.get(name) for name in _IN_PACK]
    identity, config, result, environment, metrics = parts
    labels = one.get("labels", [])
    if not isinstance(identity, str):
        raise ValueError("a line without an identity")
    if why := config_flaw(config, identity) or environment_flaw(environment) or labels_flaw(labels):
        raise ValueError(f"trial {identity}: {why}")
    if not isinstance(result, dict):
        raise ValueError(f"trial {identity}: no result")
    if not isinstance(metrics, list) or not all(isinstance(line, dict) for line in metrics):
        raise ValueError(f"trial {identity}: no list of metrics")
    return Record(identity, config, result, environment, folder, metrics, labels)


_IN_PACK = ("identity", "config", "result", "environment", "metrics")


def _trial_folders(folder: Path) -> list[Path]:
    """List the folders of finished trials; what an operating system hides there is none."""
    trials = folder / TRIALS
    if not trials.is_dir():
        return []
    return sorted(path for path in trials.iterdir() if not path.name.startswith("."))


def _read(folder: Path) -> Record:
    try:
        files = read_record_files(folder)
    except Damaged as error:
        raise Damaged(f"{error}; remove {folder} and run the study again") from error
    return Record(
        folder.name, files.config, files.result, files.environment, folder, labels=files.labels
    )
