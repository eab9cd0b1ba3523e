"""Weights as they were before the first masks: should a saved topology come after all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from regrow.engine.layer import MaskedLayer
from regrow.engine.sharding import local, whole
from regrow.engine.sparse_layer import SparseLayer

__all__ = ["first_values", "put_back_"]

Pairs = Iterable[tuple[SparseLayer, Tensor]]


def first_values(pairs: Pairs) -> dict[str, Tensor]:
    """Copy the weights that masks will change, by name."""
    masked = [(layer, weight) for layer, weight in pairs if isinstance(layer, MaskedLayer)]
    return {layer.name: w.detach().clone() for layer, w in masked if not layer.full}


@torch.no_grad()
def put_back_(pairs: Pairs, values: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> None:
    """Write weights back that are still as the first masks left them, if the masks change.

    Args:
        pairs: layers, with their first masks, and weights.
        values: of :func:`first_values`.
        masks: those that come, by name.
    """
    for layer, weight in pairs:
        if layer.name not in values or not isinstance(layer, MaskedLayer):
            continue
        # A layer that took no part in training has the same masks and weights in every run: its
        # weights may have been loaded, and nothing is wanted back.
        if torch.equal(whole(layer.mask).cpu() != 0, masks[layer.name].cpu()):
            continue
        # By content: state dicts of sharded models are loaded past version counters.
        masked = values[layer.name].clone()
        layer.apply_(masked)
        scaled = masked.clone()
        layer.rescale_(scaled, (layer.planned.units / layer.active) ** 0.5)
        if any(torch.equal(local(weight), local(left)) for left in (masked, scaled)):
            local(weight).copy_(local(values[layer.name]))
