"""Runs one trial in this process, as all training commands do: progress, result, settings."""

from __future__ import annotations

import functools
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regrow.cli.fields import typed_options
from regrow.cli.settings import CONFIG, SETTINGS, to_toml

if TYPE_CHECKING:
    from regrow.lab.records import Record
    from regrow.lab.trial import Trial

__all__ = ["echo_log", "keep_settings", "run_trial"]


def run_trial(
    trial: Any,
    out: Path,
    options: Mapping[str, Any],
    threads: int | None,
    tested: Sequence[str],
    line: Callable[[Mapping[str, Any]], str] | None = None,
    table: Callable[[Mapping[str, Any], Path], str] | None = None,
    loggers: Sequence[str] = (),
) -> Path:
    """Run a trial that trains in this process; print progress and the result.

    What the trial refuses before its first step, such as data that are not there, is the user's to
    mend: it is raised, and no record of a failure is left. The options that were typed are kept
    beside the record, as a file that ``--config`` takes.

    Args:
        trial: a setting of training, too.
        out: folder for the records of runs.
        options: of the run.
        threads: of torch; None: as torch has it.
        tested: names of what the test found that are shown.
        line: writes a line of metrics; None: as that of an epoch.
        table: writes the result, which is in a folder; None: as that of a network.
        loggers: "tensorboard", "wandb", "mlflow": are told all that is logged, too.

    Returns:
        The folder of its record.

    Raises:
        ValueError: the trial cannot be run as it was asked for, or a record is damaged.
        OSError: a file is not there, or cannot be written.
        ImportError: a package is missing.
    """
    import torch  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415

    from regrow.lab.attempt import attempt, is_finished, shares, words  # noqa: PLC0415
    from regrow.lab.failures import failure_file, headline  # noqa: PLC0415
    from regrow.lab.loggers import open_loggers  # noqa: PLC0415
    from regrow.lab.progress import follow  # noqa: PLC0415
    from regrow.lab.records import RUNNING  # noqa: PLC0415
    from regrow.training.words import epoch_words, result_words  # noqa: PLC0415

    console = Console()
    say = functools.partial(console.print, soft_wrap=True, highlight=False, markup=False)
    heard = time.monotonic()
    say(str(trial))
    if is_finished(trial, out):
        say("it was finished before:")
    else:
        look = functools.partial(shares, [trial], out, time.time())
        told = functools.partial(words, trial, out)
        write = line or (lambda values: epoch_words(values, trial.epochs))
        with (
            open_loggers(loggers, trial, out) as log,
            echo_log(say),
            follow("training", 1, console, shares=look, words=told, heard=lambda: heard),
        ):

            def show(values: Mapping[str, float | str]) -> None:
                nonlocal heard
                heard = time.monotonic()
                say(write(values))
                log.log(values)

            if (typed := typed_options.get()) is not None:
                keep_settings(typed, out / RUNNING / trial.identity)
            number = threads or torch.get_num_threads()
            outcome = attempt(trial, out, options, number, show, begin=log.open, lets_out=True)
            if outcome.status == "finished":
                log.result = _record(trial, out).result
        if outcome.status == "busy":
            sys.exit("regrow: another process is at this very run: wait for it")
        if outcome.status == "failed":
            kept = failure_file(trial, out)
            sys.exit(f"regrow: {headline(outcome.error)}; traceback in {kept}")
    record = _record(trial, out)
    result, folder = record.result, record.folder
    say(table(result, folder) if table else result_words(result, folder, tested))
    return folder


def _record(trial: Trial, out: Path) -> Record:
    """Read the record of a finished trial.

    Raises:
        ValueError: it is damaged.
    """
    from regrow.lab.records import Records  # noqa: PLC0415

    damaged: list[str] = []
    found = [r for r in Records.read(out, damaged=damaged.append) if r.identity == trial.identity]
    if not found:
        raise ValueError("; ".join(damaged))
    return found[0]


def keep_settings(typed: Mapping[str, Any], folder: Path) -> None:
    """Write the options of a run into its folder.

    Args:
        typed: by name.
        folder: of the run; it moves to where records are when the run has finished.
    """
    from regrow.lab.files import write_bytes  # noqa: PLC0415

    command = " ".join(word for word in sys.argv[1:3] if not word.startswith("-"))
    about = f"again: regrow {command} --{CONFIG} {SETTINGS}"
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / SETTINGS, to_toml(typed, about).encode())


@contextmanager
def echo_log(say: Callable[[str], None]) -> Iterator[None]:
    """Also print log messages of training."""
    handler, logger = logging.Handler(logging.INFO), logging.getLogger("regrow.training")
    handler.emit = lambda record: say(record.getMessage())  # type: ignore[method-assign]
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
