"""Runs a study: its sweep, what is said meanwhile, what was found."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from regrow.lab.attempt import Outcome, is_finished, shares
from regrow.lab.design import labels_by_identity
from regrow.lab.executors import Executor
from regrow.lab.failures import failure_file, headline
from regrow.lab.progress import follow
from regrow.lab.records import TRIALS, write_labels
from regrow.lab.study import Study
from regrow.lab.study_file import Order, add_order
from regrow.lab.study_page import Found
from regrow.lab.sweep import SweepResult, sweep
from regrow.lab.trial import Trial, brief, varying

__all__ = ["run_study", "say_found"]

_LONG = 90  # characters of a trial in a line of progress


def run_study(
    study: Study,
    preset: str,
    out: Path,
    *,
    data: str | None = None,
    only: str | None = None,
    options: Mapping[str, Any] | None = None,
    executor: Executor = "local",
    jobs: int = -1,
    console: Console | None = None,
    tell: Callable[[Outcome], None] | None = None,
) -> SweepResult:
    """Run the trials of a preset that are not finished, and tell how it goes.

    Args:
        study: which.
        preset: its name.
        out: the folder for the records.
        data: a data set's name; None is the preset's own choice.
        only: run the one trial whose identity begins so.
        options: of this machine, for the trials.
        executor: where they run, see :func:`regrow.lab.executors.run_side_by_side`.
        jobs: how many at a time; -1 is one for each core.
        console: where to tell it.
        tell: says of each trial that has ended what it found, instead of what the trial was.

    Raises:
        ValueError: no such preset, data or trial, or the folder holds another study.
    """
    console = console or Console()
    labelled = study.trials(preset, data)
    trials = _chosen([one.trial for one in labelled], only)
    labels = labels_by_identity(labelled)
    add_order(Order(study.name, preset, data), out)
    left = [trial for trial in trials if not is_finished(trial, out)]
    if study.prepare and left:
        study.prepare(left, options or {}, functools.partial(_say, console))
    done = len(trials) - len(left)
    look = functools.partial(shares, trials, out, time.time())
    title = f"{study.name}, {preset}"
    with follow(title, len(trials), console, done=done, shares=look) as advance:
        ended = functools.partial(_tell, out, console, advance, tell or varying(trials))
        ahead = _ahead(study, left, out, options or {}, ended)
        found = sweep(trials, out, options=options, executor=executor, jobs=jobs, tell=ended)
    before = {outcome.trial.identity for outcome in ahead}
    found.finished[:0] = ahead
    found.skipped = [trial for trial in found.skipped if trial.identity not in before]
    for trial in trials:
        if (folder := out / TRIALS / trial.identity).is_dir():
            write_labels(folder, labels[trial.identity])
    counts = f"{len(found.finished)} trials finished, {len(found.failed)} failed"
    _say(console, f"{counts}, {len(found.skipped)} were finished before")
    return found


def say_found(found: Found, console: Console) -> None:
    """Print the answer, the verdicts, a line each, and what did not learn or cannot be read."""
    _say(console, found.answer)
    for claim, verdict in found.verdicts:
        _say(console, f"{verdict.outcome + ':':14} {claim.sentence} {verdict}")
    for one in found.unlearnt:
        _say(console, f"did not learn: {one} ({one.record.identity})")
    for words in found.damaged:
        _say(console, f"left out: {words}")


def _ahead(
    study: Study,
    left: Sequence[Trial],
    out: Path,
    options: Mapping[str, Any],
    tell: Callable[[Outcome], None],
) -> list[Outcome]:
    """Finish the trials that the study trains together; what fails here is tried again alone."""
    parts = study.together(left, out, options) if study.together and left else ()
    finished = []
    for part, more in parts:
        own = {**options, **more}
        finished += sweep(part, out, options=own, executor="inline", tell=tell).finished
    return finished


def _chosen(trials: Sequence[Trial], only: str | None) -> list[Trial]:
    unique = list({trial.identity: trial for trial in trials}.values())
    if only is None:
        return unique
    chosen = [trial for trial in unique if trial.identity.startswith(only)]
    if len(chosen) != 1:
        raise ValueError(
            f"only={only!r}: {len(chosen)} of the preset's {len(unique)} trials begin so; the "
            "report lists their identities"
        )
    return chosen


def _tell(
    out: Path,
    console: Console,
    advance: Callable[[str], None],
    how: Collection[str] | Callable[[Outcome], None],
    outcome: Outcome,
) -> None:
    """Say at once what failed; what finished is told by the progress, less what all share.

    Args:
        out: the study's folder.
        console: where to tell it.
        advance: moves the progress on.
        how: the fields that are told of a trial; or what tells of it instead.
        outcome: of the trial.
    """
    trial = outcome.trial
    if outcome.status == "failed":
        kept = failure_file(trial, out)
        where = f"traceback in {kept}" if kept.exists() else "its traceback could not be kept"
        _say(console, f"failed: {trial} ({trial.identity}): {headline(outcome.error)}; {where}")
    if callable(how):
        how(outcome)
        advance("")
        return
    words = brief(trial, how)
    words = words if len(words) <= _LONG else f"{words[: _LONG - 1]}…"
    advance(f"{words}: {outcome.status}")


def _say(console: Console, words: str) -> None:
    console.print(words, soft_wrap=True, highlight=False, markup=False)
