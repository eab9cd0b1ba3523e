"""Argoverse 2's motion forecasting metrics: minADE6, minFDE6, miss rate and brier-minFDE."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.motion.metrics.measured import check_predictions
from regrow.motion.scene import Scene

__all__ = ["MISS", "argoverse_mean", "argoverse_metrics"]

Array = npt.NDArray[Any]

MISS = 2.0
"""Metres from the true end beyond which a prediction misses."""


def argoverse_metrics(
    scene: Scene, trajectories: Array, scores: Array, *, modes: int = 6
) -> dict[str, Array]:
    r"""Measure the predictions of a scene as Argoverse 2 does.

    The best prediction is the one that ends nearest to the truth; all figures are of it, minADE
    included. With its probability p, brier-minFDE is

    .. math:: \mathrm{minFDE} + (1 - p)^2

    Args:
        scene: with its future.
        trajectories: float, (targets, modes, steps, 2): x and y in metres in the frame of the
            scene, at each of its steps after now, or the first of them.
        scores: float, (targets, modes): at least 0; of those that count the sum is made 1.
        modes: predictions that count: the surest.

    Returns:
        ``min_ade``, ``min_fde``, ``miss`` (0 or 1) and ``brier_min_fde``, float, (targets,) each;
        NaN where the truth is not known at the last step.

    Raises:
        ValueError: shapes do not fit, predictions are not finite, or scores are below 0 or all 0.

    Source: Argoverse 2 motion forecasting, av2.datasets.motion_forecasting.eval.metrics. Where we
    differ: the truth may be known in part; they have it whole.
    """
    trajectories, scores = np.asarray(trajectories, float), np.asarray(scores, float)
    check_predictions(scene, trajectories, scores, needed=1)
    if modes < 1:
        raise ValueError(f"modes={modes}: must be at least 1")
    steps, future = trajectories.shape[2], len(scene.times) - 1 - scene.now
    if steps > future:
        raise ValueError(f"scene {scene.name}: has {future} steps after now, not the {steps} given")
    if (scores < 0).any() or (scores.sum(1) <= 0).any():
        raise ValueError(f"scene {scene.name}: scores must be 0 or more, their sum above 0")
    order = np.argsort(-scores, axis=1, kind="stable")[:, :modes]
    trajectories = np.take_along_axis(trajectories, order[:, :, None, None], axis=1)
    probability = np.take_along_axis(scores, order, axis=1)
    probability = probability / probability.sum(1, keepdims=True)
    at = scene.now + 1 + np.arange(steps)
    known = scene.valid[scene.targets][:, at]
    distance = np.linalg.norm(
        trajectories - scene.states[scene.targets][:, at][:, None, :, :2], axis=-1
    )
    best = distance[:, :, -1].argmin(1)
    row = np.arange(len(best))
    fde = np.where(known[:, -1], distance[row, best, -1], np.nan)
    way = np.where(known, distance[row, best], 0.0).sum(1)
    ade = np.where(known[:, -1], way / np.maximum(known.sum(1), 1), np.nan)
    return {
        "min_ade": ade,
        "min_fde": fde,
        "miss": np.where(np.isnan(fde), np.nan, fde > MISS),
        "brier_min_fde": fde + (1 - probability[row, best]) ** 2,
    }


def argoverse_mean(found: Iterable[dict[str, Array]]) -> dict[str, float]:
    """Return the means over the agents of all scenes that could be measured.

    Args:
        found: what :func:`argoverse_metrics` returned for each scene.
    """
    listed = list(found)
    names = ("min_ade", "min_fde", "miss", "brier_min_fde")
    values = {name: np.concatenate([np.zeros(0), *(one[name] for one in listed)]) for name in names}
    return {
        name: float(value[~np.isnan(value)].mean()) if (~np.isnan(value)).any() else np.nan
        for name, value in values.items()
    }
