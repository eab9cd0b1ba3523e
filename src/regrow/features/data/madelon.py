"""Generates Madelon: a few features decide the label, but only together, among noise."""

from __future__ import annotations

import numpy as np

from regrow.features.data.feature_set import FeatureSet

__all__ = ["make_madelon"]

_MOST = 16  # informative features: there are 2^16 corners then


def make_madelon(
    n_samples: int = 2600,
    n_features: int = 500,
    *,
    n_informative: int = 5,
    n_redundant: int = 15,
    separation: float = 2.0,
    flip: float = 0.01,
    shuffle: bool = True,
    seed: int = 0,
) -> FeatureSet:
    """Draw a data set like Madelon: clusters on the corners of a cube, half of them of each class.

    x = [s V_c + e, (s V_c + e) A, z] with corners V in {-1, 1}^i, c uniform, e and z ~ N(0, 1),
    A ~ U(-1, 1)^(i, r); the label of a row is that of its corner. Labels are dealt to the 2^i
    corners at random, as many of each, so that no one feature, and no plane, tells the classes.

    Args:
        n_samples: rows.
        n_features: columns; those that are neither informative nor redundant are noise.
        n_informative: coordinates of the cube, 2 to 16.
        n_redundant: random linear combinations of the informative columns.
        separation: half the distance of neighbouring corners, in standard deviations.
        flip: share of the labels that are drawn anew, 0 to 1; half of them stay what they were.
        shuffle: put the columns into random order. Else informative ones come first, then redundant
            ones, and whatever breaks ties by index finds them.
        seed: of everything random.

    Returns:
        float32 features; ``relevant`` names the informative and redundant columns, ascending.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> found = make_madelon(100, 30, seed=1)
        >>> found.X.shape, len(found.relevant)
        ((100, 30), 20)

    Source: Guyon 2003, Design of experiments of the NIPS 2003 variable selection benchmark.

    Differs from the paper: no scaling, shifting or rounding of the columns, none of which matters
    after standardisation, and no repeated columns. ``sklearn.datasets.make_classification``, which
    was adapted from the same program, deals classes to the corners by turns: one bit of a corner's
    number is its class, so one plane separates them.
    """
    _check(n_samples, n_features, n_informative, n_redundant, separation, flip)
    rng = np.random.default_rng(seed)
    corners = np.array(np.meshgrid(*[(-1.0, 1.0)] * n_informative)).reshape(n_informative, -1).T
    classes = rng.permutation(np.arange(len(corners)) % 2)
    corner = rng.integers(len(corners), size=n_samples)
    informative = separation * corners[corner] + rng.normal(size=(n_samples, n_informative))
    redundant = informative @ rng.uniform(-1, 1, (n_informative, n_redundant))
    known = n_informative + n_redundant
    noise = rng.normal(size=(n_samples, n_features - known))
    drawn_anew = rng.random(n_samples) < flip
    labels = np.where(drawn_anew, rng.integers(2, size=n_samples), classes[corner])
    order = rng.permutation(n_features) if shuffle else np.arange(n_features)
    return FeatureSet(
        name="made-madelon",
        X=np.hstack([informative, redundant, noise])[:, order].astype(np.float32),
        y=labels.astype(np.int64),
        labels=(0, 1),
        relevant=tuple(np.flatnonzero(order < known).tolist()),
        source=f"generated like Madelon (Guyon 2003), seed {seed}",
    )


def _check(rows: int, d: int, informative: int, redundant: int, sep: float, flip: float) -> None:
    if rows < 1:
        raise ValueError(f"n_samples={rows}: must be at least 1")
    if not 2 <= informative <= _MOST:
        raise ValueError(f"n_informative={informative}: must be from 2 to {_MOST}")
    if redundant < 0 or d < informative + redundant:
        raise ValueError(
            f"n_features={d}: {informative} informative and {redundant} redundant ones need "
            f"{informative + max(redundant, 0)}, and n_redundant must not be negative"
        )
    if not sep > 0:
        raise ValueError(f"separation={sep}: must be positive")
    if not 0 <= flip <= 1:
        raise ValueError(f"flip={flip}: must be from 0 to 1")
