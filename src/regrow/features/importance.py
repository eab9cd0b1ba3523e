"""Importance of a network's inputs: strength and attribution.

Pure functions of weights and activations; higher is worth more.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = [
    "attribution",
    "gram_attribution",
    "sampled_attribution",
    "strength",
]


def strength(weight: Tensor) -> Tensor:
    """Σᵢ |wᵢⱼ|: how strongly each input is connected.

    Args:
        weight: of the first layer, shape (h, d).

    Returns:
        Shape (d,).

    Source: QuickSelection (Atashgahi et al. 2022, Machine Learning 111).

    Example:
        >>> strength(torch.tensor([[1.0, 0.0], [-2.0, 0.5]])).tolist()
        [3.0, 0.5]
    """
    return weight.abs().sum(0)


def attribution(
    weights: Sequence[Tensor], active: Sequence[Tensor], *, probabilities: Tensor | None = None
) -> Tensor:
    """Σ_c mean_x |∂f_c/∂x_j|: neuron attribution of one batch.

    Classes are taken one at a time, so that memory grows with B·d and not with B·C·d.

    Args:
        weights: of the linear layers from input to output, each of shape (out, in).
        active: for each hidden layer, shape (B, units): 1 where a unit is active, else 0.
        probabilities: softmax of the outputs, shape (B, C), to attribute it in place of the logits:
            ∂p_c/∂x = p_c (J_c - Σ_k p_k J_k).

    Returns:
        Shape (d,).

    Source: Atashgahi et al. 2024 (arXiv 2408.04583), eq. 4.

    Differs from the released code, which attributes a softmax over the batch: here it is the
    outputs that are trained, or their softmax over classes.

    Example:
        >>> w1, w2 = torch.tensor([[1.0, -2.0]]), torch.tensor([[1.0], [3.0]])
        >>> attribution([w1, w2], [torch.tensor([[1.0], [0.0]])]).tolist()
        [2.0, 4.0]
    """
    *hidden, last = weights
    total = last.new_zeros(weights[0].shape[1])
    for c, row in enumerate(last):
        if probabilities is not None:
            row = probabilities[:, c : c + 1] * (row - probabilities @ last)  # noqa: PLW2901
        top = row.expand(len(active[0]) if active else 1, len(last[c])).unsqueeze(1)
        total += _pushed_down(top, hidden, active).squeeze(1).abs().mean(0)
    return total


def sampled_attribution(
    weights: Sequence[Tensor], active: Sequence[Tensor], generator: torch.Generator
) -> Tensor:
    """mean_x (Σ_c v_c ∂f_c/∂x_j)² with random signs v: Σ_c mean_x (∂f_c/∂x_j)² on average.

    One backward pass, however many classes there are. E[v vᵀ] = 1, so the mean is right; it is an
    estimate of squares, and not of the magnitudes of :func:`attribution`.

    Args:
        weights: of the linear layers from input to output, each of shape (out, in).
        active: for each hidden layer, shape (B, units): 1 where a unit is active, else 0.
        generator: a CPU generator; draws v for each row.

    Returns:
        Shape (d,).

    Example:
        >>> w = torch.tensor([[1.0, -2.0]])
        >>> sampled_attribution([w], [], torch.Generator()).tolist()
        [1.0, 4.0]
    """
    *hidden, last = weights
    rows = len(active[0]) if active else 1
    signs = torch.randint(2, (rows, len(last)), generator=generator).to(last) * 2 - 1
    return _pushed_down((signs @ last).unsqueeze(1), hidden, active).squeeze(1).square().mean(0)


def gram_attribution(
    first: Tensor, active: Tensor, second: Tensor, *, centred: bool = True
) -> Tensor:
    """√(mean_x Σ_c (∂f_c/∂x_j)²) of networks with one hidden layer, exact.

    a_j = √(w_jᵀ Q w_j) with Q = (DᵀD / B) ∘ (W̄ W̄ᵀ), where D says which hidden units are active
    and W̄ is the second layer, or what is left of it without its mean over classes, which a softmax
    does not see. It costs d·h² whatever B and C are.

    Args:
        first: first layers of e networks, shape (e, d, h).
        active: shape (e, B, h): 1 where a unit is active, else 0.
        second: second layers, shape (e, C, h).
        centred: whether the mean over classes is taken out.

    Returns:
        Shape (e, d).

    Example:
        >>> first, second = torch.tensor([[[1.0], [3.0]]]), torch.tensor([[[1.0], [-1.0]]])
        >>> gram_attribution(first, torch.ones(1, 4, 1), second).tolist()
        [[1.4142135381698608, 4.242640495300293]]
    """
    if centred:
        second = second - second.mean(1, keepdim=True)
    gram = torch.bmm(active.transpose(1, 2), active).div_(active.shape[1])
    gram.mul_(torch.bmm(second.transpose(1, 2), second))
    return torch.bmm(first, gram).mul_(first).sum(2).clamp_(min=0).sqrt_()


def _pushed_down(slopes: Tensor, hidden: Sequence[Tensor], active: Sequence[Tensor]) -> Tensor:
    for weight, pattern in zip(reversed(hidden), reversed(active), strict=True):
        slopes = (slopes * pattern.unsqueeze(1)) @ weight
    return slopes
