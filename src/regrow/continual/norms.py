"""Replaces batch norms by group norms, which keep no statistics."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["group_norm_"]


def group_norm_(model: nn.Module, groups: int = 8) -> nn.Module:
    """Replace every batch norm of a model by a group norm, in place.

    A group norm's outputs depend on one sample alone, so that there are no statistics to keep, and
    training and testing compute the same. Call it before the optimizer is made.

    Args:
        model: any module.
        groups: at most how many; a layer has the largest number up to this that divides its
            channels.

    Returns:
        The model.

    Raises:
        ValueError: groups is less than 1, or the model is itself a batch norm.

    Source: group normalisation (Wu & He 2018, arXiv 1803.08494), which has 32 groups.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 12, 3), nn.BatchNorm2d(12))
        >>> group_norm_(model, groups=8)[1].num_groups
        6
    """
    if groups < 1:
        raise ValueError(f"groups={groups}: must be at least 1")
    if isinstance(model, _BatchNorm):
        raise ValueError("model is a batch norm, and cannot replace itself: put it into a module")
    for name, module in list(model.named_modules()):
        if isinstance(module, _BatchNorm):
            model.set_submodule(name, _like(module, groups))
    return model


def _like(norm: _BatchNorm, groups: int) -> nn.GroupNorm:
    channels = norm.num_features
    fitting = max(g for g in range(1, groups + 1) if channels % g == 0)
    made = nn.GroupNorm(fitting, channels, norm.eps, norm.affine)
    if norm.affine:
        made = made.to(norm.weight.device, norm.weight.dtype)
    return made.train(norm.training)
