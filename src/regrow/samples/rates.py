"""Criteria that give each sample a rate of visits, and keep to it over the epochs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from regrow.engine.selection import top_k
from regrow.samples.known import Choice, Criterion, Known
from regrow.samples.pick import of

__all__ = ["RootLoss", "capped", "otsu", "spread"]

# What the guards ask of the samples above the threshold: the share of the variance that it
# explains, the least share of samples above it, and their least mean loss, of the untrained
# model's. Those of "sure" were chosen on 20 sets that are none of the study's; docs/samples.md.
_GUARDS = {"sure": (0.68, 0.05, 1.1), True: (0.72, 0.03, 0.0)}
_MOST = 0.45
_BINS = 1024
_PART = 1 << 18


@dataclass(frozen=True)
class RootLoss(Criterion):
    """Visit each sample at a rate that grows with the square root of its loss.

    u = √clip(ℓ / mean(ℓ), 0.06, 4), and the rates are π = k·u / Σu, at most 1. Over the epochs each
    sample is kept as often as its rates sum to, within about 1: nothing is left out for long.

    With the guard, samples whose losses stand apart at the upper end are taken for wrongly
    labelled and have u = 0.1; the mean is then that of the others. Otsu's threshold splits the
    losses, cut at three times that of the untrained model, ℓ₀. It counts if it explains more than
    68 % of their variance, leaves 5 to 45 % above it, and these have a mean of at least 1.1 ℓ₀:
    of C classes, a model that knows that a share ε of the labels is wrong gives a wrong one the
    loss ln((C - 1) / ε), more than the ln C of one that knows nothing. A sample that is only hard,
    between two classes of many, has less. Of a class of which more than half would be suspected,
    none is: it is rare, not wrong. ``Samples(strata={"class": ...})`` tells it the classes.

    Args:
        guard: look for wrong labels. "sure": as above. True: as the first records of the study
            did, which takes hard samples of clean data and rare classes for wrong, too: 72 %, 3 to
            45 % above, whatever their mean and class. False: do not.
        weighted: weigh the kept by 1 / π, so that gradients are those of all data; scaled to a mean
            of 1. Costs about half of the gain.

    The guard does not see labels that are mixed up between two classes of many, and fewer than a
    twentieth of wrong ones. Where it is not told classes, it may take a rare one for wrong, of two
    classes above all. Of numbers that are learnt (regression) it finds wrong ones, but may take the
    hardest of right ones for wrong. With CTC it suspects nobody: an untrained network's loss is far
    above that of a wrong transcript.

    Raises:
        ValueError: the guard is unknown; or, when choosing, a loss is negative, so that it has no
            square root.

    Example:
        >>> RootLoss(guard="none")
        Traceback (most recent call last):
        ValueError: guard='none': must be 'sure', True (the first rule) or False (none)

    Source: ours; figures in ``docs/samples.md``.
    """

    guard: Literal["sure"] | bool = "sure"
    weighted: bool = False

    fields: ClassVar[tuple[str, ...]] = ("credit",)

    def __post_init__(self) -> None:
        if self.guard != "sure" and not isinstance(self.guard, bool):
            raise ValueError(
                f"guard={self.guard!r}: must be 'sure', True (the first rule) or False (none)"
            )

    def __call__(self, known: Known, k: int | None) -> Choice:
        """Choose by rates and credit."""
        assert k is not None
        rates = self.rates(known, k)
        weights = None
        if self.weighted:
            weights = (k / int(known.allowed.sum()) / rates).clamp_(max=100)
        mask, credit = spread(known.kept["credit"], rates, k, known.allowed, known.generator)
        return Choice(mask, weights, {"credit": credit})

    def rates(self, known: Known, k: int) -> Tensor:
        """Return the share of epochs in which each sample is to be kept, float32, sum k."""
        suspect = self.suspect(known)
        trusted = of(known.loss, known.allowed if suspect is None else known.allowed & ~suspect)
        if len(trusted) and (lowest := float(trusted.min())) < 0:
            raise ValueError(
                f"a loss is {lowest:.3g}: RootLoss needs losses of at least 0; choose by rank "
                "instead, such as Hard() or EpsilonGreedy(), or add a constant"
            )
        unit = max(_sum(trusted) / max(len(trusted), 1), 1e-30)
        worth = known.loss.div(unit).clamp_(0.06, 4).sqrt_()
        del trusted
        if suspect is not None:
            worth.masked_fill_(suspect, 0.1)
        return capped(worth.masked_fill_(~known.allowed, 0), k)

    def suspect(self, known: Known) -> Tensor | None:
        """Return which samples the guard takes for wrongly labelled: bool, shape (n,), or None."""
        if not self.guard or known.start <= 0:
            return None
        least_apart, fewest, least_mean = _GUARDS[self.guard]
        losses = of(known.loss, known.allowed).clamp(max=3 * known.start)
        threshold, above, apart, mean = otsu(losses)
        if apart > least_apart and fewest < above < _MOST and mean >= least_mean * known.start:
            suspect = known.allowed & (known.loss > threshold)
            classes = known.strata.get("class")
            if self.guard == "sure" and classes is not None:
                suspect &= ~_mostly(suspect, known.allowed, classes)
            return suspect
        return None


def _mostly(some: Tensor, allowed: Tensor, classes: Tensor) -> Tensor:
    """Return the samples of those classes of which more than half are among some: bool."""
    n = int(classes.max()) + 1
    found = np.bincount(of(classes, some).numpy(), minlength=n)
    most = 2 * found > np.bincount(of(classes, allowed).numpy(), minlength=n)
    return torch.from_numpy(most[classes.numpy()])


def capped(worth: Tensor, k: int) -> Tensor:
    """Scale values so that they sum to k and none is above 1: π = min(1, c·u).

    Args:
        worth: u, float32, at least 0, shape (n,), at least k of them above 0; becomes π.
        k: the sum.

    Example:
        >>> capped(torch.tensor([8.0, 1.0, 1.0, 0.0]), 2).tolist()
        [1.0, 0.5, 0.5, 0.0]
    """
    total, full = _sum(worth), 0
    scale = k / max(total, 1e-300)
    while True:  # more values are full in every pass, and at most k
        above = worth.numpy() > 1 / scale
        now = int(np.count_nonzero(above))
        rest = total - _sum(worth, above)
        if now <= full or now >= k or rest <= 1e-12 * total:
            break
        full, scale = now, (k - now) / rest
    return worth.mul_(scale).clamp_(max=1)


def spread(
    credit: Tensor, rates: Tensor, k: int, allowed: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Choose k samples so that each is kept as often, over the epochs, as its rates sum to.

    Rates are added to credits; the k highest are kept, and pay 1 each.

    Args:
        credit: float32, shape (n,); 0 at first, and then drawn from (0, 1).
        rates: float32, shape (n,), in 0..1, sum k; becomes the new credits.
        k: how many are kept.
        allowed: bool, shape (n,).
        generator: for the first credits.

    Returns:
        The mask of the kept, and the new credits.

    Example:
        >>> everyone, g = torch.ones(3, dtype=torch.bool), torch.Generator()
        >>> credit, visits = torch.zeros(3), torch.zeros(3)
        >>> for _ in range(100):
        ...     rates = torch.tensor([1.0, 0.75, 0.25])
        ...     mask, credit = spread(credit, rates, 2, everyone, g)
        ...     visits += mask
        >>> visits.tolist()
        [100.0, 75.0, 25.0]
    """
    if bool(((credit == 0) & allowed).any()):
        first = torch.rand(len(credit), generator=generator)
        rates += first.masked_fill_((credit != 0) | ~allowed, 0)
        del first
    credit = rates.add_(credit)
    mask = top_k(credit, k, allowed)
    # By numpy: torch would make floats of the mask first.
    np.subtract(credit.numpy(), mask.numpy(), out=credit.numpy())
    return mask, credit


def _sum(values: Tensor, inside: npt.NDArray[np.bool_] | None = None) -> float:
    numbers = values.numpy()
    if inside is None:
        return float(numbers.sum(dtype=np.float64))
    # A product in the cache and its sum: a third of the time of numpy's where=.
    parts = (slice(at, at + _PART) for at in range(0, len(numbers), _PART))
    return sum(float((numbers[part] * inside[part]).sum(dtype=np.float64)) for part in parts)


def otsu(values: Tensor) -> tuple[float, float, float, float]:
    """Split values in two so that the variance between the parts is largest.

    Args:
        values: float, shape (n,), finite.

    Returns:
        The threshold; the share of values above it; the share of the variance that lies between the
        parts, from 0 to 1; the mean of the values above. From a histogram of 1,024 bins.

    Example:
        >>> threshold, above, apart, mean = otsu(torch.tensor([0.0, 0.1, 0.1, 0.2, 5.0]))
        >>> 0.2 < threshold < 5, round(above, 6), apart > 0.99, round(mean, 2)
        (True, 0.2, True, 5.0)

    Source: Otsu 1979, A threshold selection method from gray-level histograms.
    """
    if len(values) < 2:
        return float("inf"), 0.0, 0.0, 0.0
    low, high = (float(edge) for edge in values.aminmax())
    if low == high:
        return high, 0.0, 0.0, 0.0
    count = torch.histc(values, _BINS, low, high).double()
    share = count / count.sum()
    middle = low + (torch.arange(_BINS, dtype=torch.float64) + 0.5) * (high - low) / _BINS
    below, part = share.cumsum(0), (share * middle).cumsum(0)
    mean = part[-1]
    between = (mean * below - part).square() / (below * (1 - below)).clamp(min=1e-12)
    cut = int(between[:-1].argmax())
    variance = (share * (middle - mean).square()).sum()
    threshold = low + (cut + 1) * (high - low) / _BINS
    above = 1 - below[cut]
    apart = between[cut] / variance.clamp(min=1e-300)
    return threshold, float(above), float(apart), float((mean - part[cut]) / above)
