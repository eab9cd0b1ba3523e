"""Criteria: which k of the allowed samples are trained on, by chance or by their losses.

Each is one pure function of what is known of the samples; the engine's selection makes the counts
exact, with ties to the lower position. ℓ is the running average of a sample's losses.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from regrow.engine.checks import check_integer
from regrow.engine.selection import bottom_k, top_k
from regrow.samples.known import Choice, Criterion, Known
from regrow.samples.pick import drawn, of

__all__ = [
    "UCB",
    "Cyclic",
    "Easy",
    "EasyToHard",
    "EpsilonGreedy",
    "Forgetting",
    "Hard",
    "RHOLoss",
    "Random",
    "SeTa",
]


# Above what forgetting is counted to.
_NEVER = 1 << 15


@dataclass(frozen=True)
class Random(Criterion):
    """Keep k samples at random, drawn anew in each selection, whatever was drawn before.

    With ``every=None`` one draw lasts for the whole run: static random pruning.

    Source: the uniform dynamic baseline of Raju et al. 2021 (arXiv 2111.12621).
    """

    scored: ClassVar[bool] = False

    def __call__(self, known: Known, k: int | None) -> Choice:
        """Choose k at random."""
        return Choice(drawn(_count(k), known.allowed, known.generator))


@dataclass(frozen=True)
class Cyclic(Criterion):
    """Keep the k samples that were kept least often so far, at random among equals.

    Samples are drawn without replacement across epochs: how often two samples were kept never
    differs by more than 1. This is the same as training on all data, stopped after as many steps;
    so it is the base that any choice by loss has to beat.
    """

    scored: ClassVar[bool] = False
    fields: ClassVar[tuple[str, ...]] = ("visits",)

    def __call__(self, known: Known, k: int | None) -> Choice:
        """Choose those with the fewest visits."""
        visits = known.kept["visits"]
        jitter = torch.rand(len(known), generator=known.generator)
        mask = bottom_k(jitter.add_(visits), _count(k), known.allowed)
        return Choice(mask, fields={"visits": visits + mask})


@dataclass(frozen=True)
class Easy(Criterion):
    """Keep the k samples of the lowest ℓ."""

    def __call__(self, known: Known, k: int | None) -> Choice:
        """Choose the lowest losses."""
        return Choice(bottom_k(known.loss, _count(k), known.allowed))


@dataclass(frozen=True)
class Hard(Criterion):
    """Keep the k samples of the highest ℓ.

    It collects wrong labels, and long sequences where losses are sums over them.
    """

    def __call__(self, known: Known, k: int | None) -> Choice:
        """Choose the highest losses."""
        return Choice(top_k(known.loss, _count(k), known.allowed))


@dataclass(frozen=True)
class EasyToHard(Criterion):
    """Keep k samples next to each other in the order of ℓ: the easiest first, the hardest last.

    From rank round(p·(m - k)) on, of m allowed samples at progress p.

    Source: the curriculum of DDP-ASR (arXiv 2406.18373), whose schedule is not public: a window
    that moves at constant speed is ours.
    """

    curriculum: ClassVar[bool] = True

    def __call__(self, known: Known, k: int | None) -> Choice:
        """Choose the window of this progress."""
        k, m = _count(k), int(known.allowed.sum())
        easier = round(known.progress * (m - k))
        window = bottom_k(known.loss, easier + k, known.allowed)
        return Choice(window & ~bottom_k(known.loss, easier, known.allowed))


@dataclass(frozen=True)
class UCB(Criterion):
    """Keep the k samples of the highest ℓ + c·mean(ℓ)·√(2 ln(t + 2) / s).

    t counts selections, s how often the sample was seen: what was not seen for long comes back.

    Args:
        c: weight of the bonus, at least 0.

    Raises:
        ValueError: c is negative.

    Source: upper confidence bounds on averaged losses, Raju et al. 2021 (arXiv 2111.12621).

    Differs from the paper: the bonus is in units of the mean loss, so that c needs no tuning to the
    scale of a loss.
    """

    c: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.c < math.inf:
            raise ValueError(f"c={self.c}: must be at least 0 and finite")

    def __call__(self, known: Known, k: int | None) -> Choice:
        """Choose the highest bounds."""
        unit = self.c * float(of(known.loss, known.allowed).numpy().mean(dtype=np.float64))
        bonus = known.seen.clamp(min=1).float().reciprocal_().mul_(2 * math.log(known.round + 2))
        return Choice(top_k(bonus.sqrt_().mul_(unit).add_(known.loss), _count(k), known.allowed))


@dataclass(frozen=True)
class EpsilonGreedy(Criterion):
    """Keep the hardest (1 - ε)·k samples, and ε·k of the others at random.

    Args:
        epsilon: ε, from 0 to 1.

    Raises:
        ValueError: ε is out of range.

    Source: Raju et al. 2021 (arXiv 2111.12621).
    """

    epsilon: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.epsilon <= 1:
            raise ValueError(f"epsilon={self.epsilon}: must lie in 0..1")

    def __call__(self, known: Known, k: int | None) -> Choice:
        """Choose the hardest and some at random."""
        others = round(self.epsilon * _count(k))
        hardest = top_k(known.loss, _count(k) - others, known.allowed)
        return Choice(hardest | drawn(others, known.allowed & ~hardest, known.generator))


@dataclass(frozen=True)
class SeTa(Criterion):
    """Keep k random samples of a window that slides from easy to hard, and begins again.

    Samples are in G groups by the rank of ℓ; the window holds round(G·w) of them, and moves on by
    one group in each selection. It is made wider if it holds fewer than k samples.

    Args:
        groups: G, at least 1.
        window: w, the share of groups in the window, in (0, 1].

    Raises:
        ValueError: an argument is out of range.

    Source: SeTa (CVPR 2025; github.com/mrazhou/SeTa, ``seta.py``).

    Differs from the code: groups are of equal size, not clusters of losses by k-means; the count is
    exactly k; the first selection has the easiest window, not all groups.
    """

    groups: int = 10
    window: float = 0.5

    def __post_init__(self) -> None:
        check_integer(self.groups, "groups", 1)
        if not 0 < self.window <= 1:
            raise ValueError(f"window={self.window}: must be above 0 and at most 1")

    def __call__(self, known: Known, k: int | None) -> Choice:
        """Choose at random inside the window of this selection."""
        k, m = _count(k), int(known.allowed.sum())
        wide = max(1, round(self.groups * self.window), math.ceil(k * self.groups / m))
        first = known.round % (self.groups - wide + 1)
        below, up_to = (m * edge // self.groups for edge in (first, first + wide))
        inside = bottom_k(known.loss, max(up_to, below + k), known.allowed)
        inside ^= bottom_k(known.loss, below, known.allowed)
        return Choice(drawn(k, inside, known.generator))


@dataclass(frozen=True)
class Forgetting(Criterion):
    """Keep the k samples that were forgotten most often; ties go to the higher ℓ.

    A sample is forgotten when it was learnt at its last visit and is not now. What was never learnt
    counts as forgotten more often than anything else. Learnt is what ``update`` is told by
    ``correct``; else a loss below ln 2, a probability of the label above one half.

    Source: Toneva et al. 2019 (arXiv 1812.05159), section 3.

    Differs from the paper: the choice is made again in each selection, not once after a run.
    """

    fields: ClassVar[tuple[str, ...]] = ("forgotten", "learnt")

    def __call__(self, known: Known, k: int | None) -> Choice:
        """Choose the most often forgotten."""
        ties = known.loss.clamp(min=0)
        times = ties.div_(ties + 1).add_(known.kept["forgotten"])
        never = (known.kept["learnt"] == 0) & known.allowed
        return Choice(top_k(times.add_(never, alpha=_NEVER), _count(k), known.allowed))


@dataclass(frozen=True, eq=False)
class RHOLoss(Criterion):
    """Keep the k samples of the highest reducible loss ℓ - r.

    r is the loss of a model that was trained on other data: what remains high there cannot be
    learnt, such as a wrong label.

    Args:
        reference: r of each sample, in the order of the ids; finite.

    Raises:
        ValueError: it is not one finite number a sample.

    Source: Mindermann et al. 2022 (arXiv 2206.07137), section 3.

    Differs from the paper: chosen among all samples for an epoch by their running average, not out
    of a large batch by an additional forward pass.
    """

    reference: Tensor = field(repr=False)

    def __post_init__(self) -> None:
        reference = torch.as_tensor(self.reference).detach().cpu().float()
        if reference.ndim != 1 or not bool(reference.isfinite().all()):
            raise ValueError(
                f"reference of shape {tuple(reference.shape)}: must be one finite loss a sample"
            )
        object.__setattr__(self, "reference", reference)

    def check(self, n: int, strata: Mapping[str, Tensor]) -> None:
        """Refuse another number of samples than there are reference losses."""
        if len(self.reference) != n:
            raise ValueError(f"reference has {len(self.reference)} losses for {n} samples")

    def __call__(self, known: Known, k: int | None) -> Choice:
        """Choose the highest reducible losses."""
        reference = self.reference if known.at is None else self.reference[known.at]
        return Choice(top_k(known.loss - reference, _count(k), known.allowed))


def _count(k: int | None) -> int:
    """Return the count; None is for criteria that decide it themselves."""
    assert k is not None
    return k
