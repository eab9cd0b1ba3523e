"""Selectors that are regrow's own: the default selector, and the family of the literature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import numpy as np

import regrow
from regrow.studies.feature_selection.selectors.flops import ensemble_flops, perceptron_flops
from regrow.studies.feature_selection.selectors.selector import Choice, Floats, Ints, Selector, best

__all__ = ["Family", "Ours"]

# What the records were made with, where the default is another by now: they stay records of this
# trial, and what is run anew can be held against them.
_RECORDED = {"density": 0.2, "max_iter": 600}
_NOT_SETTINGS = ("n_features_to_select", "random_state", "n_jobs", "verbose")
_SMALL, _SMALL_BATCH = 200, 32  # the paper's batches below 200 rows


def _settings() -> tuple[tuple[str, Any], ...]:
    from regrow.features import SparseFeatureSelector  # noqa: PLC0415 (needs scikit-learn)

    found = SparseFeatureSelector().get_params(deep=False) | _RECORDED
    return tuple((name, v) for name, v in sorted(found.items()) if name not in _NOT_SETTINGS)


@dataclass(frozen=True)
class Ours(Selector):
    """:class:`regrow.features.SparseFeatureSelector` with one setting for all data.

    It is that of the records: 600 steps and first layers of density 0.2, where the default has 300
    and full ones by now.

    Args:
        settings: its parameters, which make a run with others another trial.
    """

    settings: tuple[tuple[str, Any], ...] = field(default_factory=_settings)

    seeded: ClassVar[bool] = True

    def choose(self, X: Floats, y: Ints, k: int, seed: int) -> Choice:
        """Fit it."""
        from regrow.features import SparseFeatureSelector  # noqa: PLC0415 (needs scikit-learn)

        selector = SparseFeatureSelector(k, random_state=seed, **dict(self.settings))
        selector = selector.set_params(task="classification").fit(X, y)  # ORL has 40 classes
        return Choice(
            best(selector.scores_, k),
            {
                "flops": ensemble_flops(selector, len(X), int(y.max()) + 1),
                "history": _points(selector.history_),
                "scores": np.round(selector.scores_, 2).tolist(),
            },
        )


Published = Literal["Neuron Attribution", "QuickSelection", "WAST", "NeuroFS"]
_PRESETS: Mapping[Published, str] = {
    "Neuron Attribution": "neuron_attribution",
    "QuickSelection": "quick_selection",
    "WAST": "wast",
    "NeuroFS": "neuro_fs",
}


@dataclass(frozen=True)
class Family(Selector):
    """A method of the literature.

    Args:
        published: which.
        epochs: at most; the papers' are 200, 100, 10 and 100.
        method: of Neuron Attribution: "SET", "RigL" or "dense".
        importance: of Neuron Attribution: "attribution", or "strength" for what it calls QS.
        density: of Neuron Attribution, whose paper chose one of 0.75 to 0.02 for each data set.
        score_every: steps between two scores that are summed.
        execution: "masked", or "csr": active weights only are stored and computed.
    """

    published: Published
    epochs: int
    method: Literal["SET", "RigL", "dense"] = "SET"
    importance: Literal["attribution", "strength"] = "attribution"
    density: float = 0.2
    score_every: int = 1
    execution: Literal["masked", "csr"] = "masked"

    seeded: ClassVar[bool] = True

    def choose(self, X: Floats, y: Ints, k: int, seed: int) -> Choice:
        """Fit it; autoencoders are not shown the labels."""
        selector = self._selector(k, len(X)).set_params(random_state=seed)
        if "task" in selector.get_params():  # ORL has 40 classes
            selector = selector.set_params(task="classification")
        selector = selector.fit(X, y)
        classes = int(y.max()) + 1
        more = {
            "flops": perceptron_flops(selector, X.shape, classes),
            "epochs": len([record for record in selector.history_ if "epoch" in record]),
        }
        return Choice(best(selector.scores_, k), more)

    def _selector(self, k: int, rows: int) -> Any:
        from regrow import features  # noqa: PLC0415 (needs scikit-learn)

        extra: dict[str, Any] = {}
        if self.published == "Neuron Attribution":
            extra = {"importance": self.importance, "density": self.density}
            extra["method"] = "RigL" if self.method == "RigL" else "SET"
        found = getattr(features, _PRESETS[self.published])(k, max_epochs=self.epochs, **extra)
        recipe = replace(found.recipe, score_every=self.score_every, execution=self.execution)
        if self.published == "Neuron Attribution":
            if rows < _SMALL:
                recipe = replace(recipe, batch_size=_SMALL_BATCH)
            if self.method == "dense":
                found.set_params(method=regrow.Dense())
        return found.set_params(recipe=recipe)


def _points(history: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """Keep what is drawn: the step and how many features are live."""
    return [
        {"step": int(one["step"]), "n_features": int(one["n_features"])}
        for one in history
        if "step" in one and "n_features" in one
    ]
