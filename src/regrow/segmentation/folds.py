"""Splits cases into folds: every case is validated once; the folds are nnU-Net's."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from regrow.machine import needed
from regrow.reading import decoding, read_file, refused

__all__ = ["Fold", "absent", "folds_of", "read_folds"]


@dataclass(frozen=True)
class Fold:
    """Which cases are trained on, and which ones are validated.

    Args:
        train: names of cases.
        validation: names of the others.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]


def folds_of(names: Iterable[str], count: int = 5, seed: int = 12345) -> tuple[Fold, ...]:
    """Split cases into folds at random; all volumes of a case stay together.

    The same names give the same folds, in whatever order; with the default seed nnU-Net's.

    Args:
        names: of the cases.
        count: of the folds.
        seed: of the order in which cases are dealt.

    Raises:
        ValueError: a name is there twice, or there are fewer cases than folds.

    Source: nnU-Net v2, ``generate_crossval_split``: shuffled k-fold of the sorted names.

    Example:
        >>> [fold.validation for fold in folds_of(["c", "a", "b", "d"], 2)]
        [('a', 'd'), ('b', 'c')]
    """
    ordered = sorted(names)
    if len(set(ordered)) != len(ordered):
        raise ValueError("names: a case is there twice, and would be validated on what it trains")
    if not 2 <= count <= len(ordered):
        raise ValueError(f"count: {count} folds of {len(ordered)} cases; give 2 to {len(ordered)}")
    with needed("scikit-learn", "segmentation"):
        from sklearn.model_selection import KFold  # noqa: PLC0415 optional
    split = KFold(count, shuffle=True, random_state=seed).split(ordered)
    return tuple(
        Fold(tuple(ordered[i] for i in train), tuple(ordered[i] for i in validation))
        for train, validation in split
    )


def read_folds(path: Path, names: Collection[str]) -> tuple[Fold, ...]:
    """Read folds that somebody has chosen: nnU-Net's ``splits_final.json``.

    Args:
        path: of the file.
        names: of the cases that there are.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableError: it is damaged, names cases that are not there, or validates what it trains.
    """
    with decoding(path):
        folds = tuple(
            Fold(tuple(map(str, fold["train"])), tuple(map(str, fold["val"])))
            for fold in json.loads(read_file(path))
        )
    for number, fold in enumerate(folds):
        if missing := sorted({*fold.train, *fold.validation} - set(names)):
            said = f"names case {missing[0]} in fold {number}, which is not there"
            raise refused(path, said, "mend it, or add the case")
        if both := sorted(set(fold.train) & set(fold.validation)):
            raise refused(path, f"trains and validates {both[0]} in fold {number}", "mend it")
    return folds


def absent(
    fold: Fold, values: Mapping[str, Collection[int]], labels: Mapping[int, str]
) -> list[str]:
    """Say which classes a fold lacks: it cannot learn them, or cannot tell how well they are.

    Args:
        fold: of the cases.
        values: of the labels that occur in each case.
        labels: value to name.

    Returns:
        A sentence for each class and part of the fold that has no case of it.

    Example:
        >>> absent(Fold(("a",), ("b",)), {"a": {0}, "b": {0, 1}}, {0: "background", 1: "liver"})
        ['no training case has liver (1): it cannot be learnt']
    """
    said = []
    for part, cases, so in (
        ("training", fold.train, "it cannot be learnt"),
        ("held-out", fold.validation, "nothing is said of it"),
    ):
        there = {value for case in cases for value in values.get(case, ())}
        said += [
            f"no {part} case has {name} ({value}): {so}"
            for value, name in labels.items()
            if value not in there
        ]
    return said
