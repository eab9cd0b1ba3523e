"""The optimal brain surgeon, column by column: the arithmetic of SparseGPT."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["inverse_factor", "prune_columns"]


def prune_columns(
    weight: Tensor,
    products: Tensor,
    choose: Callable[[Tensor], Tensor],
    width: int,
    damping: float,
    columns: int = 128,
) -> tuple[Tensor, Tensor]:
    """Prune matrices column by column; each weight that goes changes those behind it in its row.

    Args:
        weight: float32 or float64, shape (parts, rows, in).
        products: Σ x·xᵀ of what each part multiplies, shape (parts, in, in); of the same dtype.
        choose: returns which weights of the next columns are kept, given what each would cost;
            both of shape (parts·rows, width).
        width: for how many columns it is asked at a time; fewer at the end.
        damping: λ as a share of the mean of the diagonal.
        columns: how many are worked off before all behind them are changed at once; it changes
            nothing but speed.

    Returns:
        The new matrices and the bool masks of what is kept.

    Raises:
        ValueError: the products cannot be inverted.

    Example:
        >>> w, h = torch.ones(1, 1, 2), torch.tensor([[[5.0, 5.0], [5.0, 5.0]]])
        >>> first = lambda cost: torch.tensor([[False, True]])
        >>> new, kept = prune_columns(w, h, first, 2, 1e-3, 2)
        >>> round(new[0, 0, 1].item(), 2), kept.tolist()
        (2.0, [[[False, True]]])
    """
    parts, rows, n = weight.shape
    weight = weight.clone()
    factor, dead = inverse_factor(products, damping)
    kept = torch.zeros_like(weight, dtype=torch.bool)
    at_once = width * max(1, columns // width)
    for start in range(0, n, at_once):
        stop = min(start + at_once, n)
        own, square = weight[:, :, start:stop].clone(), factor[:, start:stop, start:stop]
        diagonal, errors = square.diagonal(dim1=1, dim2=2), torch.zeros_like(own)
        for j in range(stop - start):
            if j % width == 0:
                some = slice(j, min(j + width, stop - start))
                cost = (own[:, :, some] / diagonal[:, None, some]).square()
                cost = cost.masked_fill(dead[:, None, start:stop][:, :, some], 0)
                chosen = choose(cost.flatten(0, 1))
                kept[:, :, start + j : start + some.stop] = chosen.reshape(parts, rows, -1)
            gone = own[:, :, j].masked_fill(kept[:, :, start + j], 0)
            error = gone / diagonal[:, j : j + 1]
            own[:, :, j:] -= error.unsqueeze(2) * square[:, j : j + 1, j:]
            errors[:, :, j] = error
        weight[:, :, start:stop] = own.masked_fill(~kept[:, :, start:stop], 0)
        weight[:, :, stop:] -= errors @ factor[:, start:stop, stop:]
    return weight, kept


def inverse_factor(products: Tensor, damping: float) -> tuple[Tensor, Tensor]:
    """Return U with UᵀU = H⁻¹, and which inputs were always zero.

    U is upper triangular: Uⱼⱼ² is the j-th diagonal entry, and Uⱼⱼ·Uⱼ the j-th row, of the inverse
    of H without the columns before j. So one factor serves all columns.

    Args:
        products: Σ x·xᵀ, shape (parts, in, in).
        damping: what is added to the diagonal, as a share of its mean over inputs that are not
            always zero.

    Raises:
        ValueError: the products cannot be inverted.

    Example:
        >>> factor, dead = inverse_factor(torch.tensor([[[4.0, 0.0], [0.0, 0.0]]]), 1e-6)
        >>> [round(x, 2) for x in factor[0].diagonal().tolist()], dead.tolist()
        ([0.5, 0.5], [[False, True]])
    """
    diagonal = products.diagonal(dim1=1, dim2=2)
    dead = diagonal == 0
    live = (~dead).sum(1, keepdim=True)
    mean = torch.where(live > 0, diagonal.sum(1, keepdim=True) / live.clamp(min=1), 1.0)
    lifted = torch.where(dead, mean, diagonal) + damping * mean
    for dtype in dict.fromkeys((products.dtype, torch.float64)):  # slow on most GPUs
        h = products.to(dtype, copy=True)
        h.diagonal(dim1=1, dim2=2).copy_(lifted)
        lower, wrong = torch.linalg.cholesky_ex(h)
        if bool((wrong == 0).all()):
            upper, wrong = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
            if bool((wrong == 0).all()) and bool(upper.isfinite().all()):
                return upper.to(products.dtype), dead
    raise ValueError(
        f"damping={damping}: the products of what a layer sees cannot be inverted; raise it, to "
        f"{10 * damping:g} perhaps, or give more calibration data"
    )
