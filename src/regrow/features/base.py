"""What all selectors share: parameters, the table's checks, the answer's attributes."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator
from sklearn.feature_selection import SelectorMixin
from sklearn.utils._param_validation import Interval, RealNotInt, StrOptions
from sklearn.utils.validation import _check_sample_weight, check_is_fitted

from regrow.engine.selection import top_k
from regrow.features.inputs import Floats

__all__ = ["BaseSparseSelector", "smallest_good"]


class BaseSparseSelector(SelectorMixin, BaseEstimator):  # type: ignore[misc]
    """Ranks features by scores, and keeps the best."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_features_to_select": [
            None,
            Interval(Integral, 1, None, closed="left"),
            Interval(RealNotInt, 0, 1, closed="right"),
        ],
        "density": [Interval(Real, 0, 1, closed="right")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "weight_decay": [Interval(Real, 0, 1, closed="left")],
        "noise": [Interval(Real, 0, None, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "clip": [None, Interval(Real, 0, None, closed="neither")],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "n_jobs": [None, Integral],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    scores_: Floats
    support_: npt.NDArray[np.bool_]
    ranking_: npt.NDArray[np.int64]
    n_iter_: int
    history_: list[dict[str, Any]]

    @property
    def feature_importances_(self) -> Floats:
        """The scores, under the name that ``SelectFromModel`` looks for."""
        check_is_fitted(self)
        return self.scores_

    def _get_support_mask(self) -> npt.NDArray[np.bool_]:
        check_is_fitted(self)
        return self.support_

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _answer_(self, scores: Floats, wanted: int) -> Self:
        """Set what a fitted selector tells; among equal scores the lower index is better."""
        self.scores_ = scores
        self.support_ = top_k(torch.from_numpy(scores), wanted).numpy()
        self.ranking_ = np.empty(len(scores), dtype=np.int64)
        self.ranking_[np.argsort(-scores, kind="stable")] = np.arange(1, len(scores) + 1)
        self.n_features_ = wanted
        return self

    def _say_(self, record: dict[str, Any]) -> None:
        """Take down what was measured, and print it where that is wanted."""
        self.history_.append(record)
        if self.verbose:
            told = "  ".join(
                f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
                for name, value in record.items()
            )
            print(f"[{type(self).__name__}] {told}")

    @staticmethod
    def _weights(sample_weight: Any, X: Any) -> Floats:
        checked: Floats = _check_sample_weight(
            sample_weight, X, dtype=np.float64, ensure_non_negative=True
        )
        return checked


TASKS = StrOptions({"auto", "classification", "regression"})


def smallest_good(history: list[dict[str, Any]]) -> int:
    """Return the fewest features whose loss is within one standard error of the lowest.

    Args:
        history: records with "n_features", "loss" and "loss_error".

    Source: the one-standard-error rule (Breiman et al. 1984, Classification and Regression Trees).

    Example:
        >>> rows = [(4, 1.0), (2, 1.05), (1, 2.0)]
        >>> smallest_good([{"n_features": n, "loss": x, "loss_error": 0.1} for n, x in rows])
        2
    """
    best = min(history, key=lambda record: float(record["loss"]))
    limit = best["loss"] + best["loss_error"]
    return min(int(record["n_features"]) for record in history if record["loss"] <= limit)
