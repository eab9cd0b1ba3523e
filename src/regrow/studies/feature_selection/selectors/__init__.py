"""The study's selectors, by the names a reader knows."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from regrow.studies.feature_selection.selectors.filters import L1, Chance, Everything, Univariate
from regrow.studies.feature_selection.selectors.nets import Family, Ours
from regrow.studies.feature_selection.selectors.peers import FastCan, LassoNet, StochasticGates
from regrow.studies.feature_selection.selectors.selector import Choice, Selector, best
from regrow.studies.feature_selection.selectors.trees import Boruta, Forest, LightGBM

__all__ = [
    "ALL",
    "BASELINES",
    "FAMILY",
    "MASKED",
    "OURS",
    "RANDOM",
    "STORED",
    "Choice",
    "Selector",
    "all_selectors",
    "best",
]

OURS, RANDOM, ALL = "ours", "random", "all features"

BASELINES: Mapping[str, Selector] = MappingProxyType(
    {
        "f_classif": Univariate("f_classif"),
        "mutual information": Univariate("mutual_info"),
        "L1": L1(),
        "fastcan": FastCan(),
        "ExtraTrees": Forest(),
        "ExtraTrees, discounted": Forest(discount=True),
        "LightGBM": LightGBM(),
        "Boruta": Boruta(),
        "STG": StochasticGates(),
        "LassoNet": LassoNet(),
    }
)
"""What others would use."""

_SLOW = ("Boruta", "STG", "LassoNet")

FAMILY = ("SET-Attr", "SET-QS", "RigL-Attr", "Dense-Attr", "QuickSelection", "WAST", "NeuroFS")
"""The literature on sparse networks."""

MASKED, STORED = "SET-Attr 0.05", "SET-Attr 0.05, csr"
"""The same network at density 0.05: dense tensors under masks; active weights only."""


def all_selectors(short: bool, densities: tuple[float, float] = (0.2, 0.2)) -> dict[str, Selector]:
    """Return all selectors, the slowest last: the same on every machine, whatever is installed.

    Args:
        short: train the family for fewer epochs than its papers do: 30 for 100 or 200.
        densities: of Neuron Attribution's networks, by SET and by RigL.
    """
    attr, others, every = (30, 30, 5) if short else (200, 100, 1)

    def attribution(**more: object) -> Family:
        return Family("Neuron Attribution", attr, score_every=every, **more)  # type: ignore[arg-type]

    return {
        RANDOM: Chance(),
        ALL: Everything(),
        **{name: selector for name, selector in BASELINES.items() if name not in _SLOW},
        OURS: Ours(),
        "SET-Attr": attribution(density=densities[0]),
        "SET-QS": attribution(density=densities[0], importance="strength"),
        "RigL-Attr": attribution(density=densities[1], method="RigL"),
        "Dense-Attr": attribution(method="dense"),
        "QuickSelection": Family("QuickSelection", others),
        "WAST": Family("WAST", 10),
        "NeuroFS": Family("NeuroFS", others),
        MASKED: attribution(density=0.05),
        STORED: attribution(density=0.05, execution="csr"),
        **{name: BASELINES[name] for name in _SLOW},
    }
