"""A sweep: all trials of a study. What is finished is skipped, what was cut off goes on."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from regrow.lab.attempt import Outcome, is_finished, starts
from regrow.lab.executors import Executor, ProcessDied, run_side_by_side
from regrow.lab.failures import keep_failure
from regrow.lab.trial import Trial

__all__ = ["SweepResult", "sweep"]

_DEATHS = 2  # a trial whose process died so often is not tried again
_WAIT = 1.0  # seconds between looks at trials that another sweep is at


@dataclass
class SweepResult:
    """How a sweep ended.

    Args:
        skipped: trials that were finished before.
        finished: trials that finished now, here or in a sweep beside this one.
        failed: trials that raised, or whose process died again and again.
    """

    skipped: list[Trial] = field(default_factory=list)
    finished: list[Outcome] = field(default_factory=list)
    failed: list[Outcome] = field(default_factory=list)


def sweep(
    trials: Sequence[Trial],
    out: Path,
    *,
    options: Mapping[str, Any] | None = None,
    executor: Executor = "local",
    jobs: int = -1,
    tell: Callable[[Outcome], None] = lambda _: None,
) -> SweepResult:
    """Run all trials that are not finished.

    A trial that raises is recorded with its traceback and the others go on; so do they when a
    process dies. Several sweeps may run on one folder: no trial is run twice at a time.

    Args:
        trials: what to run; equal ones count once.
        out: the study's folder.
        options: of this machine, for the trials; no part of their identity.
        executor: where they run, see :func:`regrow.lab.executors.run_side_by_side`.
        jobs: how many at a time; -1 is one for each core.
        tell: is called with every trial that has ended.
    """
    unique = list({trial.identity: trial for trial in trials}.values())
    found = SweepResult(skipped=[trial for trial in unique if is_finished(trial, out)])
    left = [trial for trial in unique if not is_finished(trial, out)]
    before = {trial.identity: starts(trial, out) for trial in left}
    while left:
        # What was running when a process died runs alone, so as not to drag the others along.
        suspects = [trial for trial in left if starts(trial, out) > before[trial.identity]]
        ended = set()
        for outcome in _round(suspects[:1] or left, out, options or {}, executor, jobs):
            identity = outcome.trial.identity
            if outcome.status == "busy":  # with another sweep, and no suspect
                before[identity] = starts(outcome.trial, out)
            else:
                ended.add(identity)
                _note(outcome, found, tell)
        left = [trial for trial in left if trial.identity not in ended]
        for trial in suspects[:1]:
            if trial in left and starts(trial, out) >= before[trial.identity] + _DEATHS:
                _note(_given_up(trial, out), found, tell)
                left.remove(trial)
        if left and not ended:
            time.sleep(_WAIT)
    return found


def _note(outcome: Outcome, found: SweepResult, tell: Callable[[Outcome], None]) -> None:
    (found.finished if outcome.status == "finished" else found.failed).append(outcome)
    tell(outcome)


def _round(
    trials: Sequence[Trial],
    out: Path,
    options: Mapping[str, Any],
    executor: Executor,
    jobs: int,
) -> Iterator[Outcome]:
    """Attempt each trial once; a process that dies ends the round, not the sweep."""
    with contextlib.suppress(ProcessDied):
        yield from run_side_by_side(trials, out, options, executor, jobs)


def _given_up(trial: Trial, out: Path) -> Outcome:
    error = (
        f"its process died {_DEATHS} times without a word: killed, or out of memory. Run with "
        "fewer jobs, or with executor='inline' to see it die"
    )
    keep_failure(trial, out, error)
    return Outcome(trial, "failed", 0.0, error)
