"""What is told of a population on its way: returns, what networks read, how rewards follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from regrow.control.elimination import attention
from regrow.control.inputs import InputLayers
from regrow.control.networks import Networks
from regrow.control.replay import Replay
from regrow.control.reward import RewardModels, correlation

__all__ = ["attended", "correlations", "features_read", "late_returns"]

_LATE = 10  # episodes whose mean return is told
_LOOKED_AT = 256  # transitions by which attention is told
_CORRELATED = 2500  # latest transitions on which rewards are compared


def late_returns(returns: Sequence[Sequence[float]]) -> list[float]:
    """Return the mean of each run's last ten returns; NaN where there is none.

    Example:
        >>> late_returns([[1.0, 2.0], []])
        [1.5, nan]
    """
    return [float(np.mean(one[-_LATE:])) if one else float("nan") for one in returns]


def correlations(models: RewardModels, replay: Replay) -> list[float]:
    """Return how each run's learned reward correlates with the true one on its latest steps."""
    places = replay.latest(_CORRELATED).flip(0)  # sums in the order of older records
    with torch.no_grad():
        found = models.reward(replay.inputs[:, places])
    return correlation(found, replay.rewards[:, places]).tolist()


def features_read(nets: Networks, real: Tensor) -> tuple[list[float], list[float]]:
    """Return how many real and other features any of a run's networks read.

    Args:
        nets: whose inputs begin with features.
        real: which of them are real, bool, (runs, features).
    """
    read = nets.reads()[:, :, : real.shape[1]].any(3).any(1)
    return [float(x) for x in (read & real).sum(1)], [float(x) for x in (read & ~real).sum(1)]


def attended(
    nets: Mapping[str, Networks],
    layers: Mapping[str, InputLayers],
    replay: Replay,
    real: Tensor,
) -> dict[str, list[float]]:
    """Return what moves networks, and how many connections features have, for each run.

    Args:
        nets: critics ("critic") and reward models ("reward_model"), whose outputs go through tanh.
        layers: their first layers, by the same names.
        replay: transitions from all over it are looked at.
        real: which features are real, bool, (runs, features).
    """
    size, device = len(replay), replay.added.device
    number, found = min(size, _LOOKED_AT), {}
    inputs = replay.inputs[:, torch.arange(number, device=device) * size // number]
    for name in ("critic", "reward_model"):
        shares = attention(nets[name], inputs, real, squash=name != "critic")
        found[f"{name}_attention"] = shares.tolist()
        kinds = layers[name].connections(real)
        for kind, values in zip(("real", "noise"), kinds, strict=True):
            found[f"{name}_{kind}_connections"] = values.tolist()
    return found
