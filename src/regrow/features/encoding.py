"""Converts what scikit-learn is given (labels, weights, seeds, counts) for training."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from joblib import effective_n_jobs
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from torch import Tensor

from regrow.features.inputs import ROUNDED, Floats, unit_of, units
from regrow.features.targets import Values

__all__ = [
    "Encoding",
    "Task",
    "check_count",
    "generator_of",
    "smoothing_for",
    "split",
    "task_of",
    "threads",
]

Task = Literal["auto", "classification", "regression"]


_FEW = 20  # different whole numbers that "auto" takes for classes


def task_of(y: npt.NDArray[Any], task: Task) -> Literal["classification", "regression"]:
    """Tell what is to be predicted; "auto" tells it from the targets, or asks.

    Words and booleans are classes. Fractions are numbers, and so are several columns. Whole numbers
    are classes if there are at most 20 different ones; more may be either (26 letters, 28 ages).

    Raises:
        ValueError: "auto", and there are more than 20 different whole numbers.

    Example:
        >>> task_of(np.array([0.5, 1.0]), "auto"), task_of(np.array(["a", "b"]), "auto")
        ('regression', 'classification')
    """
    if task != "auto":
        return task
    if y.ndim == 2 and y.shape[1] > 1:
        return "regression"
    if y.dtype.kind == "f" and bool(np.any(y != np.floor(y))):
        return "regression"
    if y.dtype.kind in "iufmM" and (different := len(np.unique(y))) > _FEW:
        raise ValueError(
            f"task='auto': y holds {different} different whole numbers, which may be classes or "
            "amounts; say task='classification' or task='regression'"
        )
    return "classification"


@dataclass(frozen=True)
class Encoding:
    """How targets become numbers: classes by their order, numbers by mean and deviation.

    Args:
        classes: ascending; None where numbers are predicted.
        scale: mean and standard deviation of the numbers, each of shape (C,); None for classes.
        varied: whether there is anything to be told of the numbers.

    Example:
        >>> encoding = Encoding.of(np.array(["b", "a"]), "auto", np.ones(2))
        >>> encoding.values(np.array(["b", "b"]), np.ones(2)).values.tolist()
        [1, 1]
    """

    classes: npt.NDArray[Any] | None
    scale: tuple[Floats, Floats] | None = None
    varied: bool = True

    @classmethod
    def of(cls, y: npt.NDArray[Any], task: Task, weights: Floats, classes: Any = None) -> Self:
        """Learn it from targets; rows of weight zero do not count.

        Args:
            y: labels of shape (n,) or (n, 1), or numbers of shape (n,) or (n, C).
            task: what is predicted.
            weights: of the rows.
            classes: all there are, where not all may be seen at once.

        Raises:
            ValueError: there is only one class.
        """
        if task_of(y, task) == "regression":
            numbers, weights = _columns(y), weights * unit_of(weights)
            unit = units(np.abs(numbers).max(axis=0))
            mean = np.average(numbers * unit, axis=0, weights=weights)
            std = np.sqrt(np.average((numbers * unit - mean) ** 2, axis=0, weights=weights))
            varies = std > ROUNDED * np.abs(mean)
            return cls(None, (mean / unit, np.where(varies, std / unit, 1.0)), bool(varies.any()))
        labels = np.asarray(_flat(y)[weights > 0] if classes is None else classes)
        if len({str if isinstance(one, str) else float for one in labels.tolist()}) > 1:
            raise TypeError("y holds labels of several types: make all of them words, or none")
        check_classification_targets(y)
        known = np.unique(labels)
        if len(known) < 2:
            raise ValueError(
                "a selector needs samples of at least 2 classes in the data, but the data contains "
                f"only one class: {known[0]!r}; of numbers say task='regression', and of a part of "
                "a table all classes= there are"
            )
        return cls(known)

    def values(
        self, y: npt.NDArray[Any], weights: Floats, smoothing: float | Literal["auto"] = 0.0
    ) -> Values:
        """Return targets; labels are smoothed.

        Raises:
            ValueError: a label of weight above zero is not among the classes.
        """
        if self.scale is not None:
            numbers = (_columns(y) - self.scale[0]) / self.scale[1]
            return Values(torch.from_numpy(numbers.astype(np.float32)), numbers.shape[1])
        assert self.classes is not None
        labels, known = _flat(y), self.classes
        if unknown := set(labels[weights > 0].tolist()) - set(known.tolist()):
            raise ValueError(
                f"y holds {sorted(unknown)}, which are not among classes={known.tolist()}: give "
                "all classes at the first part, or task='regression' if these are numbers"
            )
        codes = np.searchsorted(known, labels).clip(max=len(known) - 1)
        if smoothing == "auto":
            smoothing = smoothing_for(np.count_nonzero(weights) / len(known))
        return Values(torch.from_numpy(codes.astype(np.int64)), len(known), smoothing)


def smoothing_for(rows: float) -> float:
    """Return how much labels are smoothed where there are m rows a class: 0.3·m/(m + 10).

    Example:
        >>> smoothing_for(10), round(smoothing_for(1e6), 3)
        (0.15, 0.3)
    """
    return 0.3 * rows / (rows + 10)


def _columns(y: npt.NDArray[Any]) -> Floats:
    return np.asarray(y, dtype=np.float64).reshape(len(y), -1)


def _flat(y: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y


def check_count(n_features_to_select: int | float | None, n_features: int) -> int | None:
    """Return how many of the features are wanted; None: that is to be found out.

    More than there are is all of them, and a warning, as in scikit-learn's own selectors.

    Example:
        >>> check_count(0.5, 9), check_count(3, 9)
        (4, 3)
    """
    wanted = n_features_to_select
    if wanted is None:
        return None
    if not isinstance(wanted, Integral):
        return max(int(wanted * n_features), 1)
    if wanted > n_features:
        warnings.warn(
            f"Found n_features_to_select={wanted} > n_features={n_features}. There will be no "
            "feature selection and all features will be kept.",
            UserWarning,
            stacklevel=3,
        )
    return min(int(wanted), n_features)


def split(groups: Tensor, weights: Floats, share: float, generator: torch.Generator) -> Tensor:
    """Draw rows to be held out: a share of each group's rows of weight above zero.

    A group of one row is not held out.

    Args:
        groups: int64 of at least 0, shape (n,): the rows' classes, or zeros.
        weights: of the rows.
        share: in (0, 1).
        generator: draws the rows.

    Returns:
        Ascending indices.

    Raises:
        ValueError: there are too few rows for any to be held out.

    Example:
        >>> groups = torch.tensor([0, 0, 1, 1])
        >>> groups[split(groups, np.ones(4), 0.5, torch.Generator())].tolist()
        [0, 1]
    """
    usable = torch.from_numpy(weights > 0)
    held_out = []
    for group in range(int(groups.max()) + 1):
        rows = (usable & (groups == group)).nonzero().squeeze(1)
        count = round(share * len(rows)) if len(rows) > 1 else 0
        held_out.append(rows[torch.randperm(len(rows), generator=generator)[:count]])
    drawn = torch.cat(held_out).sort().values
    if not len(drawn):
        raise ValueError(
            f"validation_fraction={share} of {int(usable.sum())} rows is none: give more rows, an "
            "int for n_features_to_select, and early_stopping=False"
        )
    return drawn


def generator_of(random_state: int | np.random.RandomState | None) -> torch.Generator:
    """Make a generator of scikit-learn's ``random_state``; None takes fresh entropy.

    No global generator is moved, numpy's neither, which is what scikit-learn's None stands for.

    Example:
        >>> generator_of(3).initial_seed()
        3
    """
    if random_state is None:
        seed = int(np.random.default_rng().integers(2**31))
    elif isinstance(random_state, Integral):
        seed = int(random_state)
    else:
        seed = int(check_random_state(random_state).randint(2**31 - 1))
    return torch.Generator().manual_seed(seed)


@contextmanager
def threads(n_jobs: int | None) -> Iterator[None]:
    """Let torch use this many threads for a while: -1 all cores, None one (or joblib's choice).

    Example:
        >>> before = torch.get_num_threads()
        >>> with threads(1):
        ...     torch.get_num_threads()
        1
        >>> torch.get_num_threads() == before
        True
    """
    before = torch.get_num_threads()
    torch.set_num_threads(effective_n_jobs(n_jobs))
    try:
        yield
    finally:
        torch.set_num_threads(before)
