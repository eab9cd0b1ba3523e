"""Mean average precision of scored predictions that match the truth or do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["average_precision", "mean_average_precision", "samples_of"]

Array = npt.NDArray[Any]


def average_precision(scores: Array, hits: Array, wanted: int) -> float:
    r"""Return the area below the precision-recall curve, precision made to fall with recall.

    .. math:: \sum_i (R_i - R_{i-1}) \max_{j \ge i} P_j

    Args:
        scores: float, (samples,): the higher, the surer; of equal ones, misses come first.
        hits: bool, (samples,): right or wrong.
        wanted: agents that were to be hit, which is where recall is 1.

    Example:
        >>> average_precision(np.array([0.9, 0.8, 0.7]), np.array([True, False, True]), 2)
        0.8333333333333333
    """
    right = hits[np.lexsort((hits, -scores))]
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float((best * right).sum() / wanted) if wanted else 0.0


def samples_of(scores: Array, matched: Array, *, soft: bool) -> tuple[Array, Array]:
    """Return the scores and hits that predictions of agents give, at most one hit an agent.

    The hit is the surest prediction that matches; of equally sure ones the first. Further matches
    are misses or, if soft, left out.

    Args:
        scores: float, (agents, modes).
        matched: int, (agents, modes): 1: matches the truth, 0: does not, -1: cannot be said.
        soft: leave further matches out.

    Returns:
        Scores, (samples,), and hits, bool, (samples,).
    """
    order = np.argsort(-scores, axis=1, kind="stable")
    score = np.take_along_axis(scores, order, axis=1)
    match = np.take_along_axis(matched, order, axis=1)
    first = (match == 1) & (np.cumsum(match == 1, axis=1) == 1)
    counts = (match == 0) | (first if soft else match == 1)
    return score[counts], first[counts]


def mean_average_precision(
    scores: Array, matched: Array, shapes: Array, *, soft: bool = False
) -> float:
    """Return average precision, as a mean over the shapes of futures that are there.

    Args:
        scores: float, (agents, modes).
        matched: int, (agents, modes): as of :func:`samples_of`.
        shapes: int, (agents,): of each agent's future; -1: not counted.
        soft: as of :func:`samples_of`; then it is Waymo's soft mAP.

    Returns:
        0 to 1; NaN where no agent could be measured.
    """
    measured = (matched >= 0).any(1) & (shapes >= 0)
    values = []
    for shape in np.unique(shapes[measured]):
        own = measured & (shapes == shape)
        values.append(
            average_precision(*samples_of(scores[own], matched[own], soft=soft), int(own.sum()))
        )
    return float(np.mean(values)) if values else np.nan
