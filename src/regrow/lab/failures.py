"""Failures: trials that raised or died, each with its traceback, until they succeed."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regrow.lab.environment import environment
from regrow.lab.files import Damaged, read_json, write_json
from regrow.lab.record_files import config_flaw
from regrow.lab.records import FAILED, TRIALS
from regrow.lab.trial import Trial

__all__ = ["Failure", "failure_file", "headline", "keep_failure", "read_failures"]


@dataclass(frozen=True)
class Failure:
    """A trial that failed.

    Args:
        identity: the trial's.
        config: its content.
        error: its traceback.
    """

    identity: str
    config: Mapping[str, Any]
    error: str


def failure_file(trial: Trial, out: Path) -> Path:
    """Return where a trial's failure is kept."""
    return out / FAILED / f"{trial.identity}.json"


def keep_failure(trial: Trial, out: Path, error: str) -> None:
    """Write a failure down, as far as the disk lets it."""
    content = {"config": trial.content, "error": error, "environment": environment()}
    with contextlib.suppress(OSError):
        write_json(failure_file(trial, out), content)


def read_failures(*folders: Path, damaged: Callable[[str], None]) -> list[Failure]:
    """Read the trials that failed and have not finished since, in any of the folders.

    Args:
        folders: of studies.
        damaged: is told of each file that cannot be read, which is left out.
    """
    found = {}
    for folder in folders:
        for path in sorted((folder / FAILED).glob("*.json")):
            if any((other / TRIALS / path.stem).exists() for other in folders):
                continue
            try:
                content = read_json(path, functools.partial(_flaw, identity=path.stem))
            except Damaged as error:
                damaged(f"{error}; remove it")
            else:
                found[path.stem] = Failure(path.stem, content["config"], content["error"])
    return list(found.values())


def _flaw(content: Mapping[str, Any], identity: str) -> str:
    if not isinstance(content.get("error"), str):
        return "no traceback"
    return config_flaw(content.get("config"), identity)


def headline(error: str) -> str:
    r"""Return the line of a traceback that says what was raised.

    Example:
        >>> headline("Traceback:\n  File x, line 1\n    f()\nOSError: no room\non the disk\n")
        'OSError: no room'
    """
    lines = error.strip().split("\n")
    frames = [i for i, line in enumerate(lines) if line.startswith("  ")]
    return lines[min(frames[-1] + 1, len(lines) - 1)] if frames else lines[0]
