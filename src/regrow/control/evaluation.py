"""What agents get in environments that they do not learn from."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from regrow.control.checks import check_finite
from regrow.control.environments.base import Bools, Environments, Floats

__all__ = ["mean_returns"]


def mean_returns(
    act: Callable[[Floats], Floats],
    environments: Environments,
    episodes: int,
    watch: Callable[[Floats, Bools], None],
    step: int,
) -> list[float]:
    """Return each run's mean return over so many episodes.

    Args:
        act: gives actions in -1..1, (runs, A), for what is seen, (runs, d).
        environments: stepped until every run has had its episodes; what comes later does not count.
        episodes: of each run.
        watch: is shown what is seen after every step, (runs, d), and which episodes are over then.
        step: of the training, named in errors.

    Raises:
        FloatingPointError: an environment gave NaN or an infinite number.

    Example:
        >>> from regrow.control.environments import PointMass
        >>> still = lambda seen: np.zeros((len(seen), 2))
        >>> mean_returns(still, PointMass([0], episode=4), 2, lambda seen, over: None, 0)[0] > 0
        True
    """
    runs, shown = environments.runs, environments.reset()
    sums, counts = np.zeros(runs), np.zeros(runs, dtype=np.int64)
    while (counts < episodes).any():
        check_finite(step, observations=shown)
        after = environments.step(act(shown))
        check_finite(step, rewards=after.rewards)
        sums += after.rewards * (counts < episodes)
        over = after.terminated | after.truncated
        watch(after.observations, over)
        counts += over
        shown = environments.reset(over) if over.any() else after.observations
    return [float(x) for x in sums / episodes]
