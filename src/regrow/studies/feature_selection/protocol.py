"""How a data set is split and scaled: as the paper did, or more fairly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # scikit-learn is not needed to list the studies
    from regrow.features.data import FeatureSet

__all__ = ["TEST_SHARE", "Parts", "Protocol", "parts"]

Protocol = Literal["fair", "paper"]

TEST_SHARE = 0.3  # of the fair protocol
_PAPER_TEST, _PAPER_SEED = 0.2, 42
_OFFICIAL_TRAIN = {"madelon": 2000}  # rows of the official training part, which come first
_MIN_MAX = ("COIL20",)


@dataclass(frozen=True)
class Parts:
    """A data set, split and scaled by what the training part knows.

    Args:
        X_train: float64 of shape (rows, features).
        y_train: labels.
        X_test: in the scale of the training part.
        y_test: labels.
    """

    X_train: npt.NDArray[np.float64]
    y_train: npt.NDArray[np.int64]
    X_test: npt.NDArray[np.float64]
    y_test: npt.NDArray[np.int64]


def parts(data: FeatureSet, protocol: Protocol, split: int = 0) -> Parts:
    """Split and scale a data set.

    Args:
        data: to be split.
        protocol: "fair": 70 % to train on, stratified, standardised. "paper": 80 % to train on,
            one split that is not stratified, Madelon's official one; standardised, COIL20 between 0
            and 1.
        split: which of the fair protocol's splits; the paper has one.

    Source: Atashgahi et al. 2024, public code: ``train_test_split(random_state=42)``.

    Differs from the paper: unverified whether the rows of its COIL20 have the same order.
    """
    from sklearn.preprocessing import MinMaxScaler, StandardScaler  # noqa: PLC0415

    X = data.X.toarray() if hasattr(data.X, "toarray") else data.X
    train, test = _rows(data, protocol, split)
    min_max = protocol == "paper" and data.name in _MIN_MAX
    scaler: Any = MinMaxScaler() if min_max else StandardScaler()
    scaled = scaler.fit_transform(X[train].astype(np.float64))
    return Parts(
        scaled,
        data.y[train],
        np.asarray(scaler.transform(X[test].astype(np.float64))),
        data.y[test],
    )


def _rows(data: FeatureSet, protocol: Protocol, split: int) -> Any:
    from sklearn.model_selection import train_test_split  # noqa: PLC0415

    every = np.arange(len(data.y))
    if protocol == "fair":
        return train_test_split(every, test_size=TEST_SHARE, stratify=data.y, random_state=split)
    if data.name in _OFFICIAL_TRAIN:
        return np.split(every, [_OFFICIAL_TRAIN[data.name]])
    return train_test_split(every, test_size=_PAPER_TEST, random_state=_PAPER_SEED)
