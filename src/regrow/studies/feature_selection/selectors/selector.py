"""A selector: chooses k features of a training part."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from regrow.machine import how_to_install

__all__ = ["Choice", "Selector", "best"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Args:
        features: indices, the best first.
        more: what else is known: ``flops`` of the fit, ``history`` of the importance.
    """

    features: Ints
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Selector(ABC):
    """A selector with its settings, which are its fields: they decide what a trial is.

    Attributes:
        seeded: whether the choice depends on the seed; else one seed is run.
        package: what must be installed besides regrow's own, if anything; its trials are part of a
            study all the same, and fail by its name where it is missing.
    """

    seeded: ClassVar[bool] = False
    package: ClassVar[str | None] = None

    def check_installed(self, name: str) -> None:
        """Check that the package that it needs is there.

        Args:
            name: of the selector, for the message.

        Raises:
            ImportError: it is not; the message names the command that installs it.
        """
        if self.package is not None and find_spec(self.package) is None:
            raise ImportError(
                f"selector {name!r} needs the package {self.package}, which is not installed: "
                + how_to_install(self.package, "selectors")
            )

    @abstractmethod
    def choose(self, X: Floats, y: Ints, k: int, seed: int) -> Choice:
        """Choose features.

        Args:
            X: standardised, (rows, features).
            y: labels 0 to C - 1.
            k: how many are wanted.
            seed: of everything random.
        """


def best(scores: npt.ArrayLike, k: int) -> Ints:
    """Return the indices of the k highest scores, the best first; ties go to the lower index.

    Args:
        scores: one a feature; NaN is the lowest.
        k: how many; all if there are fewer.

    Example:
        >>> best([0.1, float("nan"), 0.7, 0.7], 3).tolist()
        [2, 3, 0]
    """
    found = np.asarray(scores, float)
    order = np.argsort(-np.where(np.isnan(found), -np.inf, found), kind="stable")
    return np.asarray(order[:k], np.int64)
