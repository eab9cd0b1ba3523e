"""What a population refuses: runs that cannot be trained, numbers that are none, wrong answers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from regrow.control.environments.base import Environments, Floats
from regrow.control.moved import LEAST
from regrow.control.noise import NoiseFeatures
from regrow.control.setting import Arm, Setting
from regrow.control.teachers import Answers, Query, Teacher

__all__ = ["check_finite", "check_noise", "check_population", "checked_answers"]

_MOST = np.finfo(np.float32).max


def check_population(
    environments: Environments, teacher: Teacher | None, arms: Sequence[Arm], setting: Setting
) -> None:
    """Raise ValueError if runs cannot be trained together, or not at all.

    Raises:
        TypeError: the teacher is no function.
    """
    if len(arms) != environments.runs:
        raise ValueError(
            f"arms: {len(arms)} for {environments.runs} environments; one for each is needed"
        )
    if teacher is not None and not callable(teacher):
        raise TypeError(f"teacher={teacher!r}: a function from a Query to Answers is needed")
    if setting.segment > environments.episode:
        raise ValueError(
            f"segment={setting.segment}: episodes have {environments.episode} steps; take fewer"
        )
    learning = [run for run, arm in enumerate(arms) if not arm.true_reward]
    if learning and (teacher is None or setting.feedbacks == 0):
        raise ValueError(
            f"run {learning[0]} learns from preferences: a teacher and feedbacks of at least 1 are "
            "needed, or an arm with true_reward=True"
        )
    if learning and setting.first_feedback > setting.steps:
        raise ValueError(
            f"steps={setting.steps}: the teacher is asked for the first time after "
            f"{setting.first_feedback}, seed_steps and unsupervised_steps: take more, or fewer "
            "of those"
        )
    if setting.unsupervised_steps and setting.seed_steps <= setting.neighbours:
        raise ValueError(
            f"seed_steps={setting.seed_steps}: more than neighbours={setting.neighbours} are needed"
        )
    if setting.replay is not None:
        _check_replay(setting.replay, arms, setting)


def _check_replay(replay: int, arms: Sequence[Arm], setting: Setting) -> None:
    """Raise ValueError if something needs more transitions than are kept."""
    if setting.unsupervised_steps and replay <= setting.neighbours:
        raise ValueError(f"replay={replay}: more than neighbours={setting.neighbours} are needed")
    if replay < LEAST and any(arm.eliminates and arm.score == "moved" for arm in arms):
        raise ValueError(
            f"replay={replay}: what actions move is told from {LEAST:,} transitions at least: keep "
            "as many, or take another method than moved"
        )


def check_noise(noise: NoiseFeatures, environments: Environments) -> None:
    """Raise ValueError unless noise was made for as many runs and features as there are."""
    made, needed = tuple(noise.places.shape), (environments.runs, environments.observations)
    if made != needed:
        raise ValueError(
            f"noise: made for {made[0]} runs of {made[1]} real features, and environments have "
            f"{needed[0]} of {needed[1]}"
        )


def check_finite(number: int, **given: Floats) -> None:
    """Raise FloatingPointError if an environment gave NaN or a number that float32 has not.

    Args:
        number: of the step.
        **given: what it gave, a row for each run.
    """
    for name, values in given.items():
        bad = ~(np.abs(values) <= _MOST).reshape(len(values), -1).all(1)
        if bad.any():
            run = int(np.flatnonzero(bad)[0])
            raise FloatingPointError(
                f"environments: {name} of run {run} are NaN or infinite at step {number}: mend the "
                "environment, and go on from the last checkpoint"
            )


def checked_answers(answers: Answers, query: Query, device: torch.device) -> Answers:
    """Return answers on the device; raise ValueError if they do not fit the query.

    Raises:
        TypeError: they are none, or hold no tensors.
    """
    if not isinstance(answers, Answers):
        raise TypeError(f"teacher: returned {answers!r}; regrow.control.Answers are needed")
    for name in ("labels", "answered"):
        if not isinstance(given := getattr(answers, name), torch.Tensor):
            raise TypeError(f"teacher: {name}={given!r}; a tensor is needed")
    shape = query.rewards.shape[:2]
    labels, answered = answers.labels.to(device), answers.answered.to(device).bool()
    if labels.shape != shape or answered.shape != shape:
        raise ValueError(
            f"teacher: labels {tuple(labels.shape)} and answered {tuple(answered.shape)}: both "
            f"must be of shape {tuple(shape)}"
        )
    return Answers(labels.float(), answered)
