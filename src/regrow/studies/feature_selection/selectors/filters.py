"""Selectors that look at each feature alone, at all of them, or at none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from regrow.studies.feature_selection.selectors.selector import Choice, Floats, Ints, Selector, best

__all__ = ["L1", "Chance", "Everything", "Univariate"]


@dataclass(frozen=True)
class Univariate(Selector):
    """Each feature's own relation to the labels.

    Args:
        score: of scikit-learn; the noise of "mutual_info" is drawn from seed 0.
    """

    score: Literal["f_classif", "mutual_info"] = "f_classif"

    def choose(self, X: Floats, y: Ints, k: int, seed: int) -> Choice:
        """Choose the highest scores."""
        from sklearn.feature_selection import f_classif, mutual_info_classif  # noqa: PLC0415

        if self.score == "f_classif":
            return Choice(best(f_classif(X, y)[0], k))
        return Choice(best(mutual_info_classif(X, y, random_state=0), k))


@dataclass(frozen=True)
class L1(Selector):
    """A linear support vector machine with an L1 penalty; the sum of |coefficients| over classes.

    Args:
        strength: C, the inverse of the penalty.
        max_iter: passes over the coordinates.
        tolerance: of its stopping rule.
    """

    strength: float = 0.05
    max_iter: int = 200
    tolerance: float = 1e-3

    def choose(self, X: Floats, y: Ints, k: int, seed: int) -> Choice:
        """Choose the largest coefficients; those that are zero follow by index."""
        from sklearn.svm import LinearSVC  # noqa: PLC0415

        model = LinearSVC(
            penalty="l1",
            dual=False,
            C=self.strength,
            max_iter=self.max_iter,
            tol=self.tolerance,
            random_state=0,
        ).fit(X, y)
        return Choice(best(np.abs(model.coef_).sum(0), k))


@dataclass(frozen=True)
class Chance(Selector):
    """Features drawn at random: the control."""

    seeded: ClassVar[bool] = True

    def choose(self, X: Floats, y: Ints, k: int, seed: int) -> Choice:
        """Draw them."""
        drawn = np.random.default_rng(seed).permutation(X.shape[1])[:k]
        return Choice(drawn.astype(np.int64))


@dataclass(frozen=True)
class Everything(Selector):
    """All features: what selection is held against."""

    def choose(self, X: Floats, y: Ints, k: int, seed: int) -> Choice:
        """Choose all of them."""
        return Choice(np.arange(X.shape[1]))
