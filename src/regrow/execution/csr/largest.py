"""Finds the k largest entries of a product yᵀ x without writing the product down."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from regrow.engine.selection import top_k
from regrow.execution.csr.dispatch import kernels
from regrow.execution.growth import require_finite

__all__ = ["highest_of_product"]

_SPARE = 1 << 20  # entries beyond those expected that there is room for
_SAMPLED, _LEAST = (
    256,
    32,
)  # rows, and columns, of the part that is looked at first; its lowest rank


def highest_of_product(y: Tensor, x: Tensor, k: int, taken: Tensor) -> Tensor | None:
    """Return the k entries of yᵀ x largest in magnitude but those taken, ascending.

    Among equal ones, those at lower positions. A small part of the product gives a bound; only what
    exceeds it is ever written down.

    Args:
        y: [batch, rows], feature-major.
        x: [batch, columns], feature-major.
        k: how many, at most those not taken.
        taken: ascending int32 flat positions that cannot be chosen.

    Returns:
        Int32 tensor of flat positions; None if no bound was found that leaves k but not many more.

    Raises:
        FloatingPointError: a value is NaN or infinite.
    """
    # A bound that lets a little more than k pass; if it was too high, one that is lower by far.
    for margin in (1.3, 4.0):
        bound = _likely_bound(y, x, margin * k / (y.shape[1] * x.shape[1]))
        count, positions, values = kernels().above(y, x, bound, int(4 * margin * k) + _SPARE)
        # More than there is room for: the sample misled, and row by row is the safe way.
        if count and not len(values):
            return None
        free = (kernels().locate(taken, positions)[0] < 0).nonzero().squeeze(1)
        if len(free) < k:
            continue
        values = values[free]
        require_finite(values.max())
        chosen: Tensor = positions[free[top_k(values, k)]]
        return chosen
    return None


def _likely_bound(y: Tensor, x: Tensor, share: float) -> float:
    """Return a magnitude that about this share of the entries of yᵀ x exceeds."""
    # Spread over all rows and columns, since neighbours may be alike.
    y, x = (t[:, :: -(-t.shape[1] // _SAMPLED)] for t in (y, x))
    sample = torch.mm(y.t(), x).abs_().flatten()
    require_finite(sample.max())
    rank = min(int(share * len(sample)) + _LEAST, len(sample))
    return float(np.partition(sample.numpy(), -rank)[-rank])
