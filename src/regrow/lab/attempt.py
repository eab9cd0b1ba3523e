"""One attempt at one trial: claimed by a lock, run, and its folder moved to where it counts."""

from __future__ import annotations

import contextlib
import os
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from filelock import FileLock, Timeout

from regrow.lab.environment import environment
from regrow.lab.failures import failure_file, keep_failure
from regrow.lab.files import Damaged, remove, remove_parts, sync, write_json
from regrow.lab.ranks import run_on_all
from regrow.lab.record_files import CONFIG, RESULT, read_record_files, seal
from regrow.lab.records import FAILED, RUNNING, TRIALS, packed_identities
from regrow.lab.run import (
    CHECKPOINT,
    METRICS,
    PROGRESS,
    TOLD,
    Run,
    Show,
    progress,
    told_number,
    told_words,
)
from regrow.lab.trial import Trial

__all__ = ["Outcome", "attempt", "is_finished", "shares", "starts", "words"]

Status = Literal["finished", "failed", "busy"]
_STARTS = "starts.json"
_ASKED = (ImportError, OSError, ValueError)  # what whoever asked can mend


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended.

    Args:
        trial: what was tried.
        status: "finished" (now or before), "failed" (it raised), "busy" (another process is at it).
        seconds: it took, as far as this process saw.
        error: the traceback of a failure.
    """

    trial: Trial
    status: Status
    seconds: float = 0.0
    error: str = ""


def is_finished(trial: Trial, out: Path) -> bool:
    """Whether the record of a trial is there, in a folder of its own or packed.

    A damaged one is there, too: whoever reads it is told, and nothing takes its place unasked.
    """
    there = (out / TRIALS / trial.identity).exists()
    return there or trial.identity in packed_identities(out)


def starts(trial: Trial, out: Path) -> int:
    """Count the attempts at a trial that neither finished nor failed: under way, or died."""
    return int(told_number(out / RUNNING / trial.identity / _STARTS, "starts"))


def shares(trials: Sequence[Trial], out: Path, since: float) -> list[float]:
    """Return how far the trials under way are, each from 0 to 1.

    Args:
        trials: which may be under way.
        out: the study's folder.
        since: a time (as of `time.time`); what has told nothing since then is not under way.
    """
    found = []
    for trial in trials:
        folder = out / RUNNING / trial.identity
        with contextlib.suppress(OSError):
            if (folder / PROGRESS).stat().st_mtime >= since:
                found.append(progress(folder))
    return found


def words(trial: Trial, out: Path) -> str:
    """Return what a trial that is under way says it is at."""
    return told_words(out / RUNNING / trial.identity)


def attempt(
    trial: Trial,
    out: Path,
    options: Mapping[str, Any],
    threads: int = 1,
    show: Show = lambda _: None,
    *,
    begin: Callable[[], None] = lambda: None,
    lets_out: bool = False,
) -> Outcome:
    """Run a trial unless it is finished or another process is at it.

    Args:
        trial: what to run.
        out: the study's folder.
        options: of this machine, for the trial.
        threads: of torch while it runs: fixed, so that results do not depend on how many trials
            run side by side.
        show: is called with every line of metrics, in this process.
        begin: is called once the trial is begun, before anything is shown: nothing it was asked for
            has been refused, and no other process is at it. What it raises is of whoever asked.
        lets_out: whether errors of whoever asked leave here: those of values, files and packages
            that the trial raises before it has told of itself. Nothing is kept of them.

    Returns:
        How it ended; all else that the trial raises is a failure, and never leaves here.

    Raises:
        ValueError: the trial cannot be run as it was asked for, and ``lets_out``; so for others.
        OSError: a file is not there.
        ImportError: a package is missing.
    """
    started = time.monotonic()
    folder = out / RUNNING / trial.identity
    run = Run(folder, options, show=show, begin=begin)
    try:
        for name in (TRIALS, RUNNING, FAILED):
            (out / name).mkdir(parents=True, exist_ok=True)
        with FileLock(out / RUNNING / f"{trial.identity}.lock").acquire(timeout=0):
            if is_finished(trial, out):
                return Outcome(trial, "finished")
            with _torch_threads(threads):
                _run(trial, out, run)
    except Timeout:
        return Outcome(trial, "busy")
    except Exception as error:
        if lets_out and not run.begun and isinstance(error, _ASKED):
            if not _was_begun(folder):
                remove(folder)
            raise
        return _failure(trial, out, time.monotonic() - started)
    return Outcome(trial, "finished", time.monotonic() - started)


def _was_begun(folder: Path) -> bool:
    """Whether an earlier attempt has left something to go on with."""
    return any(os.path.lexists(folder / name) for name in (CHECKPOINT, METRICS))


def _run(trial: Trial, out: Path, run: Run) -> None:
    folder = run.folder
    folder.mkdir(exist_ok=True)
    remove_parts(folder)
    for name in (CONFIG, PROGRESS, _STARTS):
        if not (folder / name).is_file():  # what lies in its place could not be replaced
            remove(folder / name)
    if not _is_whole(folder):  # or it was killed when only the move was left
        write_json(folder / _STARTS, {"starts": starts(trial, out) + 1})
        write_json(folder / CONFIG, trial.content)
        remove(folder / RESULT)
        started = time.perf_counter()
        result = run_on_all(trial, run)
        seconds = f"{time.perf_counter() - started:.3f}"
        seal(folder, result, environment() | {"seconds": seconds})
    for name in (CHECKPOINT, PROGRESS, TOLD, _STARTS):
        remove(folder / name)
    sync(folder)
    folder.rename(out / TRIALS / trial.identity)
    sync(out / TRIALS)
    with contextlib.suppress(OSError):
        failure_file(trial, out).unlink(missing_ok=True)


def _is_whole(folder: Path) -> bool:
    """Whether a trial that is not yet where it counts has been recorded to its end."""
    try:
        read_record_files(folder)
    except Damaged:
        return False
    return True


def _failure(trial: Trial, out: Path, seconds: float) -> Outcome:
    """Keep the traceback as the trial's record, as far as the disk lets it."""
    error = traceback.format_exc()
    keep_failure(trial, out, error)
    with contextlib.suppress(OSError):
        for name in (_STARTS, PROGRESS):
            (out / RUNNING / trial.identity / name).unlink(missing_ok=True)
    if torch.cuda.is_available():  # what the failed trial held would be missing for the next
        torch.cuda.empty_cache()
    return Outcome(trial, "failed", seconds, error)


@contextlib.contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
