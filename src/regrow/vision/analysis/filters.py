"""Measures of convolution kernels: how many remain, how large, how varied.

A kernel is what joins one input channel to one output channel: one of out × in parts of a
convolution's weight, of any number of dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = [
    "effective_filter_sizes",
    "remaining_kernels",
    "singular_value_entropy",
]


def remaining_kernels(weights: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the share of kernels with an active weight, by layer and in ``"total"``.

    share = |{(o, i): Σ_k mask[o, i, k] > 0}| / (out · in)

    Source: spatial analysis of Wu et al., ICLR 2025 (arXiv 2410.03030), as read in public code of
    its authors (github.com/QiaoXiao7282/hard_sample_learners); the paper itself was not read.

    Args:
        weights: by name, masks such as ``sparse.masks``, or weights of which 0 is inactive, such as
            ``dict(model.named_parameters())``. Convolutions, shape (out, in, *kernel), are looked
            at; what has fewer than three dimensions is skipped.

    Raises:
        ValueError: no weight is of a convolution, or one is empty.

    Example:
        >>> mask = torch.zeros(2, 2, 3, 3).bool()
        >>> mask[0, 0, 1] = True
        >>> remaining_kernels({"conv.weight": mask, "linear.weight": torch.ones(4, 4).bool()})
        {'conv.weight': 0.25, 'total': 0.25}
    """
    active = {name: _active(weight) > 0 for name, weight in _convolutions(weights).items()}
    counts = {name: int(each.sum()) for name, each in active.items()}
    shares = {name: counts[name] / each.numel() for name, each in active.items()}
    total = sum(each.numel() for each in active.values())
    return shares | {"total": sum(counts.values()) / total}


def effective_filter_sizes(weights: Mapping[str, Tensor]) -> dict[str, list[int]]:
    """Count kernels by how many of their weights are active, by layer and in ``"total"``.

    sizes[j] = |{(o, i): Σ_k mask[o, i, k] = j}|, j = 0 … number of a kernel's weights

    Source: as :func:`remaining_kernels`.

    Args:
        weights: as of :func:`remaining_kernels`.

    Returns:
        Counts of kernels with 0, 1, … active weights. The total is as long as the longest: it adds
        kernels of different sizes.

    Raises:
        ValueError: no weight is of a convolution, or one is empty.

    Example:
        >>> mask = torch.tensor([[[True, True, False]], [[False, False, False]]])
        >>> effective_filter_sizes({"conv.weight": mask})
        {'conv.weight': [1, 0, 1, 0], 'total': [1, 0, 1, 0]}
    """
    sizes = {
        name: torch.bincount(_active(weight), minlength=weight[0, 0].numel() + 1).cpu()
        for name, weight in _convolutions(weights).items()
    }
    total = torch.zeros(max(map(len, sizes.values())), dtype=torch.long)
    for counts in sizes.values():
        total[: len(counts)] += counts
    return {name: counts.tolist() for name, counts in sizes.items()} | {"total": total.tolist()}


def singular_value_entropy(weight: Tensor, *, normalized: bool = False) -> float:
    """Return the entropy of what the principal patterns of a layer's kernels explain.

    H = -Σ_i p_i log₁₀ p_i,  p_i = σ_i² / Σ_j σ_j²

    where σ are the singular values of the (out · in) × k matrix of kernels less their mean. 0: all
    kernels are one pattern, more or less of it; log₁₀ k: as varied as noise. Normalized, of n =
    out · in kernels of 3×3,

    H / H_n,  H_n = l / (1 + exp(-κ (log₂ n - x₀))) + b

    Source: Gavrikov and Keuper, CVPR 2022 (arXiv 2203.15331): variance entropy. The formula and (l,
    x₀, κ, b) = (1.2618047, 2.30436435, 0.88767525, -0.31050834) were read in public code that
    follows them (github.com/QiaoXiao7282/hard_sample_learners); the paper itself was not read.
    That H_n is about the least entropy of n random kernels is a remark in such code, unverified.

    Differs from the source: kernels need not be 3×3 unless normalized. Equal kernels, a single one
    among them, have an entropy of 0; so have two. H_n is negative for fewer than three.

    Args:
        weight: of a convolution, shape (out, in, *kernel); its kernels of zeros count.
        normalized: divide by H_n; its constants are for 3×3 kernels.

    Raises:
        ValueError: it is no convolution's, is empty or not finite, or is to be normalized and its
            kernels are not 3×3.

    Example:
        >>> one = torch.zeros(9, 1, 3, 3)
        >>> one[0] = 1
        >>> singular_value_entropy(one)
        0.0
        >>> varied = torch.cat([torch.eye(9), -torch.eye(9)]).view(18, 1, 3, 3)
        >>> round(singular_value_entropy(varied), 3)  # log₁₀ 9
        0.954
    """
    kernels = _kernels(weight)
    if normalized and weight.shape[2:] != (3, 3):
        raise ValueError(
            f"weight of shape {tuple(weight.shape)}: only kernels of 3×3 can be normalized"
        )
    centred = kernels - kernels.mean(0)
    squares = torch.linalg.eigvalsh(centred.T @ centred)  # of the singular values: k, not out · in
    # Below these a square is what rounding has left, of the mean and of the largest.
    eps = torch.finfo(kernels.dtype).eps
    mean = (eps * max(kernels.shape) * float(kernels.abs().max())) ** 2
    variance = squares[squares > max(mean, eps * kernels.shape[1] * float(squares[-1]))]
    if len(variance) <= 1:
        return 0.0
    entropy = float(torch.special.entr(variance / variance.sum()).sum()) / math.log(10)
    return entropy / _normalizer(len(kernels)) if normalized else entropy


def _normalizer(n: int) -> float:
    return 1.2618047 / (1 + math.exp(-0.88767525 * (math.log2(n) - 2.30436435))) - 0.31050834


def _convolutions(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    convolutions = {name: weight for name, weight in weights.items() if weight.ndim >= 3}
    if not convolutions:
        raise ValueError(
            f"weights of {', '.join(weights) or 'nothing'}: none is of a convolution, which has "
            "three dimensions at least (out, in, *kernel)"
        )
    for name, weight in convolutions.items():
        _check_filled(f"weights[{name!r}]", weight)
    return convolutions


def _active(weight: Tensor) -> Tensor:
    """Count the active weights of each kernel, shape (out · in,)."""
    return (weight.detach() != 0).flatten(2).sum(2).flatten()


def _kernels(weight: Tensor) -> Tensor:
    """Return a kernel a row, in float64."""
    if weight.ndim < 3:
        raise ValueError(
            f"weight of shape {tuple(weight.shape)}: must be a convolution's, (out, in, *kernel)"
        )
    _check_filled("weight", weight)
    kernels = weight.detach().double().flatten(2).flatten(0, 1)
    if not kernels.isfinite().all():
        raise ValueError("weight holds NaN or infinity: must be finite")
    return kernels


def _check_filled(argument: str, weight: Tensor) -> None:
    if not weight.numel():
        raise ValueError(f"{argument} of shape {tuple(weight.shape)}: must hold some weights")
