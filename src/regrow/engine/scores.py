"""Scores that say which units to drop and to grow: their base class, and the common ones.

A score is a small frozen object. Calling it on a layer's signals gives one number a weight; the
higher the number, the sooner the weight is kept, or grown. A unit of several weights is worth the
sum over them. Most scores rank units by their worth; those that choose otherwise (at random, by
sign) override :meth:`Score.lowest` and :meth:`Score.highest`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from regrow.engine import many
from regrow.engine.draws import seed_from, uniform
from regrow.engine.patterns import Element, Pattern
from regrow.engine.selection import bottom_k, random_k, top_k

__all__ = [
    "Gradient",
    "Magnitude",
    "Momentum",
    "Random",
    "Role",
    "Score",
    "Signals",
    "SignedMagnitude",
    "Unfired",
]

Role = Literal["drop", "grow"]


@dataclass(frozen=True)
class Signals:
    """What a score may look at, for one layer. Tensors have the weight's shape.

    Args:
        weight: the weights, zero where masked.
        pattern: how the weights fall into units.
        mask: bool, the weights that are active; for a grow score, those that were not dropped.
        fired: bool on the grid of units: active now or at any time before.
        progress: through the window of updates, from 0 to 1.
        gradient: the dense gradient of the loss, if the score needs it.
        momentum: the optimizer's direction of movement, if the score needs it: the momentum buffer,
            or the first moment over the root of the second.
        running: the running average of what the score observes, if it tracks one.
    """

    weight: Tensor
    pattern: Pattern = field(default_factory=Element)
    mask: Tensor | None = None
    fired: Tensor | None = None
    progress: float = 0.0
    gradient: Tensor | None = None
    momentum: Tensor | None = None
    running: Tensor | None = None

    def at(self, positions: Tensor) -> Signals:
        """Return the signals of some weights alone, given by their flat positions.

        Example:
            >>> Signals(torch.tensor([1.0, 2.0, 3.0])).at(torch.tensor([2])).weight.tolist()
            [3.0]
        """
        return self._each(lambda signal: signal.reshape(-1)[positions])

    def rows(self, places: Tensor) -> Signals:
        """Return the signals of some entries of the first dimension."""
        return self._each(lambda signal: signal[places])

    def _each(self, pick: Callable[[Tensor], Tensor]) -> Signals:
        names = ("weight", "mask", "fired", "gradient", "momentum", "running")
        present = {name: getattr(self, name) for name in names}
        picked: dict[str, Any] = {n: pick(s) for n, s in present.items() if s is not None}
        return replace(self, **picked)


class Score(ABC):
    """A worth for every unit, and the choice of the lowest or the highest by it.

    Subclasses are frozen dataclasses that define ``__call__``.

    Attributes:
        elementwise: whether a weight's score depends on the signals of that weight alone.
        joins: whether it depends on which outputs and inputs the layer's weights join.
        drops: whether the score tells active units apart, so that it can choose which to drop.
        grows: whether the score tells inactive units apart, so that it can choose which to grow.
        exact: whether :meth:`lowest` chooses exactly as many as it is asked for.
        by_keys: whether :meth:`highest` chooses the highest of :meth:`keys`.
        needs: which optional signals the score reads at an update: "gradient", "momentum".
        observes: which signals the score follows at every step; None if it tracks nothing.
    """

    elementwise: ClassVar[bool] = True
    joins: ClassVar[bool] = False
    drops: ClassVar[bool] = True
    grows: ClassVar[bool] = True
    exact: ClassVar[bool] = True
    by_keys: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset()
    observes: ClassVar[frozenset[str] | None] = None

    @property
    def ranks(self) -> bool:
        """Whether units are chosen by their worth alone: neither at random nor by sign."""
        kind = type(self)
        return kind.lowest is Score.lowest and kind.highest is Score.highest

    def check_pattern(self, pattern: Pattern) -> None:  # noqa: B027 most have
        """Raise ValueError if units of this pattern have no such score."""

    @abstractmethod
    def __call__(self, signals: Signals) -> Tensor:
        """Return one number a weight, of the weight's shape."""

    def worth(self, signals: Signals) -> Tensor:
        """Return one number a unit, of the grid's shape: the sum over its weights."""
        return signals.pattern.reduce(self(signals))

    def average(self, running: Tensor | None, signals: Signals) -> Tensor:
        """Return the running average after one more step; only for scores that observe."""
        raise NotImplementedError(f"{self!r} follows nothing")

    def lowest(
        self, worth: Tensor, k: int, among: Tensor, n: int, generator: torch.Generator
    ) -> Tensor:
        """Choose the k units worth least among some.

        Args:
            worth: of all units, of any shape.
            k: how many units to choose.
            among: bool tensor of the same shape: who can be chosen.
            n: how many units ``among`` holds.
            generator: a CPU generator, for choices at random.

        Returns:
            Bool tensor of the same shape with k True.
        """
        return bottom_k(worth, k, among)

    def highest(
        self, worth: Tensor, k: int, among: Tensor, n: int, generator: torch.Generator
    ) -> Tensor:
        """Choose the k units worth most among some; arguments as in :meth:`lowest`."""
        return top_k(worth, k, among)

    def keys(self, worth: Tensor, generator: torch.Generator) -> Tensor:
        """Return numbers whose order is the order of choice, where groups choose by themselves."""
        return worth


@dataclass(frozen=True)
class Magnitude(Score):
    """|w|: the common drop score.

    Source: Han et al. 2015 (arXiv 1506.02626); in RigL, section 3.

    Example:
        >>> Magnitude()(Signals(torch.tensor([-2.0, 1.0]))).tolist()
        [2.0, 1.0]
    """

    grows: ClassVar[bool] = False

    def __call__(self, signals: Signals) -> Tensor:
        """Return |w|."""
        return signals.weight.abs()


@dataclass(frozen=True)
class SignedMagnitude(Score):
    """|w| within each sign: SET drops the smallest positive and the largest negative weights.

    Of k weights to drop, ⌊k·n₊/n + ½⌋ are positive, where n₊ of the n active weights are positive;
    the others are negative or zero. So both signs lose the same share. Units of several weights
    have no sign: they are ranked by the sum of |w|.

    Source: SET (Mocanu et al. 2018, arXiv 1707.04780, algorithm 1).

    Differs from the rule in several public codes (``magnitude_and_negativity``), which removes the
    *largest* negative magnitudes: that one is :class:`regrow.engine.criteria.LegacySign`.

    Example:
        >>> worth = SignedMagnitude().worth(Signals(torch.tensor([-3.0, -2.0, 0.1, 0.2])))
        >>> everyone = torch.ones(4, dtype=torch.bool)
        >>> SignedMagnitude().lowest(worth, 2, everyone, 4, torch.Generator()).tolist()
        [False, True, True, False]
    """

    grows: ClassVar[bool] = False

    def __call__(self, signals: Signals) -> Tensor:
        """Return w, or |w| where units hold several weights."""
        return signals.weight if signals.pattern.single else signals.weight.abs()

    def lowest(
        self, worth: Tensor, k: int, among: Tensor, n: int, generator: torch.Generator
    ) -> Tensor:
        """Choose the k lowest, the same share of each sign."""
        positive = among & (worth > 0)
        # Only the device knows how many are positive, and asking would make the host wait.
        if many.available(worth.device) and many.fits([worth], [among]):
            return many.choose([worth], [k], [n], [among], by_sign=True).parts[0]
        if worth.device.type != "cpu":
            return _lowest_of_each_sign(worth.abs(), k, positive, among, n)
        k_positive = _share(k, int(torch.count_nonzero(positive)), n)
        magnitude = worth.abs()
        return bottom_k(magnitude, k_positive, positive) | bottom_k(
            magnitude, k - k_positive, among & ~positive
        )


@dataclass(frozen=True)
class Gradient(Score):
    """|∂L/∂w|: RigL's grow score.

    Source: RigL (Evci et al. 2020, arXiv 1911.11134, section 3).

    Example:
        >>> Gradient()(Signals(torch.zeros(2), gradient=torch.tensor([-0.5, 0.25]))).tolist()
        [0.5, 0.25]
    """

    needs: ClassVar[frozenset[str]] = frozenset({"gradient"})

    def __call__(self, signals: Signals) -> Tensor:
        """Return |g|."""
        assert signals.gradient is not None
        return signals.gradient.abs()


@dataclass(frozen=True)
class Momentum(Score):
    """|m|, where the optimizer is heading: the grow score of sparse momentum.

    m is the momentum buffer, or m₁/(√m₂ + ε) for Adam and its kin. The optimizer gathers it for
    inactive weights too, unless their gradients are masked.

    Source: sparse networks from scratch (Dettmers & Zettlemoyer 2019, arXiv 1907.04840).

    Example:
        >>> Momentum()(Signals(torch.zeros(2), momentum=torch.tensor([-0.5, 0.25]))).tolist()
        [0.5, 0.25]
    """

    needs: ClassVar[frozenset[str]] = frozenset({"momentum"})

    def __call__(self, signals: Signals) -> Tensor:
        """Return |m|."""
        assert signals.momentum is not None
        return signals.momentum.abs()


@dataclass(frozen=True)
class Random(Score):
    """Every unit is worth the same: exactly k are chosen uniformly at random.

    Source: SET's growth (Mocanu et al. 2018); as a drop score a control.

    Differs from public codes that grow each inactive unit with probability k/n: their count is
    right only on average and drifts over updates.

    Example:
        >>> everyone = torch.ones(4, dtype=torch.bool)
        >>> int(Random().lowest(torch.zeros(4), 2, everyone, 4, torch.Generator()).sum())
        2
    """

    def __call__(self, signals: Signals) -> Tensor:
        """Return zeros: no unit is worth more than another."""
        return torch.zeros_like(signals.weight)

    def lowest(
        self, worth: Tensor, k: int, among: Tensor, n: int, generator: torch.Generator
    ) -> Tensor:
        """Choose k at random."""
        return random_k(k, among, generator, n_allowed=n)

    def highest(
        self, worth: Tensor, k: int, among: Tensor, n: int, generator: torch.Generator
    ) -> Tensor:
        """Choose k at random."""
        return random_k(k, among, generator, n_allowed=n)

    def keys(self, worth: Tensor, generator: torch.Generator) -> Tensor:
        """Return uniform random numbers."""
        return _uniform(worth, generator)


@dataclass(frozen=True)
class Unfired(Score):
    """Units never active before come first, in random order; then all others, in random order.

    Source: the released code of in-time over-parameterization (Liu et al. 2021, arXiv 2102.02887),
    growth ``random_unfired``.

    Differs from it: the count is exact.

    Example:
        >>> fired = torch.tensor([True, True, False])
        >>> Unfired().worth(Signals(torch.zeros(3), fired=fired)).tolist()
        [0.0, 0.0, 1.0]
    """

    drops: ClassVar[bool] = False
    by_keys: ClassVar[bool] = True

    def __call__(self, signals: Signals) -> Tensor:
        """Return 1 for weights never active before, else 0."""
        assert signals.fired is not None
        fired = signals.pattern.expand(signals.fired, tuple(signals.weight.shape))
        return (~fired).to(signals.weight.dtype)

    def worth(self, signals: Signals) -> Tensor:
        """Return 1 for units never active before, else 0."""
        assert signals.fired is not None
        return (~signals.fired).to(signals.weight.dtype)

    def highest(
        self, worth: Tensor, k: int, among: Tensor, n: int, generator: torch.Generator
    ) -> Tensor:
        """Choose k at random among those never active, or all of them and others at random."""
        return top_k(self.keys(worth, generator), k, among)

    def keys(self, worth: Tensor, generator: torch.Generator) -> Tensor:
        """Return uniform random numbers, one more for units never active."""
        return worth + _uniform(worth, generator)


def _uniform(reference: Tensor, generator: torch.Generator) -> Tensor:
    """Return uniform random numbers of a tensor's shape, the same on every device."""
    return uniform(tuple(reference.shape), seed_from(generator), reference.device)


def _share(k: int, part: int, whole: int) -> int:
    """Return k·part/whole to the nearest integer, halves up."""
    # In whole numbers: with floats, a half could fall on either side from machine to machine.
    return (2 * k * part + whole) // (2 * whole) if whole else 0


def _lowest_of_each_sign(
    magnitude: Tensor, k: int, positive: Tensor, among: Tensor, n: int
) -> Tensor:
    """Choose as SignedMagnitude does, without asking the device how many weights are positive."""
    # Last in the order, so that they are reached only after all that may be chosen.
    flat = torch.where(among, magnitude, torch.inf).reshape(-1)
    order = flat.argsort(stable=True)
    positives = positive.reshape(-1)[order]
    others = (among & ~positive).reshape(-1)[order]
    k_positive = (2 * k * positives.sum() + n) // (2 * max(n, 1))
    chosen = (positives & (positives.cumsum(0) <= k_positive)) | (
        others & (others.cumsum(0) <= k - k_positive)
    )
    selected = torch.zeros_like(chosen)
    selected[order] = chosen
    return selected.reshape(magnitude.shape)
