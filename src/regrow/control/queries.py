"""Which pairs of segments a teacher is asked about: pure functions of candidates."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from regrow.control.setting import QueryKind

__all__ = ["choose", "disagreement", "entropy", "k_center"]

Chances = Callable[[Tensor], Tensor]


def choose(
    kind: QueryKind, clips: Tensor, known: Tensor, chances: Chances, count: int,
    counts: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Choose which candidates are asked about.

    Mixtures with k-center take it among twice as many of the highest disagreement or entropy.

    Args:
        kind: how.
        clips: candidates (runs, C, 2, segment, D + A).
        known: comparisons that were answered before, (runs, L, 2, segment, D + A); for k-center.
        chances: gives every member's P[1 ≻ 0], (runs, members, C).
        count: how many of each run, at most C.
        counts: how many of the known ones there are in each run, (runs, 1); None: all.

    Returns:
        Indices of candidates, int64, (runs, count).

    Source: B-Pref, feed types 0 to 5.
    """
    if kind == "uniform":
        return torch.arange(count, device=clips.device).expand(len(clips), -1)
    if kind == "k-center":
        return k_center(clips.flatten(2), known.flatten(2), count, counts)
    score = disagreement if kind.endswith("disagreement") else entropy
    wanted = count if kind in ("disagreement", "entropy") else min(2 * count, clips.shape[1])
    order = score(chances(clips)).argsort(dim=1, descending=True, stable=True)[:, :wanted]
    if wanted == count:
        return order
    rows = torch.arange(len(clips), device=clips.device)[:, None]
    best = clips[rows, order].flatten(2)
    return order.gather(1, k_center(best, known.flatten(2), count, counts))


def disagreement(chances: Tensor) -> Tensor:
    """Return the standard deviation over members of P[1 ≻ 0], (runs, C).

    Example:
        >>> disagreement(torch.tensor([[[0.0, 0.5], [1.0, 0.5]]])).tolist()
        [[0.5, 0.0]]
    """
    return chances.std(1, correction=0)


def entropy(chances: Tensor) -> Tensor:
    """Return the mean of the members' entropies in nats, (runs, C).

    Example:
        >>> entropy(torch.tensor([[[0.0, 1.0]]])).tolist()
        [[0.0, 0.0]]
    """
    both: Tensor = torch.special.entr(chances) + torch.special.entr(1 - chances)
    return both.mean(1)


def k_center(points: Tensor, known: Tensor, count: int, counts: Tensor | None = None) -> Tensor:
    """Choose one point after another, each the farthest from all that are known or chosen.

    Args:
        points: (runs, C, n).
        known: (runs, L, n); without any, the first point comes first.
        count: how many, at most C.
        counts: how many of the known ones there are in each run, (runs, 1); None: all.

    Returns:
        Indices of points, int64, (runs, count).

    Example:
        >>> points = torch.tensor([[[0.0], [1.0], [5.0], [9.0]]])
        >>> k_center(points, torch.zeros(1, 1, 1), 2).tolist()
        [[3, 2]]
    """
    nearest = torch.full(points.shape[:2], torch.inf, device=points.device)
    if known.shape[1]:
        # By a product of matrices, rounding would hang on how many are known in other runs.
        apart = torch.cdist(points, known, compute_mode="donot_use_mm_for_euclid_dist")
        if counts is not None:
            missing = torch.arange(known.shape[1], device=known.device) >= counts
            apart = apart.masked_fill(missing[:, None], torch.inf)
        nearest = apart.amin(2)
    chosen = []
    for _ in range(count):
        place = nearest.argmax(1, keepdim=True)
        chosen.append(place)
        point = points.gather(1, place[..., None].expand(-1, -1, points.shape[2]))
        nearest = torch.minimum(nearest, (points - point).norm(dim=2)).scatter(1, place, -1.0)
    return torch.cat(chosen, 1)
