"""Labels of classes: checked when read, and samples split in two class by class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from regrow.engine.selection import seeded_generator
from regrow.reading import damaged

__all__ = ["check_labels", "quotas", "split_off"]


def check_labels(labels: Tensor, inputs: Sequence[object] | Tensor, classes: int, of: str) -> None:
    """Refuse labels that do not fit their inputs.

    Args:
        labels: int64, shape (n,).
        inputs: what they belong to, one a label.
        classes: how many classes there are.
        of: the file they were read from.

    Raises:
        ValueError: the counts differ, or a label lies outside 0..classes-1; the file is named.
    """
    if labels.ndim != 1 or len(labels) != len(inputs):
        raise damaged(of, f"{len(labels)} labels for {len(inputs)}")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        span = f"{int(labels.min())}..{int(labels.max())}"
        raise damaged(of, f"labels {span}, not 0..{classes - 1}")


def split_off(labels: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Split samples in two at random, class by class, as for training and validation.

    Together the second part holds round(share · n) samples, and of each class its share, rounded
    down or up: up where the fraction lost is largest, then for the lower label.

    Args:
        labels: integers of at least 0, shape (n,).
        share: of the second part, between 0 and 1.
        seed: another one, another split.

    Returns:
        The samples that stay and those split off: ascending int64 indices on the labels' device.

    Raises:
        ValueError: the share is not between 0 and 1, leaves a part empty, or labels are no classes.

    Example:
        >>> labels = torch.tensor([0, 1, 0, 1, 0, 0])
        >>> stay, off = split_off(labels, 0.5, seed=0)
        >>> labels[off].bincount().tolist()
        [2, 1]
    """
    if not 0 < share < 1:
        raise ValueError(f"share={share}: must lie between 0 and 1, without them")
    host = labels.cpu()
    if host.ndim != 1 or host.is_floating_point() or (host < 0).any():
        raise ValueError(
            f"labels of shape {tuple(labels.shape)}, {labels.dtype}: must be one dimension of "
            "integers of at least 0"
        )
    n, total = len(host), round(share * len(host))
    if not 0 < total < n:
        raise ValueError(f"share={share} of {n} samples leaves a part empty: choose another")
    chosen = _rank_in_class(host, seed) < quotas(host.bincount(), share, total)[host]
    chosen = chosen.to(labels.device)
    return (~chosen).nonzero().squeeze(1), chosen.nonzero().squeeze(1)


def quotas(counts: Tensor, share: float, total: int) -> Tensor:
    """Share out a total among classes: of each its share, rounded down or up.

    Up where the fraction lost is largest, then for the lower label.

    Args:
        counts: samples of each class, int64.
        share: of each class.
        total: what the quotas sum to: round(share · samples).

    Example:
        >>> quotas(torch.tensor([3, 3, 2]), 0.5, 4).tolist()
        [2, 1, 1]
    """
    exact = counts.double() * share
    quotas = exact.floor().long()
    missing = total - int(quotas.sum())
    quotas[(quotas - exact).argsort(stable=True)[:missing]] += 1
    return quotas


def _rank_in_class(labels: Tensor, seed: int) -> Tensor:
    """Return each sample's place among those of its class, in random order."""
    shuffled = torch.randperm(len(labels), generator=seeded_generator(seed, "split"))
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    counts = labels.bincount()
    first = (counts.cumsum(0) - counts)[labels[by_class]]
    return torch.empty_like(by_class).scatter_(0, by_class, torch.arange(len(labels)) - first)
