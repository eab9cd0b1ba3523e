"""How a topology moves over a run: exploration, overlap, churn, and units that do nothing."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from regrow.engine.sparsifier import Sparsifier
from regrow.engine.wrappers import unwrap

__all__ = [
    "churn",
    "density_history",
    "distance",
    "exploration",
    "jaccard",
    "reachable",
    "silent_units",
]

Masks = Mapping[str, Tensor]

_NORMS = (
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
)


def exploration(sparse: Sparsifier) -> dict[str, float]:
    """Return the share of weights that were ever active, by layer and in ``"total"``.

    R = |∪ₜ maskₜ| / weights: the in-time over-parameterization rate.

    Source: Liu et al. 2021 (arXiv 2102.02887).

    Example:
        >>> import regrow
        >>> model = nn.Linear(8, 4)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> sparse = regrow.sparsify(model, optimizer, regrow.Static(density=0.25), total_steps=9)
        >>> exploration(sparse)
        {'weight': 0.25, 'total': 0.25}
    """
    return _shares(sparse.fired)


def jaccard(one: Masks, other: Masks) -> dict[str, float]:
    """Return |A ∩ B| / |A ∪ B| of two sets of weights, by layer and in ``"total"``.

    Two empty sets are equal: their index is 1. Two random choices of a share ρ of the same weights
    have about ρ/(2 - ρ).

    Args:
        one: bool tensors by layer, such as ``sparse.masks`` or ``sparse.would_drop(...)``.
        other: the same layers; they may be on another device.

    Raises:
        ValueError: the layers differ.

    Example:
        >>> one, other = torch.tensor([True, True, False]), torch.tensor([False, True, True])
        >>> jaccard({"w": one}, {"w": other})["w"]
        0.3333333333333333
    """
    _check_layers(one, other)
    pairs = {name: (mask, other[name].to(mask.device)) for name, mask in one.items()}
    both = {name: _count(a & b) for name, (a, b) in pairs.items()}
    either = {name: _count(a | b) for name, (a, b) in pairs.items()}
    index = {name: both[name] / either[name] if either[name] else 1.0 for name in one}
    total = sum(either.values())
    return index | {"total": sum(both.values()) / total if total else 1.0}


def distance(first: Masks, now: Masks) -> dict[str, float]:
    """Return the share of weights that an earlier topology did not have, by layer and in total.

    Args:
        first: bool tensors by layer, such as ``sparse.masks`` right after ``sparsify``; they may
            be on another device, as those of a checkpoint are.
        now: the same layers later.

    Example:
        >>> distance({"w": torch.tensor([True, False])}, {"w": torch.tensor([True, True])})["w"]
        0.5
    """
    _check_layers(first, now)
    new = {name: _count(mask & ~first[name].to(mask.device)) for name, mask in now.items()}
    active = {name: _count(now[name]) for name in now}
    shares = {name: new[name] / max(active[name], 1) for name in now}
    return shares | {"total": sum(new.values()) / max(sum(active.values()), 1)}


def churn(sparse: Sparsifier) -> list[tuple[int, float]]:
    """Return, for every update, its step and the share of active units that it grew.

    Only layers that moved are counted.

    Example:
        >>> import regrow
        >>> model = nn.Linear(8, 4)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> method = regrow.SET(density=0.5, update_every=1, regrow_dropped=False)
        >>> sparse = regrow.sparsify(model, optimizer, method, total_steps=9)
        >>> model(torch.ones(1, 8)).sum().backward()
        >>> optimizer.step()
        >>> churn(sparse)
        [(1, 0.25)]
    """
    shares = []
    for update in sparse.history:
        active = sum(change.active for change in update.layers.values())
        grown = sum(change.grown for change in update.layers.values())
        shares.append((update.step, grown / max(active, 1)))
    return shares


def density_history(sparse: Sparsifier) -> list[tuple[int, dict[str, float]]]:
    """Return each layer's density at the start (step 0) and after every update, in units.

    Example:
        >>> import regrow
        >>> model = nn.Linear(8, 4)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> sparse = regrow.sparsify(model, optimizer, regrow.Static(density=0.25), total_steps=9)
        >>> density_history(sparse)
        [(0, {'weight': 0.25})]
    """
    units = {layer.name: layer.units for layer in sparse.plan.layers}
    density = {layer.name: layer.initial / layer.units for layer in sparse.plan.layers}
    history = [(0, density)]
    for update in sparse.history:
        density = density | {n: c.active / units[n] for n, c in update.layers.items()}
        history.append((update.step, density))
    return history


def silent_units(masks: Masks) -> dict[str, tuple[int, int]]:
    """Count, in every layer, the outputs and the inputs that have no weight at all.

    Args:
        masks: bool tensors (out, in, *kernel) by layer.

    Returns:
        Pairs (outputs without a weight, inputs without a weight) by layer.

    Example:
        >>> silent_units({"w": torch.tensor([[True, False], [False, False]])})
        {'w': (1, 1)}
    """
    silent = {}
    for name, mask in masks.items():
        links = mask.flatten(2).any(2) if mask.ndim > 2 else mask
        silent[name] = (_count(~links.any(1)), _count(~links.any(0)))
    return silent


def reachable(model: nn.Module, masks: Masks, *inputs: Any) -> dict[str, Tensor]:
    """Find the kept weights that lie on some path from the inputs to the outputs.

    On a copy in float64, kept weights are given random positive values, biases are taken away and
    norms passed through; a weight through which a positive input sends no gradient is of no use
    to the network, though it is kept and paid for. Right for feed-forward networks with activations
    that pass positive values (ReLU and its kin, max pooling, residuals).

    Args:
        model: any such module; stays as it is.
        masks: bool tensors by parameter name.
        *inputs: what the model is called with; floating tensors are replaced by positive noise.

    Returns:
        Bool tensors by parameter name, subsets of the masks.

    Source: effective density, Vysogorets & Kempe 2023 (arXiv 2107.02306).

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
        >>> masks = {"0.weight": torch.ones(2, 2).bool(), "1.weight": torch.tensor([[True, False]])}
        >>> reachable(model, masks, torch.zeros(1, 2))["0.weight"].tolist()
        [[True, True], [False, False]]
    """
    generator = torch.Generator().manual_seed(0)
    twin = copy.deepcopy(unwrap(model)).double().eval()
    for name, module in list(twin.named_modules()):
        if isinstance(module, _NORMS):
            twin.set_submodule(name, nn.Identity())
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            noise = _positive(parameter, generator)
            kept = masks[name].to(noise.device) if name in masks else float(parameter.ndim > 1)
            parameter.copy_(noise * kept)
    outputs = tree_leaves(twin(*tree_map(lambda x: _noise_like(x, generator), inputs)))
    total = sum(out.sum() for out in outputs if isinstance(out, Tensor) and out.requires_grad)
    weights = [twin.get_parameter(name) for name in masks]
    gradients = torch.autograd.grad(total, weights, allow_unused=True)  # type: ignore[arg-type]
    return {
        name: torch.zeros_like(mask) if g is None else mask & (g != 0).to(mask.device)
        for (name, mask), g in zip(masks.items(), gradients, strict=True)
    }


def _positive(reference: Tensor, generator: torch.Generator) -> Tensor:
    noise = 0.5 + torch.rand(
        reference.shape, generator=generator, dtype=torch.float64, device="cpu"
    )
    return noise.to(reference.device)


def _noise_like(value: Any, generator: torch.Generator) -> Any:
    if isinstance(value, Tensor) and value.is_floating_point():
        return _positive(value, generator)
    return value


def _shares(masks: Masks) -> dict[str, float]:
    counts = {name: _count(mask) for name, mask in masks.items()}
    shares = {name: counts[name] / mask.numel() for name, mask in masks.items()}
    total = sum(mask.numel() for mask in masks.values())
    return shares | {"total": sum(counts.values()) / total}


def _count(mask: Tensor) -> int:
    return int(torch.count_nonzero(mask))


def _check_layers(one: Masks, other: Masks) -> None:
    if one.keys() != other.keys():
        raise ValueError(f"the layers differ: {list(one)} and {list(other)}")
