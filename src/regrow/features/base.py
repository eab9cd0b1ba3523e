"""The base of both selectors: parameters, ranking, fitted attributes."""

from __future__ import annotations

from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator
from sklearn.feature_selection import SelectorMixin
from sklearn.utils._param_validation import Interval, RealNotInt, StrOptions
from sklearn.utils.validation import _check_sample_weight, check_is_fitted
from torch import Tensor

from regrow.engine.method import Dense, Method
from regrow.engine.methods import METHODS
from regrow.engine.selection import top_k
from regrow.features.copies import Groups, best_of_copies
from regrow.features.elimination import Elimination
from regrow.features.encoding import split
from regrow.features.ensemble import EnsembleSetting
from regrow.features.inputs import Floats, Inputs, unit_of
from regrow.features.recipe import Importance, Recipe
from regrow.features.targets import Targets
from regrow.features.training import train

__all__ = ["BaseSparseSelector", "smallest_good"]

Given = tuple[Inputs, Targets, Tensor, Tensor]
"""The table, its targets, the weights of rows, and those held out."""

_OF_METHODS = 0.2  # density of a method given by name
_AT_LEAST_ONE = Interval(Integral, 1, None, closed="left")


@dataclass(kw_only=True, eq=False, repr=False)
class BaseSparseSelector(SelectorMixin, BaseEstimator):  # type: ignore[misc]
    """Rank features by what they are worth to sparse networks, and keep the best."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_features_to_select": [None, _AT_LEAST_ONE, Interval(RealNotInt, 0, 1, closed="right")],
        "method": [StrOptions({"ensemble", *METHODS}), Method],
        "importance": [StrOptions({"mixed", "attribution", "strength", "sampled", "wast"})],
        "density": [None, Interval(Real, 0, 1, closed="right")],
        "recipe": [None, Recipe],
        "n_members": [_AT_LEAST_ONE],
        "width": [_AT_LEAST_ONE],
        "max_iter": [_AT_LEAST_ONE],
        "n_rounds": [_AT_LEAST_ONE],
        "batch_size": [_AT_LEAST_ONE],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "weight_decay": [Interval(Real, 0, 1, closed="left")],
        "noise": [Interval(Real, 0, None, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "clip": [None, Interval(Real, 0, None, closed="neither")],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [_AT_LEAST_ONE],
        "n_jobs": [None, Integral],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    n_features_to_select: int | float | None = field(default=None, kw_only=False)
    method: str | Method = "ensemble"
    importance: Importance = "mixed"
    density: float | None = None
    recipe: Recipe | None = None
    n_members: int = 10
    width: int = 32
    max_iter: int = 300
    n_rounds: int = 31
    batch_size: int = 128
    learning_rate: float = 1e-2
    weight_decay: float = 1e-3
    noise: float = 0.3
    dropout: float = 0.5
    clip: float | None = 3.0
    early_stopping: bool = False
    validation_fraction: float = 0.2
    n_iter_no_change: int = 5
    n_jobs: int | None = None
    random_state: int | np.random.RandomState | None = None
    verbose: int | bool = False

    scores_: Floats = field(init=False)
    support_: npt.NDArray[np.bool_] = field(init=False)
    ranking_: npt.NDArray[np.int64] = field(init=False)
    n_features_: int = field(init=False)
    n_iter_: int = field(init=False)
    history_: list[dict[str, Any]] = field(init=False)

    @property
    def feature_importances_(self) -> Floats:
        """The scores divided by their sum, which is then 1, as of scikit-learn's forests.

        So those of several methods are on one scale; their order is that of ``scores_``.
        ``SelectFromModel`` looks for them.
        """
        check_is_fitted(self)
        total = float(self.scores_.sum())
        return self.scores_ / total if total > 0 else np.zeros_like(self.scores_)

    def _get_support_mask(self) -> npt.NDArray[np.bool_]:
        check_is_fitted(self)
        return self.support_

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _rank_(
        self,
        inputs: Inputs,
        targets: Targets,
        weights: Floats,
        groups: Tensor,
        copies: Groups,
        wanted: int | None,
        generator: torch.Generator,
    ) -> None:
        """Train, and set the fitted attributes; K=None is chosen by the loss on rows held out.

        Args:
            inputs: the table.
            targets: of its rows.
            weights: of its rows.
            groups: int64, shape (n,): rows are held out of each alike.
            copies: by column, a number: the same for exact copies.
            wanted: K.
            generator: draws everything.
        """
        self._check_importance()
        self.history_ = []
        held_out = torch.empty(0, dtype=torch.int64)
        if wanted is None or self.early_stopping:
            held_out = split(groups, weights, self.validation_fraction, generator)
        shares = torch.from_numpy((weights * unit_of(weights)).astype(np.float32))
        given = (inputs, targets, shares, held_out)
        scores = np.zeros(self.n_features_in_)
        live = inputs.live
        rank = self._ranked_by_ensemble if self.method == "ensemble" else self._ranked_by_perceptron
        scores[live], self.n_iter_ = rank(given, wanted, generator)
        wanted = smallest_good(self.history_) if wanted is None else wanted
        self._set_fitted_(np.where(best_of_copies(scores, copies), scores, 0.0), wanted)

    def _ranked_by_ensemble(
        self, given: Given, wanted: int | None, generator: torch.Generator
    ) -> tuple[Floats, int]:
        return Elimination(
            *given,
            keep=min(wanted or 1, len(given[0].live)),
            steps=self.max_iter,
            rounds=self.n_rounds,
            batch=self.batch_size,
            importance=self.importance,
            setting=self._setting(),
            generator=generator,
            report=self._record_,
            patience=self.n_iter_no_change if self.early_stopping else None,
        ).run()

    def _ranked_by_perceptron(
        self, given: Given, wanted: int | None, generator: torch.Generator
    ) -> tuple[Floats, int]:
        scores, steps = train(
            *given,
            method=_method(self.method, self.density),
            recipe=self._recipe(),
            importance=self.importance,
            patience=self.n_iter_no_change if self.early_stopping else None,
            generator=generator,
            report=self._record_,
            keep=wanted or 1,
            curve=wanted is None,
        )
        return scores.double().numpy(), steps

    def _recipe(self) -> Recipe:
        return self.recipe or Recipe()

    def _setting(self) -> EnsembleSetting:
        return EnsembleSetting(
            members=self.n_members,
            width=self.width,
            density=1.0 if self.density is None else self.density,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            noise=self.noise,
            dropout=self.dropout,
        )

    def _check_importance(self) -> None:
        if self.method == "ensemble" and self.importance in ("sampled", "wast"):
            raise ValueError(
                f"importance={self.importance!r} is of one perceptron: with method='ensemble' use "
                "'mixed', 'attribution' or 'strength', or name another method"
            )

    def _set_fitted_(self, scores: Floats, wanted: int) -> None:
        """Set the fitted attributes; among equal scores the lower index is better."""
        self.scores_ = scores
        self.support_ = top_k(torch.from_numpy(scores), wanted).numpy()
        self.ranking_ = np.empty(len(scores), dtype=np.int64)
        self.ranking_[np.argsort(-scores, kind="stable")] = np.arange(1, len(scores) + 1)
        self.n_features_ = wanted

    def _record_(self, record: dict[str, Any]) -> None:
        """Record what was measured, and print it if ``verbose``."""
        self.history_.append(record)
        if self.verbose:
            told = (
                f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in record.items()
            )
            print(f"[{type(self).__name__}]", *told, sep="  ")

    @staticmethod
    def _weights(sample_weight: Any, X: Any) -> Floats:
        checked: Floats = _check_sample_weight(
            sample_weight, X, dtype=np.float64, ensure_non_negative=True
        )
        return checked

    @staticmethod
    def _summed(X: Any) -> Any:
        """Return a CSR table whose repeated entries are summed, as they are in any other form."""
        if hasattr(X, "tocsr") and not X.has_canonical_format:
            X = X.copy()
            X.sum_duplicates()
        return X


def smallest_good(history: list[dict[str, Any]]) -> int:
    """Return the fewest features whose loss is within one standard error of the lowest.

    Args:
        history: records; those with "n_features", "loss" and "loss_error" count.

    Source: the one-standard-error rule (Breiman et al. 1984, Classification and Regression Trees).

    Example:
        >>> rows = [(4, 1.0), (2, 1.05), (1, 2.0)]
        >>> smallest_good([{"n_features": n, "loss": x, "loss_error": 0.1} for n, x in rows])
        2
    """
    measured = [record for record in history if "n_features" in record]
    best = min(measured, key=lambda record: float(record["loss"]))
    limit = best["loss"] + best["loss_error"]
    return min(int(record["n_features"]) for record in measured if record["loss"] <= limit)


def _method(method: str | Method, density: float | None) -> Method:
    """Return a method by its name, at a density (0.2 if none is said); an object brings its own."""
    if isinstance(method, Method):
        return method
    if method == "Dense":
        return Dense()
    return METHODS[method](density=_OF_METHODS if density is None else density)
