"""From 64 futures to six: greedy choice of the likeliest ends that lie apart."""

from __future__ import annotations

import torch
from torch import Tensor

from regrow.motion.decoder import Predicted
from regrow.motion.layers import picked

__all__ = ["apart", "modes"]


def apart(ends: Tensor, scores: Tensor, keep: int, distance: float) -> Tensor:
    """Choose futures: the likeliest that is not near one chosen before, again and again.

    Where all that are left are near, the likeliest of them comes, so that there are always as many
    as asked for, none of them twice.

    Args:
        ends: last positions, shape (n, futures, 2), in metres.
        scores: shape (n, futures); higher comes first.
        keep: how many.
        distance: nearer than this is near.

    Returns:
        int64, shape (n, keep): places.

    Raises:
        ValueError: there are fewer futures than are to be kept.

    Source: Shi et al. 2022 (MTR), section 4.1.

    Example:
        >>> ends = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [9.0, 0.0]]])
        >>> apart(ends, torch.tensor([[0.5, 0.4, 0.1]]), 2, 2.5).tolist()
        [[0, 2]]
    """
    if not 1 <= keep <= scores.shape[1]:
        raise ValueError(f"keep={keep}: must lie in 1..{scores.shape[1]}, the futures there are")
    far = (ends[:, :, None] - ends[:, None]).square().sum(-1) >= distance**2
    free, left = torch.ones_like(far[:, 0]), torch.ones_like(far[:, 0])
    chosen = []
    for _ in range(keep):
        best = free & left
        best = best | (left & ~best.any(-1, keepdim=True))
        place = scores.masked_fill(~best, -torch.inf).argmax(-1)
        chosen.append(place)
        left = left.scatter(1, place[:, None], False)
        free = free & picked(far, place[:, None]).squeeze(1)
    return torch.stack(chosen, 1)


def modes(predicted: Predicted, keep: int = 6, distance: float = 2.5) -> tuple[Tensor, Tensor]:
    """Return the likeliest futures of the last layer that end apart.

    Args:
        predicted: of the network.
        keep: how many.
        distance: between ends, at least, in metres.

    Returns:
        Trajectories, shape (n, keep, steps, 7), and their probabilities, shape (n, keep): those
        among all queries, whose sum is below 1. They come in the order of their choice.
    """
    scores, paths = predicted.scores[-1].float().softmax(-1), predicted.trajectories[-1]
    places = apart(paths[..., -1, :2], scores, keep, distance)
    return (
        picked(paths, places),
        picked(scores, places),
    )
