"""Stochastic depth: blocks that are left out, sample by sample, in training."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["leave_out"]


def leave_out(branch: Tensor, probability: float) -> Tensor:
    """Set the branch of a residual block to 0 for some samples: b · y / (1 - p), b ~ B(1 - p).

    Args:
        branch: what the block would add, shape (batch, ...).
        probability: of leaving a sample's branch out, from 0 to below 1.

    Returns:
        The branch, of the same mean.

    Source: Huang et al. 2016 (arXiv 1603.09382). Differs from the paper: kept branches are enlarged
    in training; there, all are made smaller in testing.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> leave_out(torch.ones(4), 0.5).tolist()
        [0.0, 2.0, 0.0, 0.0]
    """
    if not probability:
        return branch
    kept = torch.rand(len(branch), *(1,) * (branch.ndim - 1), device=branch.device) >= probability
    return branch * kept / (1 - probability)
