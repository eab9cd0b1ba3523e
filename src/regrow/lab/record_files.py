"""The files of one record: sealed when a trial has finished, read only if they are as they were."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regrow.lab.design import Labels
from regrow.lab.files import (
    Damaged,
    read_json,
    read_lines,
    read_whole,
    sync,
    write_json,
)
from regrow.lab.run import METRICS
from regrow.lab.trial import identity_of

__all__ = [
    "CONFIG",
    "LABELS",
    "RESULT",
    "RecordFiles",
    "config_flaw",
    "environment_flaw",
    "labels_flaw",
    "read_record_files",
    "seal",
]

CONFIG, RESULT, ENVIRONMENT = "config.json", "result.json", "environment.json"
LABELS = "labels.json"
_SEAL = "sha256"  # in the environment: of the bytes of config, metrics and result


@dataclass(frozen=True)
class RecordFiles:
    """What the files of a record hold; arguments are as those of a record."""

    config: Mapping[str, Any]
    result: Mapping[str, Any]
    environment: Mapping[str, str]
    labels: list[Labels]


def seal(folder: Path, result: Mapping[str, Any], environment: Mapping[str, str]) -> None:
    """Write what a trial found, and last of all a checksum over it and all that was logged.

    All files are on the disk when this returns, so that a folder that is moved is moved whole.

    Args:
        folder: of the trial, with its config and metrics.
        result: what it returned.
        environment: where it ran.
    """
    for path in folder.iterdir():
        if path.is_file():
            sync(path)
    write_json(folder / RESULT, result)
    write_json(folder / ENVIRONMENT, {**environment, _SEAL: _checksum(folder)})


def read_record_files(folder: Path) -> RecordFiles:
    """Read the files of a finished trial.

    Args:
        folder: named by the trial's identity.

    Raises:
        Damaged: a file is missing, or is not what was written; the message names it.
    """
    config = read_json(folder / CONFIG, lambda config: config_flaw(config, folder.name))
    result = read_json(folder / RESULT)
    environment = read_json(folder / ENVIRONMENT, environment_flaw)
    wanted = environment.pop(_SEAL, None)  # none in records of before there were checksums
    if wanted is None:
        read_lines(folder / METRICS, whole=True)
    elif wanted != _checksum(folder):
        names = ", ".join((CONFIG, METRICS, RESULT))
        raise Damaged(f"{folder} is damaged (the checksum of {names} is another)")
    return RecordFiles(config, result, environment, _labels(folder / LABELS))


def config_flaw(config: Any, identity: str) -> str:
    """Say what is wrong with the content of a trial; empty if nothing is."""
    if not isinstance(config, dict):
        return "no content of a trial"
    try:
        own = identity_of(config)
    except ValueError as error:  # NaN, which no trial holds
        return str(error)
    if own != identity:
        return f"its content is that of trial {own}, not of {identity}"
    return "" if type(config.get("seed")) is int else "no seed"


def environment_flaw(environment: Any) -> str:
    """Say what is wrong with a description of where a trial ran; empty if nothing is."""
    if not isinstance(environment, dict):
        return "no surroundings"
    if bad := [name for name, value in environment.items() if not isinstance(value, str)]:
        return f"{bad[0]} is no text"
    try:
        right = math.isfinite(float(environment.get("seconds", "0")))
    except ValueError:
        right = False
    return "" if right else f"seconds={environment['seconds']!r} is no number"


def labels_flaw(labels: Any) -> str:
    """Say what is wrong with the labels of a record; empty if nothing is."""
    if not isinstance(labels, list) or not all(isinstance(one, dict) for one in labels):
        return "no list of labels"
    values = [value for one in labels for value in one.values()]
    bad = [value for value in values if not isinstance(value, str | int | float)]
    return f"the label {bad[0]!r} is no text and no number" if bad else ""


def _labels(path: Path) -> list[Labels]:
    if not os.path.lexists(path):
        return []
    found: list[Labels] = read_json(path, lambda file: labels_flaw(file.get("labels")))["labels"]
    return found


def _checksum(folder: Path) -> str:
    """Hash the files that verdicts hang on."""
    found = hashlib.sha256()
    for name in (CONFIG, METRICS, RESULT):
        path = folder / name
        content = read_whole(path) if os.path.lexists(path) else b""
        found.update(hashlib.sha256(content).digest())
    return found.hexdigest()
