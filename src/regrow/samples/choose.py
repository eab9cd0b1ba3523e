"""Chooses the samples of an epoch: those never seen first, then by the criterion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from regrow.samples.known import Choice, Criterion, Known
from regrow.samples.pick import drawn

__all__ = ["choose", "up_to_length"]

_LEFT = 1e-4  # of a budget


def choose(criterion: Criterion, known: Known, k: int | None) -> Choice:
    """Choose samples; where the criterion reads losses, first those that have none, at random.

    Args:
        criterion: chooses among those seen.
        known: of the samples.
        k: how many; None: the criterion decides, and all that were never seen are kept.

    Example:
        >>> import torch
        >>> from regrow.samples.criteria import Hard
        >>> loss, seen = torch.tensor([0.0, 3.0, 1.0]), torch.tensor([0, 1, 1])
        >>> known = Known(
        ...     allowed=torch.ones(3, dtype=torch.bool), loss=loss, last=loss, seen=seen, start=1.0,
        ...     round=0, progress=0.0, generator=torch.Generator(),
        ... )
        >>> choose(Hard(), known, 2).mask.tolist()
        [True, True, False]
    """
    if not (criterion.scored and _any_unseen(known)):
        return criterion(known, k)
    unseen = known.allowed & (known.seen == 0)
    n = int(unseen.sum())
    first = drawn(n if k is None else min(k, n), unseen, known.generator)
    seen = known.allowed & ~unseen
    left = None if k is None else k - int(first.sum())
    if left == 0 or not bool(seen.any()):
        return Choice(first)
    choice = criterion(replace(known, allowed=seen), left)
    weights = choice.weights
    if weights is not None:
        weights = weights.masked_fill(first, 1.0)
    return Choice(first | choice.mask, weights, choice.fields)


def _any_unseen(known: Known) -> bool:
    return bool((known.allowed & (known.seen == 0)).any())


def up_to_length(
    chosen: Callable[[int], Choice], lengths: Tensor, budget: float, most: int
) -> Choice:
    """Choose as many samples as have a total length of at most a budget, and at least one.

    The number is looked for between two whose totals lie below and above, where a line through them
    meets the budget, and in the middle after every two that missed: two or three choices where
    lengths and losses have little to do with each other. It is found when one sample more would be
    too much, or when less than a ten-thousandth of the budget is left.

    Args:
        chosen: chooses so many.
        lengths: float64, shape (n,); 0 where a sample may not be chosen.
        budget: of their sum.
        most: how many there are to choose from.

    Example:
        >>> import torch
        >>> lengths = torch.tensor([1.0, 5.0, 2.0])
        >>> choice = up_to_length(lambda k: Choice(torch.arange(3) < k), lengths, 7.0, 3)
        >>> choice.mask.tolist()
        [True, True, False]
    """
    if (total := float(lengths.sum())) <= budget:
        return chosen(most)
    best: Choice | None = None
    low, under, high, over, turns = 0, 0.0, most, total, 0
    while high - low > 1 and (best is None or budget - under >= _LEFT * budget):
        turns += 1
        share = (budget * (1 - _LEFT / 2) - under) / (over - under) if turns % 3 else 0.5
        k = min(max(low + round(share * (high - low)), low + 1), high - 1)
        choice = chosen(k)
        total = float(lengths.numpy()[choice.mask.numpy()].sum())
        if total <= budget:
            best, low, under = choice, k, total
        else:
            high, over = k, total
    return chosen(1) if best is None else best
