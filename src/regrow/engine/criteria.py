"""The drop scores of the pruning-criteria study, and their running forms.

Source of all: Fantastic Weights and How to Find Them (Nowak et al. 2023, arXiv 2306.12230) and its
released code. There, scores carry a small constant that lifts active weights above inactive ones;
here inactive weights are never among those to be chosen, so none is needed.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from regrow.engine.checks import check_type
from regrow.engine.scores import Score, Signals
from regrow.engine.selection import bottom_k

__all__ = [
    "AverageGradient",
    "GradientStep",
    "LegacySign",
    "MagnitudePlusGradient",
    "ReciprocalSensitivity",
    "Running",
    "Sensitivity",
    "Taylor",
    "WeightTimesGradient",
]

_TINY = 1e-8


class _FromGradient(Score):
    """A score of a weight and its gradient; at zero weight it says nothing about growth."""

    grows: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset({"gradient"})

    def __call__(self, signals: Signals) -> Tensor:
        """Return the formula's value for every weight."""
        assert signals.gradient is not None
        return self.formula(signals.weight, signals.gradient)

    @abstractmethod
    def formula(self, w: Tensor, g: Tensor) -> Tensor:
        """Return the score of weights w with gradients g."""


@dataclass(frozen=True)
class MagnitudePlusGradient(_FromGradient):
    """|w| + γ|g|: a weight that is small but about to move is kept.

    Source: MEST (Yuan et al. 2021, arXiv 2110.14032).

    Args:
        gamma: weight of the gradient, at least 0; the study's default is 1.

    Example:
        >>> signals = Signals(torch.tensor([1.0, -2.0]), gradient=torch.tensor([4.0, 0.0]))
        >>> MagnitudePlusGradient(gamma=0.5)(signals).tolist()
        [3.0, 2.0]
    """

    gamma: float = 1.0

    def __post_init__(self) -> None:
        check_type(self.gamma, (int, float), "gamma", "1.0")
        if not 0 <= self.gamma < math.inf:
            raise ValueError(f"gamma={self.gamma}: must be at least 0, and finite")

    def formula(self, w: Tensor, g: Tensor) -> Tensor:
        """Return |w| + γ|g|."""
        return w.abs() + self.gamma * g.abs()


@dataclass(frozen=True)
class WeightTimesGradient(_FromGradient):
    """|w·g|: the change of the loss were the weight removed, to first order; SNIP's score.

    Source: SNIP (Lee et al. 2019, arXiv 1810.02340), as a drop score inside training.

    Example:
        >>> signals = Signals(torch.tensor([1.0, -2.0]), gradient=torch.tensor([4.0, 1.0]))
        >>> WeightTimesGradient()(signals).tolist()
        [4.0, 2.0]
    """

    def formula(self, w: Tensor, g: Tensor) -> Tensor:
        """Return |w·g|."""
        return (w * g).abs()


@dataclass(frozen=True)
class Taylor(_FromGradient):
    """(w·g)²: the same order as |w·g|, unit by unit; sums over larger units differ.

    Source: Molchanov et al. 2019 (arXiv 1906.10771).

    Example:
        >>> signals = Signals(torch.tensor([1.0, -2.0]), gradient=torch.tensor([4.0, 1.0]))
        >>> Taylor()(signals).tolist()
        [16.0, 4.0]
    """

    def formula(self, w: Tensor, g: Tensor) -> Tensor:
        """Return (w·g)²."""
        return (w * g).square()


@dataclass(frozen=True)
class Sensitivity(_FromGradient):
    """|g| / (|w| + 10⁻⁸): weights that would move by a large factor are kept.

    Example:
        >>> signals = Signals(torch.tensor([1.0, -2.0]), gradient=torch.tensor([4.0, 1.0]))
        >>> Sensitivity()(signals).tolist()
        [4.0, 0.5]
    """

    def formula(self, w: Tensor, g: Tensor) -> Tensor:
        """Return |g| / (|w| + 10⁻⁸)."""
        return g.abs() / (w.abs() + _TINY)


@dataclass(frozen=True)
class ReciprocalSensitivity(_FromGradient):
    """|w| / (|g| + 10⁻⁸): large weights at rest are kept.

    Example:
        >>> signals = Signals(torch.tensor([1.0, -2.0]), gradient=torch.tensor([4.0, 1.0]))
        >>> ReciprocalSensitivity()(signals).tolist()
        [0.25, 2.0]
    """

    def formula(self, w: Tensor, g: Tensor) -> Tensor:
        """Return |w| / (|g| + 10⁻⁸)."""
        return w.abs() / (g.abs() + _TINY)


@dataclass(frozen=True)
class GradientStep(_FromGradient):
    """|w - γg|: the magnitude a step of plain gradient descent would leave.

    Args:
        gamma: length of the step.

    Example:
        >>> signals = Signals(torch.tensor([1.0, -2.0]), gradient=torch.tensor([4.0, 1.0]))
        >>> GradientStep(gamma=0.5)(signals).tolist()
        [1.0, 2.5]
    """

    gamma: float = 1.0

    def __post_init__(self) -> None:
        check_type(self.gamma, (int, float), "gamma", "1.0")
        if not math.isfinite(self.gamma):
            raise ValueError(f"gamma={self.gamma}: a finite length of the step is needed")

    def formula(self, w: Tensor, g: Tensor) -> Tensor:
        """Return |w - γg|."""
        return (w - self.gamma * g).abs()


class _Averaged(Score):
    """An exponential moving average: a ← β·a + (1 - β)·s, from 0 after every update."""

    observes: ClassVar[frozenset[str] | None] = frozenset({"gradient"})
    beta: float

    def observed(self, signals: Signals) -> Tensor:
        """Return what is averaged."""
        assert signals.gradient is not None
        return signals.gradient

    def average(self, running: Tensor | None, signals: Signals) -> Tensor:
        """Return the average after one more step."""
        seen = self.observed(signals)
        past = torch.zeros_like(seen) if running is None else running
        return past.lerp(seen, 1 - self.beta)


@dataclass(frozen=True)
class Running(_Averaged):
    """The running average of another score, taken at every step.

    A topology that is moved by a noisy score of one step is moved here by what the score was since
    the last update.

    Args:
        score: what is averaged.
        beta: how much of the past is kept at a step, 0 <= beta < 1.

    Example:
        >>> from regrow.engine.scores import Magnitude
        >>> Running(Magnitude(), beta=0.5).average(None, Signals(torch.tensor([-2.0]))).tolist()
        [1.0]
    """

    score: Score
    beta: float = 0.9

    def __post_init__(self) -> None:
        check_type(self.score, Score, "score", "Magnitude()")
        if self.score.observes is not None:
            raise ValueError(f"score={self.score!r} is a running average already")
        if not self.score.ranks or self.score.needs - {"gradient"}:
            raise ValueError(
                f"score={self.score!r} does not rank weights by what they and their gradients are "
                "at each step, so its average means nothing; average Magnitude() or the like"
            )
        _check_beta(self.beta)

    @property
    def observes(self) -> frozenset[str] | None:  # type: ignore[override]
        """What the averaged score needs."""
        return self.score.needs

    @property
    def grows(self) -> bool:  # type: ignore[override]
        """Whether the averaged score can choose which units to grow."""
        return self.score.grows

    def observed(self, signals: Signals) -> Tensor:
        """Return the averaged score."""
        return self.score(signals)

    def __call__(self, signals: Signals) -> Tensor:
        """Return the average."""
        assert signals.running is not None
        return signals.running


@dataclass(frozen=True)
class AverageGradient(_Averaged):
    """|running average of g|: growth by many batches' gradients instead of one's.

    Args:
        beta: how much of the past is kept at a step, 0 <= beta < 1.

    Example:
        >>> AverageGradient()(Signals(torch.zeros(1), running=torch.tensor([-3.0]))).tolist()
        [3.0]
    """

    beta: float = 0.9

    def __post_init__(self) -> None:
        _check_beta(self.beta)

    def __call__(self, signals: Signals) -> Tensor:
        """Return the average's magnitude."""
        assert signals.running is not None
        return signals.running.abs()


@dataclass(frozen=True)
class LegacySign(Score):
    """The sign rule as several public codes ship it: nearly all negative weights go.

    Of n₊ positive weights the ⌈ρ·n₊⌉ smallest are dropped; of n₋ negative ones all but the ⌈ρ·n₋⌉
    most negative, where ρ = k/n is the share asked for. So about half of all weights are dropped at
    every update, however small ρ is. For reproducing published curves; never a default.

    Source: ``magnitude_and_negativity`` in the code of the pruning-criteria study and of its
    relatives, whose papers describe :class:`regrow.engine.scores.SignedMagnitude`.

    Example:
        >>> weight = torch.tensor([-4.0, -3.0, -2.0, -1.0, 1.0, 2.0, 3.0, 4.0])
        >>> everyone = torch.ones(8, dtype=torch.bool)
        >>> LegacySign().lowest(weight, 2, everyone, 8, torch.Generator()).tolist()
        [False, True, True, True, True, False, False, False]
    """

    grows: ClassVar[bool] = False
    exact: ClassVar[bool] = False

    def __call__(self, signals: Signals) -> Tensor:
        """Return w."""
        return signals.weight

    def lowest(
        self, worth: Tensor, k: int, among: Tensor, n: int, generator: torch.Generator
    ) -> Tensor:
        """Choose the smallest positive weights and all but the most negative ones."""
        positive, negative = among & (worth > 0), among & (worth < 0)
        n_positive, n_negative = int(positive.sum()), int(negative.sum())
        magnitude = worth.abs()
        dropped = _ceil_share(k, n_positive, n)
        kept = _ceil_share(k, n_negative, n)
        return bottom_k(magnitude, dropped, positive) | bottom_k(
            magnitude, n_negative - kept, negative
        )


def _check_beta(beta: float) -> None:
    """Raise ValueError unless 0 <= beta < 1."""
    check_type(beta, (int, float), "beta", "0.9")
    if not 0 <= beta < 1:
        raise ValueError(f"beta={beta}: must lie in [0, 1), such as 0.9")


def _ceil_share(k: int, part: int, whole: int) -> int:
    return -(-k * part // whole) if whole else 0
