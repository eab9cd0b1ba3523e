"""What is seen when actions are random."""

from __future__ import annotations

import numpy as np

from regrow.control.environments.base import Environments, Floats

__all__ = ["random_observations"]


def random_observations(environments: Environments, steps: int, *, hold: int = 8) -> Floats:
    """Return the observations of all runs under random actions, each held for some steps.

    Args:
        environments: stepped; others than those of training.
        steps: of each run.
        hold: steps that an action is held.

    Returns:
        float32, shape (steps · runs, d).

    Example:
        >>> from regrow.control.environments import PointMass
        >>> random_observations(PointMass([0, 1]), 30).shape
        (60, 4)
    """
    random = np.random.default_rng(environments.seeds)
    seen, actions = [environments.reset()], np.zeros((environments.runs, environments.actions))
    for number in range(steps - 1):
        if number % hold == 0:
            actions = random.uniform(-1, 1, actions.shape)
        step = environments.step(actions)
        over = step.terminated | step.truncated
        seen.append(environments.reset(over) if over.any() else step.observations)
    return np.concatenate(seen)
