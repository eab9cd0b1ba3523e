"""Stability of feature selection: how similar the sets chosen on several splits or seeds are."""

from __future__ import annotations

from collections.abc import Collection

__all__ = ["jaccard", "kuncheva"]

Chosen = Collection[int]


def jaccard(one: Chosen, other: Chosen) -> float:
    """Compute the Jaccard index of two sets of features, |A ∩ B| / |A ∪ B|.

    Args:
        one: indices of features; each counts once.
        other: indices of features.

    Returns:
        From 0 (nothing in common) to 1; two empty sets are alike.

    Example:
        >>> jaccard([0, 1, 2], [1, 2, 3])
        0.5
    """
    a, b = set(one), set(other)
    return len(a & b) / len(a | b) if a | b else 1.0


def kuncheva(one: Chosen, other: Chosen, n_features: int) -> float:
    """Compute Kuncheva's consistency index, (r d - k²) / (k (d - k)) with r = |A ∩ B|.

    It is 0 on average for sets drawn at random, whatever their size.

    Args:
        one: k indices of features.
        other: as many indices.
        n_features: d, all features there are.

    Returns:
        Up to 1, for equal sets; not below -1. Where all features or none are selected nothing is
        chosen, and the index is 0.

    Raises:
        ValueError: the sets differ in size, or hold what is no feature.

    Example:
        >>> kuncheva([0, 1], [0, 2], 10)
        0.375

    Source: Kuncheva 2007, A stability index for feature selection.
    """
    a, b = set(one), set(other)
    if len(a) != len(b):
        raise ValueError(f"sets of {len(a)} and {len(b)} features: the index is of equal sizes")
    if wrong := [index for index in a | b if not 0 <= index < n_features]:
        raise ValueError(f"feature {wrong[0]}: there are {n_features}, counted from 0")
    k = len(a)
    if k in (0, n_features):
        return 0.0
    return (len(a & b) * n_features - k * k) / (k * (n_features - k))
