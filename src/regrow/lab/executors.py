"""Where attempts run: in this process, in local processes, on a Ray cluster."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import joblib
import torch
from joblib.externals.loky.process_executor import TerminatedWorkerError

from regrow.lab.attempt import Outcome, attempt
from regrow.lab.trial import Trial
from regrow.machine import needed

__all__ = ["EXECUTORS", "Executor", "ProcessDied", "run_side_by_side"]

Executor = Literal["inline", "local", "ray"]
EXECUTORS: tuple[Executor, ...] = ("inline", "local", "ray")


class ProcessDied(RuntimeError):
    """A process that ran trials died without a word."""


def run_side_by_side(
    trials: Sequence[Trial],
    out: Path,
    options: Mapping[str, Any],
    executor: Executor = "local",
    jobs: int = -1,
) -> Iterator[Outcome]:
    """Attempt trials and yield how each ended, as they end.

    Args:
        trials: what to run.
        out: the study's folder; for "ray" one that all nodes share.
        options: of this machine, for the trials.
        executor: "inline" runs one after another in this process, "local" in processes of this
            machine (joblib), on its GPUs in turn, "ray" on the cluster that Ray is connected to, or
            a local one.
        jobs: how many at a time; -1 is one for each core. One runs in this process.

    Raises:
        ImportError: "ray" without the extra.
        ProcessDied: what was running then has not ended.
    """
    if executor == "inline":
        yield from (attempt(trial, out, options) for trial in trials)
        return
    if executor == "ray":
        yield from _on_ray(trials, out.resolve(), options, jobs)
        return
    if jobs != 1:  # joblib would run a single job in this process, and let it die with it
        jobs = max(2, min(jobs if jobs > 0 else os.cpu_count() or 1, len(trials)))
    calls = [
        joblib.delayed(_on_gpu)(number, trial, out.resolve(), options)
        for number, trial in enumerate(trials)
    ]
    # joblib watches over processes that it starts for a call from the next call on: without one, a
    # sweep would wait for ever for the only one that died.
    calls.append(joblib.delayed(_nothing)())
    try:
        with joblib.parallel_config(backend="loky", n_jobs=jobs), warnings.catch_warnings():
            # Said in the thread that waits for processes, which dies of it if warnings are errors.
            warnings.filterwarnings("ignore", "A worker stopped while some jobs were given")
            ended = joblib.Parallel(return_as="generator_unordered", pre_dispatch="all")(calls)
            yield from (outcome for outcome in ended if outcome is not None)
    except TerminatedWorkerError as error:
        raise ProcessDied("a process that ran trials died") from error


def _on_gpu(number: int, trial: Trial, out: Path, options: Mapping[str, Any]) -> Outcome:
    """Attempt a trial; those side by side are spread over the GPUs."""
    if (gpus := torch.cuda.device_count()) > 1:
        torch.cuda.set_device(number % gpus)  # the device that "cuda" and "auto" then mean
    return attempt(trial, out, options)


def _nothing() -> None:
    pass


def _on_ray(
    trials: Sequence[Trial], out: Path, options: Mapping[str, Any], jobs: int
) -> Iterator[Outcome]:
    """Run a Ray task for each trial; joblib's Ray backend cannot yield outcomes as they come."""
    with needed("ray", "ray"):
        import ray  # noqa: PLC0415 (an extra)
    if not ray.is_initialized():
        ray.init(log_to_driver=False, include_dashboard=False)
    task = ray.remote(max_retries=0)(attempt)
    waiting, died = list(trials), False
    running: list[Any] = []
    while waiting or running:
        while waiting and (jobs < 0 or len(running) < jobs):
            running.append(task.remote(waiting.pop(0), out, options))
        [ready], running = ray.wait(running)
        try:
            yield ray.get(ready)
        except ray.exceptions.WorkerCrashedError:
            died = True
    if died:
        raise ProcessDied("a process that ran trials died")
