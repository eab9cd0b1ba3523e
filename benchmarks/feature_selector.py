"""What the default feature selector of one version is worth beside another's, and what it costs.

    git worktree add /tmp/before VERSION
    python benchmarks/feature_selector.py --before /tmp/before/src --json FILE

Both versions select from the same tables with the same seeds, in turns, each in a process of its
own. The tables of the field are the training parts of the study's first split (the others are drawn
or come with scikit-learn); of each a random third, stratified, is held out. Two classifiers learn
from the chosen columns only and are judged on that third: a support vector machine and extra trees.
Agreement is the Jaccard index of what two seeds choose on one split. Seconds are of the processor,
on one thread. Means and intervals (Student's, 95 %) are over tables.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

FIELD = ("lymphoma", "Yale", "Prostate-GE", "arcene", "ORL", "madelon", "Isolet", "COIL20")
TEXTS = ("RELATHE", "PCMAC", "BASEHOCK")
MORE = ("digits", "cancer", *(f"made {i}" for i in range(3)), *(f"wide {i}" for i in range(6)))
JUDGES = ("support vector machine", "extra trees")
LARGE = (*TEXTS, "COIL20", "Isolet", "arcene", "Prostate-GE")  # slow: every third split
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
Row = dict[str, Any]


@lru_cache(maxsize=1)
def table(name: str, data: Path | None) -> tuple[Any, Any, int]:
    """Return columns, labels, and how many columns are chosen."""
    from sklearn import datasets  # noqa: PLC0415

    from regrow.features.data import load_features, make_madelon  # noqa: PLC0415
    from regrow.studies.feature_selection.protocol import parts  # noqa: PLC0415

    kind, _, number = name.partition(" ")
    if kind == "made":
        drawn = make_madelon(900, 300, seed=int(number))
        return np.asarray(drawn.X, dtype=float), np.asarray(drawn.y), 20
    if kind == "wide":
        i = int(number)
        X, y = datasets.make_classification(
            *(150 + 100 * (i % 3), 1500),
            n_informative=15,
            n_redundant=15,
            n_classes=2 + i % 3,
            n_clusters_per_class=1 + i % 2,
            random_state=i,
        )
        return X, y, 40
    if kind in ("digits", "cancer"):
        load = datasets.load_digits if kind == "digits" else datasets.load_breast_cancer
        return *load(return_X_y=True), 10 if kind == "digits" else 8
    part = parts(load_features(name, data), "fair", 0)
    return part.X_train, part.y_train, 20 if name == "madelon" else 50


def halves(name: str, data: Path | None, split: int) -> tuple[Any, Any, Any, Any, int]:
    """Return the scaled columns and the labels to learn from, those held out, and K."""
    from sklearn.model_selection import train_test_split  # noqa: PLC0415
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

    X, y, k = table(name, data)
    y = np.unique(y, return_inverse=True)[1]
    enough = np.bincount(y).min() > 1
    learnt, held_out = train_test_split(
        np.arange(len(y)), test_size=1 / 3, stratify=y if enough else None, random_state=split
    )
    scaler = StandardScaler().fit(X[learnt])
    return scaler.transform(X[learnt]), y[learnt], scaler.transform(X[held_out]), y[held_out], k


def select() -> None:
    """Answer lines of [table, data, split, seed, settings] by what is chosen, and its seconds."""
    from threadpoolctl import threadpool_limits  # noqa: PLC0415

    from regrow.features import SparseFeatureSelector  # noqa: PLC0415

    warnings.simplefilter("ignore")
    with threadpool_limits(1):
        for line in sys.stdin:
            name, data, split, seed, settings = json.loads(line)
            X, y, *_, k = halves(name, data, split)
            made = [
                SparseFeatureSelector(n, random_state=seed, task="classification", **settings)
                for n in (2, k)
            ]
            made[0].set_params(max_iter=3).fit(X[:, :20], y)  # nothing is loaded while it is timed
            start = time.process_time()
            made[1].fit(X, y)
            seconds = time.process_time() - start
            chosen = np.argsort(-made[1].scores_, kind="stable")[:k]
            print(json.dumps({"seconds": seconds, "chosen": chosen.tolist()}), flush=True)


class Version:
    """A version of regrow in a process of its own."""

    def __init__(self, source: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--select"],
            env={**os.environ, "PYTHONPATH": source, "CUDA_VISIBLE_DEVICES": ""} | ONE_THREAD,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def asked(self, *question: Any) -> Row:
        """Let it select."""
        pipes = self._process
        assert pipes.stdin is not None and pipes.stdout is not None
        pipes.stdin.write(json.dumps(question) + "\n")
        pipes.stdin.flush()
        answer: Row = json.loads(pipes.stdout.readline())
        return answer


_VERSIONS: dict[str, Version] = {}


def cell(job: tuple[str, Any, int, int, dict[str, tuple[str, Row]], float]) -> list[Row]:
    """Select by each version in turn, and judge what it chose."""
    from sklearn.ensemble import ExtraTreesClassifier  # noqa: PLC0415
    from sklearn.svm import SVC  # noqa: PLC0415
    from threadpoolctl import threadpool_limits  # noqa: PLC0415

    name, data, split, seed, arms, until = job
    if time.time() > until:
        return []
    X, y, X_held_out, y_held_out, _ = halves(name, data, split)
    turn, rows = (split + seed) % len(arms), []
    order = [*arms][turn:] + [*arms][:turn]
    for arm in order:
        source, settings = arms[arm]
        if source not in _VERSIONS:
            _VERSIONS[source] = Version(source)
        found = _VERSIONS[source].asked(name, data, split, seed, settings)
        columns = found["chosen"]
        with threadpool_limits(1):
            accuracy = [
                100 * judge.fit(X[:, columns], y).score(X_held_out[:, columns], y_held_out)
                for judge in (SVC(), ExtraTreesClassifier(150, random_state=0))
            ]
        rows.append(
            {"table": name, "split": split, "seed": seed, "arm": arm, "accuracy": accuracy} | found
        )
    return rows


def interval(values: Iterable[float]) -> list[float]:
    """Return mean, lower and upper end of the 95 % interval; NaN of no values."""
    from regrow.lab.statistics import mean_interval  # noqa: PLC0415

    if not (found := [float(one) for one in values]):
        return [float("nan")] * 3
    one = mean_interval(found)
    return [round(end, 3) for end in (one.mean, one.low, one.high)]


def agreement(rows: list[Row]) -> float:
    """Return the mean Jaccard index of two seeds on one split; NaN of too few."""
    from regrow.features.stability import jaccard  # noqa: PLC0415

    pairs = [
        jaccard(a["chosen"], b["chosen"])
        for a, b in combinations(rows, 2)
        if a["split"] == b["split"]
    ]
    return float(np.mean(pairs)) if pairs else float("nan")


def compared(rows: list[Row], before: str, after: str) -> Row:
    """Compare two arms, table by table and over tables."""
    names = list(dict.fromkeys(row["table"] for row in rows))
    tables = []
    for name in names:
        by = {
            arm: {(r["split"], r["seed"]): r for r in rows if (r["table"], r["arm"]) == (name, arm)}
            for arm in (before, after)
        }
        pairs = [(by[before][place], by[after][place]) for place in by[before]]
        gains = np.mean([np.subtract(b["accuracy"], a["accuracy"]) for a, b in pairs], axis=0)
        levels = np.mean([a["accuracy"] for a, _ in pairs], axis=0)
        seconds = [float(np.mean([pair[i]["seconds"] for pair in pairs])) for i in (0, 1)]
        tables.append(
            {
                "table": name,
                "cells": len(pairs),
                "accuracy_before": [round(float(one), 2) for one in levels],
                "gain": [round(float(one), 2) for one in gains],
                "agreement": [round(agreement([pair[i] for pair in pairs]), 3) for i in (0, 1)],
                "cpu_seconds": [round(one, 3) for one in seconds],
                "ratio": round(seconds[1] / seconds[0], 3),
            }
        )
    whole = [one for one in tables if not np.isnan(one["agreement"]).any()]
    ratios = [one["ratio"] for one in tables]
    of_judges = {judge: [one["gain"][i] for one in tables] for i, judge in enumerate(JUDGES)}
    return {
        "gain": interval(np.mean(one["gain"]) for one in tables),
        "gain_of_judges": {judge: interval(gains) for judge, gains in of_judges.items()},
        "agreement": [round(float(np.mean([o["agreement"][i] for o in whole])), 3) for i in (0, 1)],
        "agreement_gain": interval(o["agreement"][1] - o["agreement"][0] for o in whole),
        "cpu_ratio": round(float(np.exp(np.mean(np.log(ratios)))), 3),
        "cpu_ratio_ends": [min(ratios), max(ratios)],
        "tables": tables,
    }


def jobs(given: argparse.Namespace, arms: dict[str, tuple[str, Row]]) -> Iterator[Any]:
    """List cells: splits outside, so that all tables have as many when time is up."""
    until = time.time() + given.seconds
    for split in range(given.first_split, given.first_split + given.splits):
        names = (*MORE, *FIELD, *TEXTS)
        for name in (one for one in names if one not in LARGE or split % 3 == 0):
            for seed in range(given.seeds):
                yield name, given.data, split, 100 * split + seed, arms, until


def main() -> None:
    """Compare, print a summary, write the record."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--select", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--before", help="the other version's folder src")
    parser.add_argument("--after", default=str(Path(__file__).parents[1] / "src"))
    parser.add_argument("--also", type=json.loads, default={}, help="more arms: name → settings")
    parser.add_argument("--data", default=os.environ.get("REGROW_DATA"))
    parser.add_argument("--splits", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-split", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=1e9, help="after which no cell begins")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rows", type=Path, help="where all cells are written")
    parser.add_argument("--read", type=Path, nargs="*", default=[], help="cells of earlier runs")
    given = parser.parse_args()
    if given.select:
        select()
        return
    import multiprocessing  # noqa: PLC0415

    from regrow.lab.environment import environment  # noqa: PLC0415

    arms: dict[str, tuple[str, Row]] = {"before": (given.before, {}), "after": (given.after, {})}
    arms |= {name: (given.after, settings) for name, settings in given.also.items()}
    rows: list[Row] = [row for path in given.read for row in json.loads(path.read_text("utf-8"))]
    with multiprocessing.get_context("spawn").Pool(given.processes) as pool:
        for found in pool.imap_unordered(cell, jobs(given, arms)):
            rows += found
            if given.rows:
                given.rows.write_text(json.dumps(rows), "utf-8")
    record: Row = {"environment": environment()}
    for arm in [*arms][1:]:
        record[arm] = compared(rows, "before", arm)
        for key, value in record[arm].items():
            if key != "tables":
                print(f"{arm}: {key} {value}")
    print(*(f"{t['table']} ({t['cells']})" for t in record["after"]["tables"]))
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
