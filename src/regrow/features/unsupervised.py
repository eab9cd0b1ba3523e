"""Unsupervised feature selection by sparse denoising autoencoders."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import _fit_context
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import validate_data

from regrow.features.base import BaseSparseSelector
from regrow.features.columns import naming_columns
from regrow.features.copies import alike
from regrow.features.encoding import check_count, generator_of, threads
from regrow.features.inputs import Inputs, scaling
from regrow.features.recipe import Recipe
from regrow.features.targets import Reconstruction

__all__ = ["UnsupervisedSparseFeatureSelector"]


@dataclass(kw_only=True, eq=False, repr=False)
class UnsupervisedSparseFeatureSelector(BaseSparseSelector):
    """Select the features from which an ensemble of sparse autoencoders tells all the others.

    As :class:`~regrow.features.selector.SparseFeatureSelector`, with the table itself as the
    target: networks see inputs under noise and dropout and put out all standardised columns, also
    those that have left. What stays is what the rest can be told from. Of wide tables a random
    sketch is put out, whose distances are those of the table on average.

    With ``method`` a method of dynamic sparse training instead, one autoencoder is trained by a
    ``recipe``, as QuickSelection and WAST do: see :mod:`regrow.features.presets`.

    Args:
        n_features_to_select: K: how many (int), which share (float in (0, 1]), or None: the fewest
            whose error on held-out rows is within one standard error of the lowest.
        method: "ensemble", or what moves the topology of one autoencoder: a name in
            ``regrow.METHODS``, or an object such as ``regrow.SET(density=0.1)``.
        importance: what scores an input: "mixed" (attribution and strength), "attribution",
            "strength"; of one autoencoder also "sampled" (attribution by random signs; without it
            there is one product for each column) and "wast" (error and strength).
        density: of the first layer of each network in the ensemble, or of a method given by name;
            None: 1 in the ensemble and 0.2 of a method.
        recipe: how one autoencoder is trained; None: one hidden layer of 200 units, else as Neuron
            Attribution does. What follows up to ``dropout`` is of the ensemble.
        n_outputs: the most columns a network puts out; of wider tables it is a sketch.
        n_members: networks in the ensemble.
        width: hidden units of each.
        max_iter: steps of the optimizer.
        n_rounds: how often inputs leave.
        batch_size: rows in a step.
        learning_rate: of the first half of the run; it then falls to half.
        weight_decay: the share of each weight that a step of learning rate 0.01 takes away.
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
        feature_importances_: the scores divided by their sum.
        ranking_: shape (d,), 1 is the best; among equals the lower index.
        support_: bool, shape (d,): the features that are selected.
        n_features_: how many are selected.
        n_iter_: steps made.
        history_: a record for each round or epoch: step, live features, held-out error if any.
        n_features_in_: d.
        feature_names_in_: the columns' names, where the table has names.

    Raises:
        ValueError: data that scikit-learn's estimators refuse (NaN, text), weights that are all
            zero, or a parameter out of range. K above the number of features is a warning.

    Example:
        >>> from sklearn.datasets import load_digits
        >>> X = load_digits().data
        >>> selector = UnsupervisedSparseFeatureSelector(10, max_iter=60, random_state=0).fit(X)
        >>> selector.transform(X).shape
        (1797, 10)

    Source: the denoising autoencoder as in QuickSelection (Atashgahi et al. 2022) and WAST (Sokar
    et al. 2022).

    Differs from these: an ensemble that inputs leave round by round, in place of one ranking.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseSparseSelector._parameter_constraints,
        "n_outputs": [Interval(Integral, 1, None, closed="left")],
    }

    n_outputs: int = 512
    density: float | None = 0.2  # it was for labels that fewer steps of full layers were measured
    max_iter: int = 600

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Rank the features and select the best.

        Args:
            X: table of shape (n, d): array (also memory-mapped), CSR, or DataFrame.
            y: not looked at.
            sample_weight: shape (n,), at least 0.
        """
        with naming_columns(X):
            X = validate_data(
                self, X, accept_sparse="csr", dtype=[np.float64, np.float32], ensure_min_samples=2
            )
        X = self._summed(X)
        weights = self._weights(sample_weight, X)
        wanted = check_count(self.n_features_to_select, X.shape[1])
        generator = generator_of(self.random_state)
        recipe = self._recipe()
        with threads(self.n_jobs):
            scales = scaling(X, weights, self.clip)
            inputs, whole = (Inputs(X, scales, self.clip) for _ in range(2))
            sketch = self.n_outputs if self.method == "ensemble" else None
            targets = Reconstruction(whole, sketch, generator, mean=recipe.mean_error)
            groups = torch.zeros(X.shape[0], dtype=torch.int64)
            self._rank_(inputs, targets, weights, groups, alike(X), wanted, generator)
        return self

    def _recipe(self) -> Recipe:
        return self.recipe or Recipe(hidden=(200,))
