"""Selectors made of trees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from regrow.studies.feature_selection.selectors.selector import Choice, Floats, Ints, Selector, best

__all__ = ["Boruta", "Forest", "LightGBM", "discounted"]


@dataclass(frozen=True)
class Forest(Selector):
    """Impurity importance of extremely randomised trees.

    Args:
        trees: how many.
        discount: take features one by one, each worth less the more it is correlated with one that
            was taken, see :func:`discounted`.
    """

    trees: int = 500
    discount: bool = False

    seeded: ClassVar[bool] = True

    def choose(self, X: Floats, y: Ints, k: int, seed: int) -> Choice:
        """Grow the trees."""
        from sklearn.ensemble import ExtraTreesClassifier  # noqa: PLC0415

        forest = ExtraTreesClassifier(self.trees, random_state=seed).fit(X, y)
        importance = forest.feature_importances_
        return Choice(discounted(importance, X, k) if self.discount else best(importance, k))


def discounted(scores: Floats, X: Floats, k: int) -> Ints:
    """Choose features one by one by score_j (1 - max |r_ij|), over the features i chosen before.

    Args:
        scores: one a feature, not negative.
        X: (rows, features); r is its correlation.
        k: how many; all if there are fewer.

    Example:
        >>> X = np.array([[0.0, 0.0, 1.0], [1.0, 1.0, 0.0], [2.0, 2.1, 0.0], [3.0, 3.0, 1.0]])
        >>> discounted(np.array([3.0, 2.9, 1.0]), X, 3).tolist()
        [0, 2, 1]
    """
    centred = X - X.mean(0)
    norms = np.linalg.norm(centred, axis=0)
    unit = centred / np.where(norms > 0, norms, 1)
    left = np.asarray(scores, float).copy()
    seen = np.zeros(len(left))
    chosen: list[int] = []
    for _ in range(min(k, len(left))):
        value = left * (1 - seen)
        value[chosen] = -np.inf
        chosen.append(int(value.argmax()))
        seen = np.maximum(seen, np.minimum(np.abs(unit[:, chosen[-1]] @ unit), 1))
    return np.array(chosen, np.int64)


@dataclass(frozen=True)
class LightGBM(Selector):
    """What splits on a feature gain, summed over the trees of LightGBM.

    Args:
        rounds: of boosting.
        leaf: rows that a leaf needs; the library's 20 is too many for sets of a hundred rows.
        share: of the features that a tree may look at.
    """

    rounds: int = 100
    leaf: int = 5
    share: float = 0.5

    seeded: ClassVar[bool] = True
    package: ClassVar[str | None] = "lightgbm"

    def choose(self, X: Floats, y: Ints, k: int, seed: int) -> Choice:
        """Boost."""
        from lightgbm import LGBMClassifier  # noqa: PLC0415

        model = LGBMClassifier(
            n_estimators=self.rounds,
            min_child_samples=self.leaf,
            colsample_bytree=self.share,
            importance_type="gain",
            random_state=seed,
            n_jobs=1,
            verbose=-1,
        ).fit(X, y)
        return Choice(best(model.feature_importances_, k))


@dataclass(frozen=True)
class Boruta(Selector):
    """Features that beat shuffled copies of themselves in random forests.

    It chooses no number of features: they are taken by its rank, within a rank by mean importance.

    Args:
        rounds: forests that are grown.
        trees: in each.
        depth: of the trees, as its authors advise.
    """

    rounds: int = 20
    trees: int = 200
    depth: int = 5

    seeded: ClassVar[bool] = True
    package: ClassVar[str | None] = "boruta"

    def choose(self, X: Floats, y: Ints, k: int, seed: int) -> Choice:
        """Grow the forests."""
        from boruta import BorutaPy  # noqa: PLC0415
        from sklearn.ensemble import RandomForestClassifier  # noqa: PLC0415

        forest = RandomForestClassifier(max_depth=self.depth, class_weight="balanced", n_jobs=1)
        found = BorutaPy(
            forest, n_estimators=self.trees, max_iter=self.rounds, random_state=seed, verbose=0
        ).fit(X, y)
        history = np.nan_to_num(found.importance_history_[1:]).mean(0)
        return Choice(best(-found.ranking_ + history / (history.max() + 1), k))
