"""Supervised feature selection by sparse networks."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from sklearn.base import _fit_context
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import validate_data

from regrow.features.base import BaseSparseSelector
from regrow.features.columns import naming_columns
from regrow.features.copies import alike, best_of_copies
from regrow.features.encoding import Encoding, Task, check_count, generator_of, threads
from regrow.features.inputs import Floats, Inputs, scaling
from regrow.features.stream import Stream

__all__ = ["SparseFeatureSelector"]


def _is_ensemble(selector: Any) -> bool:
    return bool(selector.method == "ensemble")


@dataclass(kw_only=True, eq=False, repr=False)
class SparseFeatureSelector(BaseSparseSelector):
    """Select features by an ensemble of small networks that inputs leave one after another.

    Ten networks with one hidden layer of 32 units learn the same batches with weights of their own
    (a balanced Bayesian bootstrap). An input's score is the mean logarithm of two numbers: its
    attribution √(mean Σ_c (∂f_c/∂x_j)²) and its strength ‖w_j‖₂. In 31 rounds the inputs of the
    lowest scores leave all networks, until K are live. Inputs are standardised inside, clipped at
    three standard deviations, and disturbed by noise and dropout.

    With ``method`` a method of dynamic sparse training instead, one perceptron is trained by a
    ``recipe`` and its inputs are ranked once, as the papers do: see :mod:`regrow.features.presets`.

    Args:
        n_features_to_select: K: how many (int), which share (float in (0, 1]), or None: the fewest
            whose loss on held-out rows is within one standard error of the lowest.
        task: "classification", "regression" (one or more columns of numbers), or "auto": words and
            up to 20 different whole numbers are classes, fractions and several columns are numbers,
            and more than 20 different whole numbers are asked about.
        method: "ensemble", or what moves the topology of one perceptron: a name in
            ``regrow.METHODS``, or an object such as ``regrow.RigL(density=0.1)``.
        importance: what scores an input: "mixed" (attribution and strength), "attribution",
            "strength"; of one perceptron also "sampled" (attribution by random signs, one backward
            pass for all classes) and "wast" (sensitivity of the loss and strength).
        density: of the first layer of each network in the ensemble, or of a method given by name;
            None: 1 in the ensemble, whose inputs leave anyway, and 0.2 of a method.
        recipe: how one perceptron is trained; None: as Neuron Attribution does. What follows up to
            ``dropout`` is of the ensemble.
        n_members: networks in the ensemble.
        width: hidden units of each.
        max_iter: steps of the optimizer.
        n_rounds: how often inputs leave.
        batch_size: rows in a step.
        learning_rate: of the first half of the run; it then falls to half.
        weight_decay: the share of each weight that a step of learning rate 0.01 takes away.
        label_smoothing: the share of each label spread over all classes, in [0, 1); "auto" is
            0.3·m/(m + 10) with m rows a class: the fewer there are, the less a class can be told
            from the next, and the more is lost by blurring them.
        noise: standard deviation of the (uniform) noise added to inputs.
        dropout: the share of inputs left out at each step.
        clip: largest magnitude of an input, in standard deviations; None does not clip.
        early_stopping: hold rows out, and stop when the loss on those rows has not fallen for long
            enough; the ensemble does not stop before K inputs are live.
        validation_fraction: the share of rows held out, for early stopping or K=None.
        n_iter_no_change: how many measurements without a fall stop the run: epochs of a perceptron;
            of the ensemble they are ten steps apart.
        n_jobs: threads; None: one (or what a joblib context says); -1: all cores.
        random_state: fixes every random choice; None takes fresh entropy.
        verbose: print a line at each round, or epoch.

    Attributes:
        scores_: shape (d,), higher is better; 0 for constant columns, and for all but the best
            of columns that are exact copies. Of the ensemble: the number
            of rounds a feature outlived, plus its standing in (0, 1) among those that left with it.
        feature_importances_: the scores divided by their sum: of any method, none is below 0 and
            all together are 1. By it :func:`~regrow.features.plot.plot_importances` draws.
        ranking_: shape (d,), 1 is the best; among equals the lower index.
        support_: bool, shape (d,): the features that are selected.
        n_features_: how many are selected.
        n_iter_: steps made.
        history_: a record for each round or epoch: step, live features, held-out loss if any.
        classes_: the classes, where there are any.
        n_features_in_: d.
        feature_names_in_: the columns' names, where the table has names.

    Raises:
        ValueError: data that scikit-learn's estimators refuse (NaN, text, one class), numbers that
            are all equal, more than 20 different whole numbers under task="auto", weights that are
            all zero, or a parameter out of range. K above the number of features is a warning.

    Example:
        >>> from sklearn.datasets import load_breast_cancer
        >>> X, y = load_breast_cancer(return_X_y=True)
        >>> selector = SparseFeatureSelector(5, max_iter=100, random_state=0).fit(X, y)
        >>> selector.transform(X).shape
        (569, 5)

    Source: attribution as in Atashgahi et al. 2024 (arXiv 2408.04583), strength as in
    QuickSelection (2022), inputs that leave as in NeuroFS (2023).

    Differs from these: an ensemble instead of one network; squares and their root instead of
    magnitudes; scores start anew whenever inputs leave; columns that left are removed, so that time
    and memory fall.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseSparseSelector._parameter_constraints,
        "task": [StrOptions({"auto", "classification", "regression"})],
        "label_smoothing": [StrOptions({"auto"}), Interval(Real, 0, 1, closed="left")],
    }

    task: Task = "auto"
    label_smoothing: float | Literal["auto"] = "auto"

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.target_tags.multi_output = True
        return tags

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Rank the features and select the best.

        Args:
            X: table of shape (n, d): array (also memory-mapped), CSR, or DataFrame.
            y: labels of shape (n,), or numbers of shape (n,) or (n, C).
            sample_weight: shape (n,), at least 0.
        """
        X, y = self._checked(X, y, reset=True)
        weights = self._weights(sample_weight, X)
        wanted = check_count(self.n_features_to_select, X.shape[1])
        encoding = Encoding.of(y, self.task, weights)
        if not encoding.varied:
            raise ValueError(
                "y: all numbers are equal, so that there is nothing to be told of them"
            )
        targets = encoding.values(y, weights, self.label_smoothing)
        groups = torch.zeros(len(y), dtype=torch.int64)
        self._stream: Stream | None = None
        if encoding.classes is not None:
            self.classes_, groups = encoding.classes, targets.values
        with threads(self.n_jobs):
            inputs = Inputs(X, scaling(X, weights, self.clip), self.clip)
            generator = generator_of(self.random_state)
            self._rank_(inputs, targets, weights, groups, alike(X), wanted, generator)
        return self

    @available_if(_is_ensemble)  # type: ignore[untyped-decorator]
    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Learn from one part of a table, and select the best features so far.

        Every part is gone through once, be it of one row. No input leaves, since it may matter in a
        part to come: the ranking is worse than that of :meth:`fit`, which is to be used where the
        table fits. There is no such method unless ``method="ensemble"``; n_features_to_select=None
        selects half.

        Args:
            X: part of the table, shape (n, d).
            y: its targets. Numbers are standardised as those of the first parts are, until these
                have ``batch_size`` rows together.
            classes: all classes there are; needed at the first call if the first part lacks any.
            sample_weight: shape (n,), at least 0.
        """
        self._check_importance()
        stream: Stream | None = getattr(self, "_stream", None)
        X, y = self._checked(X, y, reset=stream is None, least=1)
        weights = self._weights(sample_weight, X)
        wanted = check_count(self.n_features_to_select, X.shape[1])
        keep = max(X.shape[1] // 2, 1) if wanted is None else wanted
        if stream is None:
            task = self.task if classes is None or self.task != "auto" else "classification"
            self._encoding = Encoding.of(y, task, weights, classes)
            self._first: list[tuple[Any, Any]] = []
            self._stream = stream = self._started(keep)
            self.history_ = []
        if self._encoding.classes is not None:
            self.classes_ = self._encoding.classes
        else:
            self._standardise_(y, weights)
        targets = self._encoding.values(y, weights, self.label_smoothing)
        with threads(self.n_jobs):
            scores = stream.learn_(X, targets, weights)
        self.n_iter_ = stream.steps
        self._record_({"step": self.n_iter_, "n_features": X.shape[1]})
        copies = stream.copies
        shared: Floats = np.bincount(copies, weights=scores).astype(np.float64)
        scores = shared[copies]  # copies share what their column earns
        self._set_fitted_(np.where(best_of_copies(scores, copies), scores, 0.0), keep)
        return self

    def _standardise_(self, y: Any, weights: Any) -> None:
        """Learn how numbers are standardised from the first parts, as long as these are few."""
        if sum(len(targets) for targets, _ in self._first) < self.batch_size:
            self._first.append((y, weights))
            targets, shares = (np.concatenate(parts) for parts in zip(*self._first, strict=True))
            self._encoding = Encoding.of(targets, "regression", shares)

    def _started(self, keep: int) -> Stream:
        generator = generator_of(self.random_state)
        return Stream(keep, self.batch_size, self.clip, self.importance, self._setting(), generator)

    def _checked(self, X: Any, y: Any, *, reset: bool, least: int = 2) -> tuple[Any, Any]:
        with naming_columns(X):
            X, y = validate_data(
                self,
                X,
                y,
                reset=reset,
                accept_sparse="csr",
                dtype=[np.float64, np.float32],
                ensure_min_samples=least,
                multi_output=True,
            )
        return self._summed(X), y
