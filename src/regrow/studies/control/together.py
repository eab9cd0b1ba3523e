"""Trains the trials of a study in populations, before each is recorded by itself."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from regrow.control.environments import make
from regrow.control.noise import total_features
from regrow.lab.files import remove
from regrow.lab.run import Run
from regrow.lab.trial import Trial
from regrow.studies.control.trial import LearnFromPreferences, results_of

__all__ = ["populations", "train_together"]

logger = logging.getLogger("regrow.control")

_MOST, _BYTES = 250, 32e9  # runs of a population, and what their replay buffers may take
_SAVE_EVERY = 300.0  # seconds: what hundreds of runs have stored is large
_OWN = ("seed", "method")  # in which runs of a population may differ, and in the reward
FOLDER = "populations"


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

    A population that was cut off goes on. One that fails is told, and left out: its trials are then
    tried one by one.

    Args:
        trials: those that are not finished.
        out: the study's folder.
        options: of this machine.
    """
    own = {"threads": os.cpu_count() or 1, **options}  # nothing else steps environments meanwhile
    parts = populations(trials)
    for number, part in enumerate(parts, 1):
        name = hashlib.sha256("".join(sorted(t.identity for t in part)).encode()).hexdigest()[:16]
        folder = out / FOLDER / name
        folder.mkdir(parents=True, exist_ok=True)
        said = f"population {number} of {len(parts)}: {len(part)} runs, {part[0].task}"
        logger.info("%s, %.0f %% noise, %s", said, 100 * part[0].noise, part[0].noise_kind)
        try:
            results = results_of(part, Run(folder, own, save_every=_SAVE_EVERY))
        except (RuntimeError, ValueError, ArithmeticError) as error:
            logger.warning("%s failed (%s): its runs are trained one by one", said, error)
            continue
        yield list(part), {"results": results}
        remove(folder)
