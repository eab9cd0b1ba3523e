"""What is run: selectors, data sets, splits and seeds, and the sizes of the study."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import product

from regrow.lab.design import Labelled, Labels
from regrow.lab.study import Preset
from regrow.studies.feature_selection.protocol import Protocol
from regrow.studies.feature_selection.published import CHOSEN_SPARSITY
from regrow.studies.feature_selection.selectors import (
    ALL,
    MASKED,
    OURS,
    RANDOM,
    STORED,
    Selector,
    all_selectors,
)
from regrow.studies.feature_selection.trial import JUDGES, Select

__all__ = ["COUNTS", "FASHION", "PRESETS", "SETS", "K", "count_of", "trials"]

SETS = (
    *("lymphoma", "Yale", "Prostate-GE", "arcene", "ORL", "madelon", "Isolet", "COIL20"),
    *("RELATHE", "PCMAC", "BASEHOCK"),
)
"""The eleven data sets, small ones first."""

FASHION = "fashion-mnist"  # beside the eleven
K = 100  # features, in the paper's tables
COUNTS = (25, 50, 75, K, 200)
_SMOKE = (RANDOM, ALL, "f_classif", "L1", "ExtraTrees", OURS, "SET-Attr")
_ONE_SEED = ("Boruta", "STG", "LassoNet", MASKED, STORED)


def count_of(data: str, k: int) -> int:
    """Return how many features are chosen of a data set: 20 of Madelon, 10 of digits, else k.

    Example:
        >>> count_of("madelon", 50), count_of("Yale", 50)
        (20, 50)
    """
    return {"madelon": 20, "small-madelon": 20, "digits": 10}.get(data, k)


def trials(
    data: str,
    chosen: Mapping[str, Selector],
    *,
    seeds: int,
    splits: int = 0,
    k: int = 50,
    judges: tuple[str, ...] = tuple(JUDGES),
) -> Iterator[Labelled]:
    """Run selectors on a data set, one after the other.

    Args:
        data: the data set's name.
        chosen: selectors by name.
        seeds: of each split; one for selectors that draw nothing, and for the slowest of the fair
            protocol.
        splits: of the fair protocol; 0: the paper's protocol, which has one and no label for it.
        k: how many features, see :func:`count_of`.
        judges: what learns from the chosen features; boosting does not learn from all of them,
            which takes it minutes.
    """
    protocol: Protocol = "fair" if splits else "paper"
    for name, selector in chosen.items():
        one_seed = not selector.seeded or (splits and name in _ONE_SEED)
        base = Select(
            seed=0,
            data=data,
            selector=name,
            column=selector,
            k=count_of(data, k),
            protocol=protocol,
            judges=tuple(judge for judge in judges if (name, judge) != (ALL, "boosting")),
        )
        labels: Labels = {"task": data, "arm": name, "protocol": protocol, "k": base.k}
        for seed, split in product(range(1 if one_seed else seeds), range(splits or 1)):
            own = {"split": split} if splits else {}
            yield Labelled({**labels, **own}, replace(base, seed=seed, split=split))


def _smoke(data: str) -> Iterator[Labelled]:
    chosen = {name: one for name, one in all_selectors(short=True).items() if name in _SMOKE}
    return trials(data, chosen, splits=3, seeds=1, judges=("svc", "logistic"))


def _quick(data: str) -> Iterator[Labelled]:
    return trials(data, all_selectors(short=True), splits=5, seeds=3)


def _paper(data: str) -> Iterator[Labelled]:
    """Yield the paper's grid at the densities it chose, its tables' K first.

    What does not depend on K is run at that one alone.
    """
    by_set, by_rigl = CHOSEN_SPARSITY[data]
    every = all_selectors(short=False, densities=(round(1 - by_set, 2), round(1 - by_rigl, 2)))
    yield from trials(data, every, seeds=10, k=K, judges=("svc",))
    some = {name: one for name, one in every.items() if name not in (ALL, MASKED, STORED)}
    for k in COUNTS:
        if k != K and count_of(data, k) != count_of(data, K):
            yield from trials(data, some, seeds=10, k=k, judges=("svc",))


PRESETS = {
    "smoke": Preset(
        "a minute on two CPU cores (digits and generated Madelon)",
        {data: partial(_smoke, data) for data in ("digits", "small-madelon")},
        judges=False,
    ),
    "quick": Preset(
        "about ten hours on two CPU cores, half of them for LassoNet, Boruta and STG: the eleven "
        "sets and Fashion-MNIST, five splits, three seeds; trials of selectors whose package is "
        "not installed fail by its name",
        {data: partial(_quick, data) for data in (*SETS, FASHION)},
    ),
    "paper": Preset(
        "days on two CPU cores: the paper's split, five counts, ten seeds",
        {data: partial(_paper, data) for data in SETS},
    ),
}
