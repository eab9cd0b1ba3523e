"""Trains the trials of a study in populations, before each is recorded by itself."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from typing import Any

import torch

from regrow.control.environments import make
from regrow.control.noise import total_features
from regrow.lab.files import remove
from regrow.lab.run import Run
from regrow.lab.trial import Trial
from regrow.studies.control.trial import LearnFromPreferences, results_of
from regrow.training.run import device_of

__all__ = ["populations", "train_together"]

logger = logging.getLogger("regrow.control")

_MOST, _BYTES = 250, 32e9  # runs of a population, and what their replay buffers may take
_SAVE_EVERY = 300.0  # seconds: what hundreds of runs have stored is large
_OWN = ("seed", "method")  # in which runs of a population may differ, and in the reward
FOLDER = "populations"

Results = dict[str, dict[str, Any]]
"""Of trials, by identity."""


def populations(trials: Sequence[Trial]) -> list[list[LearnFromPreferences]]:
    """Part trials into populations; those that must be trained by themselves are left out.

    Runs of a population have the same noise, task and setting, and as many shadows as they would
    have by themselves: so each gives the numbers that it would give alone. What most hangs on comes
    first: runs without noise, then those with most.
    """
    groups: dict[str, list[LearnFromPreferences]] = {}
    for trial in trials:
        if not isinstance(trial, LearnFromPreferences) or not _may_share(trial):
            continue
        content = {name: v for name, v in trial.content.items() if name not in _OWN}
        content["shadows"] = trial.shadows_for(trial.arms)
        # Critics start anew after the first feedback, which runs on the true reward do not have.
        apart = trial.unsupervised_steps or trial.reset_critic
        content["reward"] = trial.reward if apart else "either"
        groups.setdefault(json.dumps(content, sort_keys=True), []).append(trial)
    ordered = sorted(groups.values(), key=lambda group: (group[0].noise > 0, -group[0].noise))
    return [
        group[at : at + most]
        for group in ordered
        for most in [_most(group[0])]
        for at in range(0, len(group), most)
    ]


def _may_share(trial: LearnFromPreferences) -> bool:
    # Histograms are taken for each trial; people answer one.
    return trial.noise_kind != "histogram" and trial.teacher != "people" and trial.runs == 1


def _most(trial: LearnFromPreferences) -> int:
    """Return how many runs like a trial's fit together."""
    environment = make(trial.task, [0], repeat=trial.repeat)
    features = total_features(environment.observations, trial.noise) + trial.shadows_for(trial.arms)
    stored = 4 * (trial.replay or trial.steps) * (2 * features + environment.actions + 6)
    return max(1, min(_MOST, int(_BYTES // stored)))


def train_together(
    trials: Sequence[Trial], out: Path, options: Mapping[str, Any]
) -> Iterator[tuple[list[Trial], dict[str, Any]]]:
    """Train populations; yield their trials, and options with which these have their results.

    Of several GPUs each has a process of its own, which trains one population at a time; a GPU that
    would have none gets a part of another's. A population that was cut off goes on, if it is to
    consist of the same runs. One that fails is told, and left out: its trials are then tried one by
    one.

    Args:
        trials: those that are not finished.
        out: the study's folder.
        options: of this machine; a ``device`` that is a number's, such as "cuda:1", trains alone.
    """
    devices = _devices(options)
    parts = parted(populations(trials), len(devices))
    threads = max(1, (os.cpu_count() or 1) // len(devices))  # nothing else steps environments
    tasks = []
    for number, part in enumerate(parts, 1):
        name = hashlib.sha256("".join(sorted(t.identity for t in part)).encode()).hexdigest()[:16]
        said = f"population {number} of {len(parts)}: {len(part)} runs, {part[0].task}"
        noise = f"{100 * part[0].noise:.0f} % noise, {part[0].noise_kind}"
        tasks.append(Task(part, out / FOLDER / name, {"threads": threads, **options}, said, noise))
    ended = one_by_one(tasks) if len(devices) == 1 else side_by_side(tasks, devices)
    for task, found in ended:
        if isinstance(found, str):
            logger.warning("%s failed (%s): its runs are trained one by one", task.said, found)
            continue
        yield list(task.part), {"results": found}
        remove(task.folder)


def _devices(options: Mapping[str, Any]) -> list[str]:
    """Name the devices on which populations are trained side by side."""
    device = device_of(options)
    if device.type == "cuda" and options.get("device") in (None, "auto", "cuda"):
        return [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    return [str(device)]


def parted(
    parts: Sequence[list[LearnFromPreferences]], number: int
) -> list[list[LearnFromPreferences]]:
    """Halve the largest populations until there are as many as devices, or none can be halved."""
    found = list(parts)
    while found and len(found) < number and len(largest := max(found, key=len)) > 1:
        at, half = found.index(largest), (len(largest) + 1) // 2
        found[at : at + 1] = [largest[:half], largest[half:]]
    return found


@dataclass(frozen=True)
class Task:
    """A population to be trained.

    Args:
        part: trials.
        folder: of its run.
        options: of this machine.
        said: which it is, in words.
        noise: what is shown, in words.
    """

    part: Sequence[LearnFromPreferences]
    folder: Path
    options: Mapping[str, Any]
    said: str
    noise: str

    def train(self, device: str | None = None) -> Results | str:
        """Train and evaluate; return the results by identity, or what went wrong.

        Args:
            device: where; None: as the options say.
        """
        own = self.options if device is None else {**self.options, "device": device}
        if device is not None and device.startswith("cuda"):
            torch.cuda.set_device(device)
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            return results_of(self.part, Run(self.folder, own, save_every=_SAVE_EVERY))
        except (RuntimeError, ValueError, ArithmeticError) as error:
            return str(error) or type(error).__name__


def one_by_one(tasks: Sequence[Task]) -> Iterator[tuple[Task, Results | str]]:
    """Train populations in this process."""
    for task in tasks:
        logger.info("%s, %s", task.said, task.noise)
        yield task, task.train()


def side_by_side(
    tasks: Sequence[Task], devices: Sequence[str]
) -> Iterator[tuple[Task, Results | str]]:
    """Train populations in processes of their own, one on each device; yield them as they end.

    Args:
        tasks: what to train, the most important first.
        devices: such as "cuda:0", "cuda:1".
    """
    context = get_context("spawn")  # a forked process cannot use a GPU
    waiting, free = list(tasks), list(devices)
    running: dict[Any, tuple[Task, str, Any]] = {}
    try:
        while waiting or running:
            while waiting and free:
                task, device = waiting.pop(0), free.pop(0)
                logger.info("%s, %s, on %s", task.said, task.noise, device)
                here, there = context.Pipe(duplex=False)
                process = context.Process(target=_train_apart, args=(task, device, there))
                process.start()
                there.close()  # so that the end of the process is the end of what it says
                running[here] = task, device, process
            for ended in connection.wait(list(running)):
                task, device, process = running.pop(ended)
                yield task, _said_by(ended, process)
                free.append(device)
    finally:
        for _, _, process in running.values():
            process.terminate()
            process.join()


def _said_by(here: Any, process: Any) -> Results | str:
    try:
        found: Results | str = here.recv()
    except EOFError:
        process.join()
        return f"its process died with exit code {process.exitcode}"
    process.join()
    return found


def _train_apart(task: Task, device: str, there: Any) -> None:
    parent = parent_process()
    assert parent is not None

    def end() -> None:  # two processes must never train one population
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()
    torch.set_num_threads(1)  # as in a sweep: sums must not depend on what runs side by side
    there.send(task.train(device))
