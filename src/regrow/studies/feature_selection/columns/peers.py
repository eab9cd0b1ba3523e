"""Columns of other packages that select features: fastcan, LassoNet, STG."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from regrow.studies.feature_selection.columns.column import Choice, Column, Floats, Ints, best
from regrow.studies.feature_selection.columns.filters import Univariate

__all__ = ["FastCan", "LassoNet", "StochasticGates"]


@dataclass(frozen=True)
class FastCan(Column):
    """Greedy choice by canonical correlation with the labels, one column of zeros and ones each."""

    package: ClassVar[str | None] = "fastcan"

    def choose(self, X: Floats, y: Ints, k: int, seed: int) -> Choice:
        """Choose one by one; of features that are linear combinations of others it takes none.

        More than the rows span it cannot order: what is missing is filled by its first scores.
        """
        from fastcan import FastCan as Selector  # noqa: PLC0415

        each = np.eye(int(y.max()) + 1)[y][:, 1:]  # the first column follows from the others
        varied = np.flatnonzero(X.std(0) > 0)
        most = min(k, len(varied), len(X) - 1 - each.shape[1])
        found = Selector(most, verbose=0).fit(X[:, varied], each)
        chosen = varied[found.indices_]
        if len(chosen) < k:
            one = Univariate().choose(X, y, X.shape[1], seed).features
            rest = one[~np.isin(one, chosen)]
            chosen = np.concatenate([chosen, rest[: k - len(chosen)]])
        return Choice(chosen.astype(np.int64))


@dataclass(frozen=True)
class LassoNet(Column):
    """A network with a skip connection and a penalty that lets features go one after another.

    The score is the penalty at which a feature leaves; features that never leave, and those that
    leave together, are ordered by |skip weight| of the dense network.

    Args:
        hidden: units of its hidden layer.
        path: factor between one penalty and the next; its default of 1.02 takes minutes to hours.
        epochs: at most, for the dense network and at each penalty.
    """

    hidden: int = 100
    path: float = 1.1
    epochs: tuple[int, int] = (200, 20)

    seeded: ClassVar[bool] = True
    package: ClassVar[str | None] = "lassonet"

    def choose(self, X: Floats, y: Ints, k: int, seed: int) -> Choice:
        """Follow the path until fewer than k features are left."""
        from lassonet import LassoNetClassifier  # noqa: PLC0415

        model = LassoNetClassifier(
            hidden_dims=(self.hidden,),
            path_multiplier=self.path,
            n_iters=self.epochs,
            patience=(20, 5),
            val_size=0.2,
            random_state=seed,
            torch_seed=seed,
            device="cpu",
            verbose=0,
        )
        skip: list[Floats] = []

        def look(model: object, _: object) -> None:
            if not skip:
                weights = model.model.skip.weight  # type: ignore[attr-defined]
                skip.append(weights.detach().abs().sum(0).numpy())

        model.path(X.astype(np.float32), y, callback=look, disable_lambda_warning=True)
        leaves = np.asarray(model.feature_importances_, float)
        finite = np.where(np.isfinite(leaves), leaves, 2 * leaves[np.isfinite(leaves)].max(initial=1))
        return Choice(best(np.lexsort((skip[0], finite)).argsort(), k))


@dataclass(frozen=True)
class StochasticGates(Column):
    """A network whose inputs pass gates that open at random; the score is a gate's probability.

    Args:
        hidden: units of its hidden layers.
        penalty: on open gates (lam).
        epochs: over the training part.
        learning_rate: of SGD.
    """

    hidden: tuple[int, ...] = (100, 20)
    penalty: float = 0.5
    epochs: int = 300
    learning_rate: float = 0.1

    seeded: ClassVar[bool] = True
    package: ClassVar[str | None] = "stg"

    def choose(self, X: Floats, y: Ints, k: int, seed: int) -> Choice:
        """Train the gates; those that are equally open are ordered by their parameter."""
        import torch  # noqa: PLC0415
        from stg import STG  # noqa: PLC0415

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = STG(
                task_type="classification",
                device="cpu",
                input_dim=X.shape[1],
                output_dim=int(y.max()) + 1,
                hidden_dims=list(self.hidden),
                activation="relu",
                optimizer="SGD",
                learning_rate=self.learning_rate,
                batch_size=min(len(X), 128),
                lam=self.penalty,
                random_state=seed,
            )
            model.fit(X, y, nr_epochs=self.epochs, verbose=False, print_interval=10**9)
        return Choice(best(model.get_gates("raw"), k))
