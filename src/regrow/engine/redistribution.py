"""Shares a whole number of units among layers, in proportion to weights and under caps."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["share_out"]


def share_out(total: int, weights: Sequence[float], caps: Sequence[int]) -> list[int]:
    """Share a number of units among layers in proportion to weights, none above its cap.

    A layer whose share exceeds its cap is filled, and what it leaves goes to the others in
    proportion again. Shares are rounded down; what remains goes to the largest remainders, equal
    ones in order.

    Args:
        total: units to share, at least 0.
        weights: one a layer, at least 0; if those that still have room are all 0, room decides.
        caps: most units each layer can take, at least 0.

    Returns:
        One number a layer; they sum to ``total``, or to the caps' sum if that is less.

    Raises:
        ValueError: an argument is negative or not finite, or lengths differ.

    Source: the residual loop of sparse momentum (Dettmers & Zettlemoyer 2019).

    Differs from it: the sum is exact, and layers may be filled to the last free unit instead of to
    99 % of them.

    Example:
        >>> share_out(10, [3.0, 1.0, 1.0], [100, 100, 1])
        [7, 2, 1]
    """
    if len(weights) != len(caps):
        raise ValueError(f"{len(weights)} weights, but {len(caps)} caps")
    if total < 0 or any(not (0 <= w < math.inf) for w in weights) or any(c < 0 for c in caps):
        raise ValueError(f"total={total}, weights={weights}, caps={caps}: none may be negative")
    largest = max(weights, default=0.0) or 1.0
    weights = [w / largest for w in weights]  # so that no sum overflows
    shares = [0] * len(caps)
    open_ = [i for i, cap in enumerate(caps) if cap > 0]
    left = total
    while open_ and left > 0:
        sum_ = sum(weights[i] for i in open_)
        room = sum(caps[i] for i in open_)
        quota = {i: left * (weights[i] / sum_ if sum_ else caps[i] / room) for i in open_}
        filled = [i for i in open_ if quota[i] >= caps[i]]
        # Nobody overflows: these are the final quotas, and only rounding is left.
        if not filled:
            return _largest_remainders(shares, quota, left)
        for i in filled:
            shares[i] = min(caps[i], left)
            left -= shares[i]
        open_ = [i for i in open_ if i not in filled]
    return shares


def _largest_remainders(shares: list[int], quota: dict[int, float], left: int) -> list[int]:
    for i, share in quota.items():
        shares[i] = math.floor(share)
    missing = left - sum(shares[i] for i in quota)
    # The index breaks ties, so that every process shares alike.
    by_remainder = sorted(quota, key=lambda i: (math.floor(quota[i]) - quota[i], i))
    for i in by_remainder[:missing]:
        shares[i] += 1
    return shares
