"""The loss of segmentation: Dice and cross-entropy, over the outputs of several scales."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, distributed
from torch.nn import functional

from regrow.engine.ranks import rank_and_ranks

__all__ = ["dice_ce", "hard_dice", "soft_dice"]


def dice_ce(
    outputs: Tensor | Sequence[Tensor],
    targets: Tensor,
    weights: Sequence[float] = (1.0,),
    *,
    batch_dice: bool = True,
    smooth: float = 1e-5,
) -> Tensor:
    """Return Σᵢ wᵢ (cross-entropy + 1 - Dice) over outputs of several scales.

    Args:
        outputs: class scores (logits), shape (n, classes, depth, height, width), or several, the
            full resolution first; targets are thinned out for the smaller ones.
        targets: classes, int64, shape (n, depth, height, width); or regions, which may overlap, 0
            or 1, shape (n, regions, depth, height, width), with as many outputs: then chances are
            sigmoids and the cross-entropy is binary. Voxels of -1 do not count.
        weights: of the outputs; what has weight 0 is not computed.
        batch_dice: see :func:`soft_dice`.
        smooth: see :func:`soft_dice`.

    Raises:
        ValueError: there are not as many weights as outputs.

    Source: nnU-Net (Isensee et al. 2021); deep supervision as in E2ENet (arXiv 2312.04727).

    Differs from nnU-Net: 1 - Dice in place of -Dice, so that 0 is perfect.

    Example:
        >>> labels = torch.tensor([[[[0, 1]]]])
        >>> right = 20 * torch.eye(2)[labels].permute(0, 4, 1, 2, 3)
        >>> f"{dice_ce(right, labels):.4f} {dice_ce(-right, labels):.1f}"
        '0.0000 21.0'
    """
    outputs = [outputs] if isinstance(outputs, Tensor) else outputs
    if len(outputs) != len(weights):
        raise ValueError(f"weights={weights}: {len(outputs)} outputs need one each")
    terms = []
    for output, weight in zip(outputs, weights, strict=True):
        if not weight:
            terms.append(0 * output.sum())  # ranks wait for a gradient of every weight
            continue
        scores, truth = output.float(), _thinned(targets, output.shape[2:])
        dice = soft_dice(scores, truth, batch_dice=batch_dice, smooth=smooth)
        terms.append(weight * (_cross_entropy(scores, truth) + 1 - dice))
    return torch.stack(terms).sum()


def soft_dice(
    scores: Tensor, targets: Tensor, *, batch_dice: bool = True, smooth: float = 1e-5
) -> Tensor:
    """Return the mean over classes of Dice = (2 Σ p g + s) / (Σ p + Σ g + s), without background.

    Args:
        scores: logits, shape (n, classes, depth, height, width); p is their softmax, of regions
            the sigmoid.
        targets: as of :func:`dice_ce`; g is 1 where a voxel is of the class or region.
        batch_dice: sums go over the whole batch, of all ranks; if not, Dice is of each patch.
        smooth: s: a class that is neither there nor predicted counts as 1.

    Source: nnU-Net's MemoryEfficientSoftDiceLoss.
    """
    chances = scores.softmax(1)[:, 1:] if _are_classes(targets) else scores.sigmoid()
    chances = chances * _counted(targets)
    truth = _masks(targets, scores.shape[1])
    axes = (0, 2, 3, 4) if batch_dice else (2, 3, 4)
    shared = (chances * truth).sum(axes)
    both = chances.sum(axes) + truth.sum(axes)
    if batch_dice and rank_and_ranks()[1] > 1:
        shared, both = _OverRanks.apply(torch.stack([shared, both]))  # type: ignore[no-untyped-call]
    return ((2 * shared + smooth) / (both + smooth).clamp_min(1e-8)).mean()


class _OverRanks(torch.autograd.Function):
    """The sum over all ranks, which a loss of every rank hangs on, as its gradient says."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return _summed(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _summed(gradient)


def _summed(values: Tensor) -> Tensor:
    total = values.clone(memory_format=torch.contiguous_format)
    distributed.all_reduce(total)
    return total


def hard_dice(scores: Tensor, targets: Tensor) -> Tensor:
    """Return Dice = 2 |P ∩ G| / (|P| + |G|) of each patch and class but the background.

    Args:
        scores: logits, shape (n, classes, depth, height, width).
        targets: as of :func:`dice_ce`.

    Returns:
        Shape (n, classes - 1), or (n, regions); NaN for what is neither there nor predicted.

    Example:
        >>> truth = torch.tensor([[[[1, 1, 2, 0]]]])
        >>> scores = torch.eye(4)[torch.tensor([[[[1, 0, 1, 0]]]])].movedim(-1, 1)
        >>> hard_dice(scores, truth).tolist()
        [[0.5, 0.0, nan]]
    """
    classes = scores.shape[1]
    predicted = _masks(scores.argmax(1), classes) if _are_classes(targets) else scores > 0
    truth = _masks(targets, classes)
    predicted = (predicted & _counted(targets)).flatten(2)
    both = predicted.sum(2) + truth.flatten(2).sum(2)
    return 2 * (predicted & truth.flatten(2)).sum(2) / both


def _cross_entropy(scores: Tensor, targets: Tensor) -> Tensor:
    if _are_classes(targets):
        total = functional.cross_entropy(scores, targets, ignore_index=-1, reduction="sum")
        return total / (targets >= 0).sum().clamp_min(1)
    counted = targets >= 0
    losses = functional.binary_cross_entropy_with_logits(
        scores, targets.clamp_min(0).to(scores), reduction="none"
    )
    return (losses * counted).sum() / counted.sum().clamp_min(1)


def _are_classes(targets: Tensor) -> bool:
    return targets.ndim == 4


def _counted(targets: Tensor) -> Tensor:
    """Return which voxels count, with an axis of classes."""
    return (targets[:, None] if _are_classes(targets) else targets) >= 0


def _masks(targets: Tensor, classes: int) -> Tensor:
    """Return which voxels are of each class but the background, or of each region."""
    if not _are_classes(targets):
        return targets == 1
    numbers = torch.arange(1, classes, device=targets.device).view(-1, 1, 1, 1)
    return targets[:, None] == numbers


def _thinned(targets: Tensor, sides: torch.Size) -> Tensor:
    """Take the nearest target for each voxel of a smaller output."""
    if targets.shape[-3:] == sides:
        return targets
    channels = targets[:, None] if _are_classes(targets) else targets
    # float32 holds labels up to 2²⁴ exactly.
    small = functional.interpolate(channels.float(), sides, mode="nearest-exact").to(targets.dtype)
    return small[:, 0] if _are_classes(targets) else small
