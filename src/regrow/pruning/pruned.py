"""What pruning did: the plan, the masks, and the way to go on from there."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from regrow.engine.kept import KeptWeights
from regrow.engine.planned import Plan, PlannedLayer
from regrow.engine.saved import pack, unpack
from regrow.engine.tables import draw

__all__ = ["Masks", "Pruned"]

_SHOWN = 3  # names of what stays dense for one reason


class Masks(Mapping[str, Tensor]):
    """Bool tensors by parameter name, True for weights kept; one bit a weight until they are read.

    Args:
        masks: pairs of a name and its mask; they are taken, and packed, one by one.

    Example:
        >>> import torch
        >>> masks = Masks([("weight", torch.tensor([[True, False]]))])
        >>> masks["weight"], list(masks)
        (tensor([[ True, False]]), ['weight'])
    """

    def __init__(self, masks: Iterable[tuple[str, Tensor]]) -> None:
        self._packed = {name: (pack(mask), tuple(mask.shape)) for name, mask in masks}

    def __getitem__(self, name: str) -> Tensor:
        """Return a mask, on the CPU."""
        return unpack(*self._packed[name])

    def __iter__(self) -> Iterator[str]:
        """Go through the names."""
        return iter(self._packed)

    def __len__(self) -> int:
        """Return for how many weights there are masks."""
        return len(self._packed)

    def __repr__(self) -> str:
        """Return the names."""
        return f"Masks({', '.join(self._packed)})"


@dataclass(frozen=True)
class Pruned:
    """What :func:`regrow.prune` did; ``print(pruned)`` shows it layer by layer.

    Args:
        by: the method or rule.
        plan: which weights were pruned, to how many units, and why others were not.
        masks: what is kept, bool tensors on the CPU by parameter name.
        kept: how many weights are, by parameter name.

    Example:
        >>> import regrow
        >>> from torch import nn
        >>> pruned = regrow.prune(nn.Linear(8, 4), regrow.OMP(density=0.25))
        >>> print(pruned)
        weight  shape  kept  of  density
        weight    4×8     8  32   0.2500
        dense: bias (fewer than two dimensions)
        >>> pruned.density, pruned.names
        (0.25, ['weight'])
    """

    by: object
    plan: Plan
    masks: Masks
    kept: Mapping[str, int] = field(repr=False)

    @property
    def names(self) -> list[str]:
        """The weights that were pruned: what to ``include`` when they are made sparse."""
        return list(self.masks)

    @property
    def density(self) -> float:
        """The share of their entries that is kept."""
        return sum(self.kept.values()) / sum(map(_size, self.plan.layers))

    @property
    def start(self) -> KeptWeights:
        """The topology as a start: ``regrow.RigL(density=pruned.density, start=pruned.start)``."""
        return KeptWeights(masks=self.masks)

    def __str__(self) -> str:
        """Draw a table."""
        rows: list[tuple[str, ...]] = [("weight", "shape", "kept", "of", "density")]
        for layer in self.plan.layers:
            kept, size = self.kept[layer.name], _size(layer)
            shape = "×".join(map(str, layer.shape))
            rows.append((layer.name, shape, f"{kept:,}", f"{size:,}", f"{kept / size:.4f}"))
        return "\n".join([draw(rows), *_dense(self.plan.skipped)])


def _dense(skipped: Mapping[str, str]) -> Iterator[str]:
    """Yield a line for each reason why parameters stay dense."""
    by_reason: dict[str, list[str]] = {}
    for name, why in skipped.items():
        by_reason.setdefault(why, []).append(name)
    for why, names in by_reason.items():
        more = f" and {len(names) - _SHOWN} more" * (len(names) > _SHOWN)
        yield f"dense: {', '.join(names[:_SHOWN])}{more} ({why})"


def _size(layer: PlannedLayer) -> int:
    return math.prod(layer.shape)
