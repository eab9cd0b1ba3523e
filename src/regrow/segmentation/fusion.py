"""Dynamic sparse feature fusion (DSFF): arguments of `regrow.sparsify` that make E2ENet sparse."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from regrow.engine.allocation import Uniform
from regrow.engine.dynamic import Dynamic
from regrow.engine.patterns import Kernel, Pattern
from regrow.engine.schedules import Cosine
from regrow.engine.scores import Magnitude, Random

__all__ = [
    "FUSION",
    "LEAN",
    "exchange",
    "feature_fusion",
    "released_densities",
    "steps_between_updates",
]

# The convolutions and transposed convolutions of the nodes; encoder and heads stay dense.
FUSION = ("nodes.*.conv.weight", "nodes.*.up.weight")

LEAN = {"nodes.0_*": 1.0, "nodes.1_*": 0.5, "*": 0.25}
"""Densities of a lean lattice: where kernels are few and voxels many, most are kept."""


def feature_fusion(
    density: float | Mapping[str, float] = 0.2, *, update_every: int = 1200
) -> dict[str, Any]:
    """Return method and globs of dynamic sparse feature fusion, as arguments of `regrow.sparsify`.

    Whole kernels, pairs of an output and an input channel, are dropped and grown. Every fusion and
    up-sampling convolution keeps round(density · pairs); the kernels of least Σ|w| make room for
    others drawn at random, which start at zero. The share exchanged falls from 0.5 to 0.001 along a
    cosine, to the end of training. Masks save parameters and multiply-adds on paper, no time.

    Args:
        density: of every layer, or densities by glob over parameter names.
        update_every: optimizer steps between updates.

    Returns:
        The arguments ``method`` and ``include``; ``dataclasses.replace`` changes the method.

    Source: E2ENet (arXiv 2312.04727), section 3.1, and its public code.

    Differs from the released code: counts are exact, ⌊rate · active⌋ kernels move, where ties drop
    more and the rate is rounded up; a kernel drawn again at the update that dropped it keeps its
    weights; masks are part of a checkpoint; all layers have the same density
    (:func:`released_densities` gives the code's).

    Example:
        >>> import torch, regrow
        >>> from regrow.segmentation import E2ENet
        >>> model = E2ENet(1, 2, (6, 12))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.99, nesterov=True)
        >>> sparse = regrow.sparsify(model, optimizer, **feature_fusion(0.2), total_steps=250_000)
        >>> [layer.name for layer in sparse.plan.layers][:2]
        ['nodes.0_1.up.weight', 'nodes.0_1.blocks.0.conv.weight']
    """
    return {"method": exchange(density, Kernel(), update_every), "include": FUSION}


def exchange(density: float | Mapping[str, float], pattern: Pattern, update_every: int) -> Dynamic:
    """Return the method of sparse fusion, whatever its units are: see :func:`feature_fusion`."""
    return Dynamic(
        density=density,
        allocation=Uniform(),
        pattern=pattern,
        drop=Magnitude(),
        grow=Random(),
        drop_fraction=Cosine(0.5, 0.001),
        update_every=update_every,
        stop_at=1.0,
    )


def steps_between_updates(steps: int) -> int:
    """Return how often a run of so many steps updates: 200 times, as the paper's of 250,000 steps.

    At most 1200 steps lie between two updates, as there.

    Example:
        >>> steps_between_updates(2_000), steps_between_updates(250_000)
        (10, 1200)
    """
    return min(1200, max(1, steps // 200))


def released_densities(model: nn.Module, density: float) -> dict[str, float]:
    """Return the densities that E2ENet's released code really uses, by weight.

    Whatever density is asked for, a fusion convolution of 48 outputs has 0.2. In the full network
    these are the six at full resolution.

    Args:
        model: an :class:`regrow.segmentation.E2ENet`.
        density: of all other layers.

    Returns:
        Densities by name, for :func:`feature_fusion`.

    Source: the public code's ``core_channel.py``; the paper does not mention it.

    Example:
        >>> from regrow.segmentation import E2ENet
        >>> released_densities(E2ENet(1, 2, (48, 6)), 0.3)
        {'nodes.0_1.blocks.0.conv.weight': 0.2, 'nodes.0_1.blocks.1.conv.weight': 0.2, '*': 0.3}
    """
    fused = {
        name: 0.2
        for name, weight in model.named_parameters()
        # The code asks the first dimension, which of an up-sampling convolution is its input.
        if weight.shape[0] == 48 and any(fnmatchcase(name, glob) for glob in FUSION)
    }
    return {**fused, "*": density}
