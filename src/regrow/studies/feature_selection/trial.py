"""The trial: features are chosen on a training part and judged on a test part."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from regrow.lab.run import Run
from regrow.lab.trial import Trial
from regrow.studies.feature_selection.protocol import Parts, Protocol, parts
from regrow.studies.feature_selection.selectors.selector import Selector
from regrow.studies.measured import measured

if TYPE_CHECKING:  # scikit-learn is not needed to list the studies
    from regrow.features.data import FeatureSet

__all__ = ["JUDGES", "Select"]


def _svc() -> Any:
    from sklearn.svm import SVC  # noqa: PLC0415

    return SVC()


def _logistic() -> Any:
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415

    return LogisticRegression(max_iter=1000)


def _boosting() -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier  # noqa: PLC0415

    return HistGradientBoostingClassifier(random_state=0)


JUDGES: Mapping[str, Callable[[], Any]] = {
    "svc": _svc,
    "logistic": _logistic,
    "boosting": _boosting,
}
"""What learns from the chosen features alone: scikit-learn's defaults."""


_SEEDS = 1000  # of a split


@dataclass(frozen=True, kw_only=True)
class Select(Trial):
    """Choose features by one selector, and see what they are worth.

    Args:
        data: the data set's name.
        selector: its name.
        column: it, with its settings.
        k: how many features; the control of all features takes all.
        split: which split; the paper's protocol has one.
        protocol: how rows are split and scaled.
        judges: of :data:`JUDGES`.
    """

    data: str
    selector: str
    column: Selector
    k: int
    split: int = 0
    protocol: Protocol = "fair"
    judges: tuple[str, ...] = tuple(JUDGES)

    def run(self, run: Run) -> Mapping[str, Any]:
        """Choose and judge.

        Returns:
            ``accuracy`` by judge, of the test part; ``selected``, indices, the best first;
            ``fit_seconds``, ``fit_cpu_seconds`` and ``fit_peak_bytes`` (see
            :func:`~.cost.measured`) of one thread; ``n_features``, ``n_train``, ``n_test``,
            ``classes``; ``recall`` of the relevant features, where they are known; and what the
            selector tells besides, ``scores`` of pictures only.

        Raises:
            ImportError: the selector's package is not installed.
        """
        self.column.check_installed(self.selector)
        from threadpoolctl import threadpool_limits  # noqa: PLC0415

        from regrow.features.data import load_features  # noqa: PLC0415

        data = load_features(self.data, run.options.get("data_dir"))
        part = parts(data, self.protocol, self.split)
        seed = _SEEDS * self.split + self.seed  # or chance would draw the same in each split
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # constant columns, paths that did not converge
            self._warm_up(part)
            run.tell(0.0, f"choosing {self.k} features")
            choice, cost = measured(
                lambda: self.column.choose(part.X_train, part.y_train, self.k, seed)
            )
            features = choice.features
            found = {name: self._judge(run, name, part, features) for name in self.judges}
        more = dict(choice.more)
        if not data.shape:
            more.pop("scores", None)  # long, and drawn of pictures only
        return {
            "accuracy": found,
            "selected": [int(feature) for feature in features],
            **{f"fit_{name}": value for name, value in cost.items()},
            "n_features": part.X_train.shape[1],
            "n_train": len(part.y_train),
            "n_test": len(part.y_test),
            "classes": len(data.labels),
            "shape": list(data.shape),
            **_recall(data, features),
            **more,
        }

    def _warm_up(self, part: Parts) -> None:
        """Let libraries be loaded before anything is measured."""
        rows = np.concatenate([np.flatnonzero(part.y_train == c)[:4] for c in (0, 1)])
        few = part.X_train[rows, : min(8, part.X_train.shape[1])]
        try:
            self.column.choose(few, part.y_train[rows], 2, self.seed)
        except Exception:
            return

    def _judge(self, run: Run, name: str, part: Parts, features: Any) -> float:
        run.tell(0.5, f"judging by {name}")
        judge = JUDGES[name]().fit(part.X_train[:, features], part.y_train)
        return float(judge.score(part.X_test[:, features], part.y_test))


def _recall(data: FeatureSet, features: Any) -> dict[str, float]:
    if not data.relevant:
        return {}
    return {"recall": len(set(data.relevant) & set(features.tolist())) / len(data.relevant)}
