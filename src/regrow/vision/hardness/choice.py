"""Chooses the samples to keep: the hardest, the easiest, or a random share."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from regrow.data.labels import quotas
from regrow.engine.selection import bottom_k, random_k, seeded_generator, top_k

__all__ = ["Pick", "choose"]

Pick = Literal["hardest", "easiest", "random"]


def choose(
    scores: Tensor, labels: Tensor, share: float, pick: Pick, seed: int, *, balanced: bool = False
) -> Tensor:
    """Choose exactly round(share · n) samples, at least one.

    Args:
        scores: harder is higher, shape (n,); among equal ones the lower index goes first. For
            "random" they are not looked at.
        labels: int64 of at least 0, shape (n,).
        share: of the samples, in (0, 1].
        pick: "hardest", "easiest" or "random".
        seed: for "random": another one, another choice.
        balanced: keep the same share of every class, rounded down or up; else the hardest samples
            may be of few classes.

    Returns:
        Ascending int64 indices, on the labels' device.

    Raises:
        ValueError: the share or the pick is out of range, lengths differ, there are no samples, or
            a score is NaN.

    Example:
        >>> scores, labels = torch.tensor([0.1, 0.9, 0.5, 0.9]), torch.tensor([0, 0, 1, 0])
        >>> choose(scores, labels, 0.5, "hardest", seed=0).tolist()
        [1, 3]
        >>> choose(scores, labels, 0.5, "hardest", seed=0, balanced=True).tolist()
        [1, 3]
    """
    if pick not in ("hardest", "easiest", "random"):
        raise ValueError(f"pick={pick!r}: must be 'hardest', 'easiest' or 'random'")
    if not 0 < share <= 1:
        raise ValueError(f"share={share}: must be above 0 and at most 1")
    if scores.shape != labels.shape or labels.ndim != 1 or not len(labels):
        raise ValueError(
            f"scores of shape {tuple(scores.shape)} for labels of shape {tuple(labels.shape)}: "
            "must be one each, and at least one"
        )
    if pick != "random" and scores.isnan().any():
        raise ValueError(f"{int(scores.isnan().sum())} scores are NaN: make every score a number")
    worth, classes = scores.detach().cpu(), labels.cpu()
    k = max(round(share * len(labels)), 1)
    groups = {"all": (torch.ones_like(classes, dtype=torch.bool), k)}
    if balanced:
        counts = quotas(classes.bincount(), share, k).tolist()
        groups = {str(c): (classes == c, count) for c, count in enumerate(counts)}
    chosen = torch.zeros_like(classes, dtype=torch.bool)
    for name, (allowed, count) in groups.items():
        if pick == "random":
            chosen |= random_k(count, allowed, seeded_generator(seed, "choose", name))
        else:
            chosen |= (top_k if pick == "hardest" else bottom_k)(worth, count, allowed)
    return chosen.nonzero().squeeze(1).to(labels.device)
