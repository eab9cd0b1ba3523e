"""Rankers of columns on ordinary tables, where a third of the columns is kept.

    python benchmarks/feature_tables.py --json results/features/tables.json

Tables that come with scikit-learn, and drawn ones of 15 to 60 columns; a third of the rows is held
out, a third of the columns chosen. What is chosen is judged as in ``feature_selector.py``, beside
LightGBM's gain (``pip install lightgbm``). Seconds are of the processor, on one thread, in turns.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from feature_selector import interval
from sklearn import datasets
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits

from regrow.lab.environment import environment
from regrow.studies.feature_selection.selectors import OURS, RANDOM, all_selectors
from regrow.studies.feature_selection.selectors.nets import Ours

BESIDE = "LightGBM"
DRAWN = 12


def tables() -> dict[str, tuple[Any, Any]]:
    """Return columns and labels by name."""
    found = {
        name: getattr(datasets, f"load_{name}")(return_X_y=True)
        for name in ("digits", "breast_cancer", "wine")
    }
    for i in range(DRAWN):
        columns = 15 + 15 * (i % 4)
        found[f"drawn {i}"] = datasets.make_classification(
            *(500 + 500 * (i % 3), columns),
            n_informative=4 + i % 5,
            n_redundant=2 + i % 4,
            n_classes=2 + i % 3,
            n_clusters_per_class=1 + i % 2,
            flip_y=0.05,
            random_state=i,
        )
    return found


def main() -> None:
    """Rank, judge, print a summary, write the record."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--splits", type=int, default=6)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    every = all_selectors(short=True)
    rankers = {name: every[name] for name in (BESIDE, "ExtraTrees", "L1", "f_classif", RANDOM)}
    rankers[OURS] = Ours(())  # as it comes, not as the study's records have it
    accuracy: dict[str, dict[str, float]] = {}
    seconds: dict[str, dict[str, float]] = {}
    for name, (X, y) in tables().items():
        found: dict[str, list[tuple[float, float]]] = {ranker: [] for ranker in rankers}
        for split in range(given.splits):
            part = train_test_split(X, y, test_size=1 / 3, stratify=y, random_state=split)
            scaler = StandardScaler().fit(part[0])
            learnt, held_out = (scaler.transform(rows) for rows in part[:2])
            for ranker, selector in rankers.items():
                found[ranker].append(worth(selector, learnt, held_out, *part[2:], split))
        means = {ranker: np.mean(rows, axis=0) for ranker, rows in found.items()}
        accuracy[name] = {ranker: round(float(mean[0]), 2) for ranker, mean in means.items()}
        seconds[name] = {ranker: round(float(mean[1]), 4) for ranker, mean in means.items()}
        print(name, X.shape, accuracy[name], {k: round(v, 3) for k, v in seconds[name].items()})
    ratio = [of[OURS] / of[BESIDE] for of in seconds.values()]
    record = {
        "environment": environment(),
        "gain_of_ours": {
            other: interval(of[OURS] - of[other] for of in accuracy.values())
            for other in rankers
            if other != OURS
        },
        "cpu_ratio": round(float(np.exp(np.mean(np.log(ratio)))), 2),
        "cpu_ratio_ends": [round(min(ratio), 2), round(max(ratio), 2)],
        "accuracy": accuracy,
        "cpu_seconds": seconds,
    }
    for key in ("gain_of_ours", "cpu_ratio", "cpu_ratio_ends"):
        print(key, record[key])
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


def worth(selector: Any, learnt: Any, held_out: Any, y: Any, wanted: Any, seed: int) -> Any:
    """Return the judges' mean accuracy by what a selector chooses, and its seconds."""
    with threadpool_limits(1):
        selector.choose(learnt[:60], y[:60], 2, seed)  # nothing is loaded while it is timed
        start = time.process_time()
        columns = selector.choose(learnt, y, round(learnt.shape[1] / 3), seed).features
        taken = time.process_time() - start
        judges = (SVC(), ExtraTreesClassifier(150, random_state=0))
        scores = [
            judge.fit(learnt[:, columns], y).score(held_out[:, columns], wanted) for judge in judges
        ]
    return 100 * float(np.mean(scores)), taken


if __name__ == "__main__":
    main()
