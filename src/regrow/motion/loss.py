"""The loss: likelihood of the path, velocity, which intention, the futures of all agents."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from regrow.motion.decoder import Predicted

__all__ = ["Losses", "gaussian_nll", "motion_losses", "positive_queries"]

_LOG_DEVIATION = (-1.609, 5.0)  # 0.2 m to 150 m
_CORRELATION = 0.5

Losses = dict[str, Tensor]
"""Losses by name, each of shape (n,); ``total`` is their weighted sum."""


def gaussian_nll(predicted: Tensor, xy: Tensor) -> Tensor:
    """Return the negative log-likelihood of positions under Gaussians of two dimensions.

    log s1 + log s2 + log(1 - ρ²) / 2 + (dx²/s1² + dy²/s2² - 2ρ·dx·dy/(s1·s2)) / (2(1 - ρ²)); the
    constant log 2π is left out, log s is clipped to -1.609..5, ρ to -0.5..0.5.

    Args:
        predicted: shape (..., 5 or more): mean x, mean y, log s1, log s2, ρ.
        xy: shape (..., 2), in metres.

    Source: Shi et al. 2022 (MTR), equation 8.

    Example:
        >>> gaussian_nll(torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0]), torch.tensor([1.0, 2.0]))
        tensor(2.5000)
    """
    dx, dy = (xy - predicted[..., :2]).unbind(-1)
    log1, log2 = predicted[..., 2:4].clamp(*_LOG_DEVIATION).unbind(-1)
    rho = predicted[..., 4].clamp(-_CORRELATION, _CORRELATION)
    left = 1 - rho.square()
    a, b = dx * (-log1).exp(), dy * (-log2).exp()
    return log1 + log2 + left.log() / 2 + (a * a + b * b - 2 * rho * a * b) / (2 * left)


def positive_queries(future: Tensor, valid: Tensor, intentions: Tensor) -> Tensor:
    """Return the query of each target whose intention point is nearest to where it ends.

    Args:
        future: shape (n, steps, 4).
        valid: bool, shape (n, steps); the end is the last valid step.
        intentions: shape (n, queries, 2).
    """
    steps = torch.arange(valid.shape[1], device=valid.device)
    last = torch.where(valid, steps, 0).amax(1)
    end = torch.take_along_dim(future[..., :2], last[:, None, None], 1)
    return (end - intentions).square().sum(-1).argmin(1)


def _path_losses(paths: Tensor, future: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Return likelihood and velocity losses of paths (..., steps, 7), summed over valid steps."""
    nll = gaussian_nll(paths, future[..., :2])
    velocity = (paths[..., 5:7] - future[..., 2:4]).abs().sum(-1)
    return (nll * valid).sum(-1), (velocity * valid).sum(-1)


def motion_losses(
    predicted: Predicted,
    targets: Mapping[str, Tensor],
    *,
    classification: float = 50.0,
    regression: float = 1.0,
    velocity: float = 0.5,
    dense: float = 1.0,
    mtr_compat: bool = False,
) -> Losses:
    """Return the losses of each target.

    Of the query whose intention point is nearest to the true end: the negative log-likelihood of
    the path and the absolute error of the velocity, summed over valid steps; the cross-entropy of
    choosing it; all averaged over decoder layers. And the same two path losses of every agent that
    has a future, averaged over agents.

    Args:
        predicted: of the network.
        targets: of :func:`regrow.motion.batches.collate`.
        classification: weight of the cross-entropy of one target.
        regression: weight of the likelihood.
        velocity: weight of the velocity's error, of the target.
        dense: weight of the futures of all agents.
        mtr_compat: as in MTR, sum the cross-entropy over the targets of a batch and give each of
            them the sum; with ``classification=1`` the balance of losses is MTR's, and hangs on the
            size of the batch, about 45 targets there.

    Returns:
        ``total``, ``nll``, ``velocity``, ``classification``, ``dense``, without weights but the
        total: float32, shape (n,). A target without any valid step has a loss of 0 but for the
        futures of other agents.

    Source: Shi et al. 2022 (MTR), section 3.3.

    Differs from MTR: its ``cls: 1.0`` is ours times the number of targets on a GPU; LiMTR found 50.
    """
    future, valid = targets["future"], targets["future_valid"]
    query = positive_queries(future, valid, predicted.intentions)
    layers = len(predicted.scores)
    chosen = query.expand(layers, -1)
    paths = torch.take_along_dim(
        predicted.trajectories.float(), chosen[..., None, None, None], 2
    ).squeeze(2)
    nll, speed = (x.mean(0) for x in _path_losses(paths, future, valid))
    scores = predicted.scores.float()
    choice = functional.cross_entropy(
        scores.flatten(0, 1), chosen.flatten(), reduction="none"
    ).view(layers, -1)
    some = valid.any(1)
    choice = choice.mean(0) * some
    if mtr_compat:
        choice = choice.sum().expand_as(choice)
    all_agents = _dense(predicted.dense.float(), targets)
    total = regression * nll + velocity * speed + classification * choice + dense * all_agents
    return {
        "total": total,
        "nll": nll,
        "velocity": speed,
        "classification": choice,
        "dense": all_agents,
    }


def _dense(paths: Tensor, targets: Mapping[str, Tensor]) -> Tensor:
    """Return the loss of all agents' futures, a mean over those that have one: shape (n,)."""
    valid = targets["others_valid"]
    nll, velocity = _path_losses(paths, targets["others"], valid)
    some = valid.any(-1)
    return ((nll + velocity) * some).sum(-1) / some.sum(-1).clamp(min=1)
