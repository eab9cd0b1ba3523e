"""The sizes at which the study can be run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from regrow.lab.study import Preset, check_data
from regrow.lab.trial import Trial
from regrow.studies.feature_selection.columns import (
    ALL,
    MASKED,
    OURS,
    RANDOM,
    STORED,
    Column,
    columns,
)
from regrow.studies.feature_selection.protocol import Protocol
from regrow.studies.feature_selection.published import CHOSEN_SPARSITY
from regrow.studies.feature_selection.trial import Select

__all__ = ["COUNTS", "PRESETS", "SETS", "count_of", "trials"]

SETS = (
    *("lymphoma", "Yale", "Prostate-GE", "arcene", "ORL", "madelon", "Isolet", "COIL20"),
    *("RELATHE", "PCMAC", "BASEHOCK"),
)
"""The eleven data sets, small ones first."""

COUNTS = (25, 50, 75, 100, 200)
_FIRST = 100  # what the paper's tables have
_FASHION = "fashion-mnist"
_MADELON = 20
_ONE_SEED = ("Boruta", "STG", "LassoNet", MASKED, STORED)  # of the fair protocol
_SMOKE = (RANDOM, ALL, "f_classif", "L1", "ExtraTrees", OURS, "SET-Attr")


def count_of(data: str, k: int) -> int:
    """Return how many features are chosen of a data set: 20 of Madelon, 10 of digits, else k.

    Example:
        >>> count_of("madelon", 50), count_of("Yale", 50)
        (20, 50)
    """
    return {"madelon": _MADELON, "small-madelon": _MADELON, "digits": 10}.get(data, k)


def trials(
    data: Sequence[str],
    chosen: Mapping[str, Column],
    *,
    splits: int,
    seeds: int,
    k: int = 50,
    protocol: Protocol = "fair",
    judges: tuple[str, ...] = ("svc", "logistic", "boosting"),
) -> Iterator[Select]:
    """Make trials, selector by selector.

    Args:
        data: names of data sets.
        chosen: selectors by name.
        splits: how many of the fair protocol's.
        seeds: of each split; one for selectors that draw nothing, and for the slowest.
        k: how many features, see :func:`count_of`.
        protocol: of splitting and scaling.
        judges: what learns from the chosen features; boosting does not learn from all of them,
            which takes it minutes.
    """
    for name, column in chosen.items():
        few = not column.seeded or (name in _ONE_SEED and protocol == "fair")
        for seed in range(1 if few else seeds):
            for split in range(splits):
                for one in data:
                    yield Select(
                        seed=seed,
                        data=one,
                        selector=name,
                        column=column,
                        k=count_of(one, k),
                        split=split,
                        protocol=protocol,
                        judges=tuple(j for j in judges if (name, j) != (ALL, "boosting")),
                    )


def _smoke(data: str | None) -> Sequence[Trial]:
    known = ("digits", "small-madelon")
    chosen = {name: column for name, column in columns(short=True).items() if name in _SMOKE}
    return list(trials(_only(data, known), chosen, splits=3, seeds=1, judges=("svc", "logistic")))


def _quick(data: str | None) -> Sequence[Trial]:
    return list(trials(_only(data, (*SETS, _FASHION)), columns(short=True), splits=5, seeds=3))


def _paper(data: str | None) -> Sequence[Trial]:
    sets = _only(data, SETS)
    found: list[Trial] = []
    for k in (_FIRST, *(k for k in COUNTS if k != _FIRST)):
        for one in sets:
            if k != _FIRST and count_of(one, k) == count_of(one, _FIRST):
                continue
            found += trials(
                (one,),
                _paper_columns(one, k),
                splits=1,
                seeds=10,
                k=k,
                protocol="paper",
                judges=("svc",),
            )
    return found


def _paper_columns(data: str, k: int) -> dict[str, Column]:
    """Return all columns, at the densities the paper chose; what does not depend on K once."""
    by_set, by_rigl = CHOSEN_SPARSITY[data]
    every = columns(short=False, densities=(round(1 - by_set, 2), round(1 - by_rigl, 2)))
    once = (ALL, MASKED, STORED)
    return {name: column for name, column in every.items() if k == _FIRST or name not in once}


def _only(data: str | None, known: Sequence[str]) -> Sequence[str]:
    check_data(data, known)
    return known if data is None else (data,)


PRESETS = {
    "smoke": Preset("a minute on two CPU cores (digits and generated Madelon)", _smoke),
    "quick": Preset(
        "about ten hours on two CPU cores, half of them for LassoNet, Boruta and STG if they are "
        "installed: the eleven sets and Fashion-MNIST, five splits, three seeds",
        _quick,
    ),
    "paper": Preset("days on two CPU cores: the paper's split, five counts, ten seeds", _paper),
}
