"""Data sets of openml.org, downloaded and kept by scikit-learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from regrow.features.data.feature_set import FeatureSet, make_feature_set

__all__ = ["load_openml"]


def load_openml(
    data: int | str,
    *,
    version: int | None = None,
    target: str | None = None,
    regression: bool = False,
    cache: Path | None = None,
) -> FeatureSet:
    """Load a data set of openml.org, downloaded once (checksum and all) by scikit-learn.

    A file that is at hand is read by :func:`read_arff` or :func:`read_parquet`.

    Args:
        data: its number, or its name together with ``version``.
        version: of a data set given by name.
        target: the column of labels; None is the set's own.
        regression: keep the target's numbers instead of coding labels.
        cache: where it is kept; None is scikit-learn's own folder.

    Raises:
        ValueError: a name without a version, or a feature is text without an order.
        OSError: openml.org cannot be reached.
    """
    if isinstance(data, str) and version is None:
        raise ValueError(f"data={data!r}: say version= as well, or names change under your feet")
    from sklearn.datasets import fetch_openml  # noqa: PLC0415 (slow to import)

    bunch = fetch_openml(
        **({"data_id": data} if isinstance(data, int) else {"name": data, "version": version}),
        target_column=target or "default-target",
        data_home=str(cache) if cache else None,
        as_frame=False,
        parser="liac-arff",
    )
    return of_bunch(bunch, f"OpenML {data}", regression=regression)


def of_bunch(bunch: Any, where: str, *, regression: bool = False) -> FeatureSet:
    """Make a feature set of what ``fetch_openml(as_frame=False)`` returns."""
    if bunch.target is None:
        raise ValueError(f"{where}: it has no target; say target=, one of its columns")
    if text := [name for name in bunch.feature_names if (bunch.categories or {}).get(name)]:
        # scikit-learn codes such columns by the order of their values, which means nothing
        raise ValueError(f"{where}: feature {text[0]!r} is nominal; encode it first")
    X = bunch.data if sparse.issparse(bunch.data) else np.asarray(bunch.data, dtype=np.float64)
    return make_feature_set(
        str(bunch.details.get("name", where)) if bunch.details else where,
        X,
        bunch.target,
        where=where,
        regression=regression,
        feature_names=tuple(bunch.feature_names),
        source=where,
    )
