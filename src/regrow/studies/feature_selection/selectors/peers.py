"""Selectors of other packages: fastcan, LassoNet, STG."""

from __future__ import annotations

import collections
import collections.abc
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from regrow.studies.feature_selection.selectors.filters import Univariate
from regrow.studies.feature_selection.selectors.selector import Choice, Floats, Ints, Selector, best

__all__ = ["FastCan", "LassoNet", "StochasticGates"]


@dataclass(frozen=True)
class FastCan(Selector):
    """Greedy choice by canonical correlation with the labels, one column of zeros and ones each."""

    package: ClassVar[str | None] = "fastcan"

    def choose(self, X: Floats, y: Ints, k: int, seed: int) -> Choice:
        """Choose one by one; of features that are linear combinations of others it takes none.

        More than the rows span it cannot order: what is missing is filled by its first scores.
        """
        import fastcan  # noqa: PLC0415

        each = np.eye(int(y.max()) + 1)[y][:, 1:]  # the first column follows from the others
        varied = np.flatnonzero(X.std(0) > 0)
        most = min(k, len(varied), len(X) - 1 - each.shape[1])
        found = fastcan.FastCan(most, verbose=0).fit(X[:, varied], each)
        chosen = varied[found.indices_]
        if len(chosen) < k:
            one = Univariate().choose(X, y, X.shape[1], seed).features
            rest = one[~np.isin(one, chosen)]
            chosen = np.concatenate([chosen, rest[: k - len(chosen)]])
        return Choice(chosen.astype(np.int64))


@dataclass(frozen=True)
class LassoNet(Selector):
    """A network with a skip connection and a penalty that lets features go one after another.

    The score is how many penalties a feature survives; those that go together are ordered by |skip
    weight| of the dense network. The path ends once fewer than k features are left.

    Args:
        hidden: units of its hidden layer.
        start: the first penalty; to find one by itself takes the package minutes.
        path: factor between one penalty and the next; with its default of 1.02 a path takes hours.
        epochs: at most, for the dense network and at each penalty.
        batch: rows in a step.
    """

    hidden: int = 100
    start: float = 1.0
    path: float = 1.1
    epochs: tuple[int, int] = (100, 10)
    batch: int = 256

    seeded: ClassVar[bool] = True
    package: ClassVar[str | None] = "lassonet"

    def choose(self, X: Floats, y: Ints, k: int, seed: int) -> Choice:
        """Follow the path."""
        from lassonet import LassoNetClassifier  # noqa: PLC0415

        model = LassoNetClassifier(
            hidden_dims=(self.hidden,),
            lambda_start=self.start,
            path_multiplier=self.path,
            n_iters=self.epochs,
            patience=(10, 5),
            batch_size=self.batch,
            val_size=0.2,
            random_state=seed,
            torch_seed=seed,
            device="cpu",
            verbose=0,
        )
        dense: list[Floats] = []
        survived = np.zeros(X.shape[1])

        def look(model: Any, _: object) -> None:
            if not dense:
                dense.append(model.model.skip.weight.detach().abs().sum(0).numpy().astype(float))
            here = model.model.input_mask().numpy()
            survived[:] += here
            if here.sum() < k:
                raise _EnoughError

        with contextlib.suppress(_EnoughError):
            model.path(X.astype(np.float32), y, callback=look, disable_lambda_warning=True)
        return Choice(best(np.lexsort((dense[0], survived)).argsort(), k))


class _EnoughError(Exception):
    """The path has gone far enough."""


@dataclass(frozen=True)
class StochasticGates(Selector):
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

        with torch.random.fork_rng(devices=[]), _names_of_python_3_9():
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


@contextlib.contextmanager
def _names_of_python_3_9() -> Iterator[None]:
    """Let stg 0.1.2 find the names that `collections` has lost since."""
    lost = [name for name in collections.abc.__all__ if not hasattr(collections, name)]
    for name in lost:
        setattr(collections, name, getattr(collections.abc, name))
    try:
        yield
    finally:
        for name in lost:
            delattr(collections, name)
