"""Criteria that keep the same share of every stratum, and InfoBatch, which has two."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from regrow.engine.checks import check_integer, check_type
from regrow.engine.selection import top_k
from regrow.samples.criteria import Random
from regrow.samples.known import Choice, Criterion, Known
from regrow.samples.pick import drawn, of

__all__ = ["Coverage", "InfoBatch", "Stratified", "at_random", "bins", "shared_out"]

# Bins need no exact quantiles, and sorting many millions takes seconds.
_EDGES_FROM = 1 << 18
_FEW = 32  # strata that are looked for one by one


@dataclass(frozen=True)
class Stratified(Criterion):
    """Keep the same share of every stratum, and choose inside each by another criterion.

    Args:
        by: the name of the strata, as given to ``Samples(strata=...)``; "length": ten bins of
            equally many samples, where lengths are given.
        within: chooses inside each stratum.

    Raises:
        ValueError: (with samples) there are no such strata.
    """

    by: str = "length"
    within: Criterion = Random()  # noqa: RUF009 it is frozen

    def __post_init__(self) -> None:
        check_type(self.within, Criterion, "within", "Random()")

    @property
    def scored(self) -> bool:  # type: ignore[override]
        """Whether the criterion inside reads losses."""
        return self.within.scored

    @property
    def curriculum(self) -> bool:  # type: ignore[override]
        """Whether the criterion inside needs to know how far the run is."""
        return self.within.curriculum

    @property
    def fields(self) -> tuple[str, ...]:  # type: ignore[override]
        """What the criterion inside keeps."""
        return self.within.fields

    def check(self, n: int, strata: Mapping[str, Tensor]) -> None:
        """Refuse samples without these strata."""
        if self.by not in strata:
            have = ", ".join(map(repr, strata)) or "none"
            raise ValueError(
                f"by={self.by!r}: there are no such strata, but {have}; give "
                f"Samples(strata={{{self.by!r}: one label a sample}})"
                + (" or lengths" if self.by == "length" else "")
            )
        self.within.check(n, strata)

    def __call__(self, known: Known, k: int | None) -> Choice:
        """Choose in every stratum."""
        labels, allowed = known.strata[self.by], known.allowed
        if self.within == Random():
            shares = shared_out(of(labels, allowed).bincount(), k or 0)
            return Choice(at_random(labels, shares, allowed, known.generator))
        mask, fields = torch.zeros_like(allowed), dict[str, Tensor]()
        weights: Tensor | None = None
        for at, share in _groups(labels, allowed, k or 0):
            # Looked at alone: all strata cost about as much as one choice among all.
            choice = self.within(known.some(at), share)
            mask.index_copy_(0, at, choice.mask)
            if choice.weights is not None:
                weights = torch.ones(len(known)) if weights is None else weights
                weights.index_copy_(0, at, choice.weights.float().where(choice.mask, 1.0))
            for name, values in choice.fields.items():
                if name not in fields:
                    fields[name] = known.kept[name].clone()
                fields[name].index_copy_(0, at, values.to(fields[name].dtype))
        return Choice(mask, weights, fields)


@dataclass(frozen=True)
class Coverage(Criterion):
    """Keep the same share, at random, of every bin of ℓ: easy, middling and hard alike.

    As in the paper if ``every=None`` and a few epochs of warm-up: chosen once, by early scores.
    ``update`` may be given word error rates instead of losses.

    Args:
        groups: how many bins, of equally many samples.

    Raises:
        ValueError: there is no bin.

    Source: COWERAGE, Azeemi et al. 2022 (arXiv 2203.09829), of which the abstract was read: bins of
    equally many samples are ours.
    """

    groups: int = 10

    def __post_init__(self) -> None:
        check_integer(self.groups, "groups", 1)

    def __call__(self, known: Known, k: int | None) -> Choice:
        """Choose in every bin of the loss."""
        labels = bins(known.loss, self.groups, known.allowed)
        return Stratified("loss")(replace(known, strata={"loss": labels}), k)


@dataclass(frozen=True)
class InfoBatch(Criterion):
    """Keep all samples whose last loss is at least the mean, and a share of the others at random.

    The share 1 - r of the others that is kept has weight 1 / (1 - r), so that the gradient, summed
    over an epoch, is unbiased. With ``keep=None`` it decides itself how many are kept, by r, as
    published; else r is what gives exactly that count, but never above 0.9: beyond, the rest is
    taken from the samples above the mean, at random and weighted likewise.

    Args:
        prune: r with ``keep=None``, in [0, 1).
        normalise: scale weights so that the mean of the kept is 1. Without it they grow up to 10,
            and with them the step: at small ``keep`` training may diverge.

    Raises:
        ValueError: r is out of range.

    Source: InfoBatch, Qin et al. 2024 (arXiv 2303.04947; ``infobatch/infobatch.py``). There the
    last 12.5 % of the epochs are on full data: ``Samples(..., anneal=0.125)``.
    """

    prune: float = 0.5
    normalise: bool = False

    sizes_itself: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 <= self.prune < 1:
            raise ValueError(f"prune={self.prune}: must be at least 0 and below 1")

    def __call__(self, known: Known, k: int | None) -> Choice:
        """Choose above the mean, and some below it."""
        m = int(known.allowed.sum())
        losses = of(known.last, known.allowed).numpy()
        low = known.allowed & (known.last < float(losses.mean(dtype=np.float64)))
        high = known.allowed & ~low
        n_low, n_high = int(low.sum()), m - int(low.sum())
        if k is None:
            keep_low, keep_high = int((1 - self.prune) * n_low), n_high
        else:
            at_least = min(math.ceil(0.1 * n_low), round(k * n_low / m))
            keep_low = max(k - n_high, at_least)
            keep_high = k - keep_low
        mask = high if keep_high == n_high else drawn(keep_high, high, known.generator)
        mask = mask | drawn(keep_low, low, known.generator)
        weights = torch.ones(len(known)).masked_fill_(low, n_low / max(keep_low, 1))
        weights.masked_fill_(high, n_high / max(keep_high, 1))
        if self.normalise:
            weights *= (keep_low + keep_high) / m
        return Choice(mask, weights)


def shared_out(counts: Tensor, k: int) -> Tensor:
    """Share out k among strata in proportion to their sizes, rounded down or up.

    Up where the fraction lost is largest, then for the lower stratum.

    Args:
        counts: samples of each stratum, int64.
        k: what the shares sum to, at most the sum of the counts.

    Example:
        >>> shared_out(torch.tensor([3, 3, 2]), 4).tolist()
        [2, 1, 1]
    """
    exact = counts.double() * (k / max(int(counts.sum()), 1))
    shares = exact.floor().long()
    order = (shares - exact).argsort(stable=True)
    shares[order[: k - int(shares.sum())]] += 1
    return shares


def at_random(
    labels: Tensor, shares: Tensor, allowed: Tensor, generator: torch.Generator
) -> Tensor:
    """Choose of each stratum its share at random.

    Args:
        labels: int64, shape (n,).
        shares: int64: how many of each stratum, at most as many as are allowed.
        allowed: bool, shape (n,).
        generator: of random numbers.

    Returns:
        Bool, shape (n,).

    Example:
        >>> labels, everyone = torch.tensor([0, 1, 0, 1]), torch.ones(4, dtype=torch.bool)
        >>> chosen = at_random(labels, torch.tensor([2, 1]), everyone, torch.Generator())
        >>> labels[chosen].bincount().tolist()
        [2, 1]
    """
    if len(shares) > _FEW:
        return _by_sorting(labels, shares, allowed, generator)
    keys, mask = torch.rand(len(labels), generator=generator), torch.zeros_like(allowed)
    for label in shares.nonzero().flatten().tolist():
        mask |= top_k(keys, int(shares[label]), allowed & (labels == label))
    return mask


def _by_sorting(
    labels: Tensor, shares: Tensor, allowed: Tensor, generator: torch.Generator
) -> Tensor:
    """Do the same where strata are too many to look for each by itself."""
    order = torch.randperm(len(labels), generator=generator, dtype=torch.int32).numpy()
    order = order[allowed.numpy()[order]]
    by_label, counts = _by_label(labels.numpy()[order], len(shares))
    grouped, ends = order[by_label], np.cumsum(counts)
    mask = torch.zeros_like(allowed)
    for end, size, share in zip(ends, counts, shares.tolist(), strict=True):
        mask.numpy()[grouped[end - size : end - size + share]] = True
    return mask


def _groups(labels: Tensor, allowed: Tensor, k: int) -> Iterator[tuple[Tensor, int]]:
    """Yield the positions of the allowed of each stratum, ascending, and how many to choose."""
    inside = None if bool(allowed.numpy().all()) else np.flatnonzero(allowed.numpy())
    numbers = labels.numpy() if inside is None else labels.numpy()[inside]
    order, counts = _by_label(numbers, int(labels.max()) + 1)
    if inside is not None:
        order = inside[order]
    shares = shared_out(torch.from_numpy(counts), k).tolist()
    for at, share in zip(torch.from_numpy(order).split(counts.tolist()), shares, strict=True):
        if share:
            yield at, share


def _by_label(
    labels: npt.NDArray[np.integer], groups: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the order of labels, equal ones as they come, and how many there are of each."""
    # Integers of 16 bits and fewer are sorted by counting.
    small = labels.astype(np.min_scalar_type(max(groups - 1, 0)))
    return small.argsort(kind="stable"), np.bincount(small, minlength=groups)


def bins(values: Tensor, groups: int, allowed: Tensor | None = None) -> Tensor:
    """Sort values into bins of about equally many, and return the number of each one's bin.

    Args:
        values: float, shape (n,).
        groups: how many bins.
        allowed: bool, shape (n,): those that are counted.

    Returns:
        Int32, shape (n,), from 0, of the lowest values, to groups - 1.

    Example:
        >>> bins(torch.tensor([0.1, 7.0, 0.3, 2.0]), 2).tolist()
        [0, 1, 0, 1]
    """
    counted = values if allowed is None else of(values, allowed)
    step = max(1, len(counted) // _EDGES_FROM)
    ordered = counted[::step].sort().values
    at = [len(ordered) * edge // groups for edge in range(1, groups)]
    return torch.bucketize(values, ordered[at].contiguous(), right=True, out_int32=True)
