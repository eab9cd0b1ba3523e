"""What an update did: how many units each layer dropped and grew, and how many are active."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from regrow.engine.sparse_layer import SparseLayer

__all__ = ["LayerChange", "count_changes"]


@dataclass(frozen=True)
class LayerChange:
    """What an update did to one layer, in units.

    Args:
        dropped: were active and are not any more.
        grown: were not active and are now.
        active: are active after the update.
    """

    dropped: int
    grown: int
    active: int


def count_changes(
    layers: Sequence[SparseLayer], before: Mapping[str, Tensor], after: Mapping[str, Tensor]
) -> dict[str, LayerChange]:
    """Count dropped, grown and active units of every layer; the device is asked once."""
    counts: list[Tensor] = []
    for layer in layers:
        counts += layer.counts(before[layer.name], after[layer.name])
    if not counts:
        return {}
    # One transfer for all layers: to wait for a GPU once a layer would cost more than the update.
    rows = torch.stack([count.to(counts[0].device) for count in counts]).reshape(-1, 3).tolist()
    return {
        name: LayerChange(dropped=n - both, grown=m - both, active=m)
        for name, (n, m, both) in zip(before, rows, strict=True)
    }
