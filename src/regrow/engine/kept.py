"""A start from masks that are there already: those of a pruned model, or given by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from regrow.engine.layouts import turned
from regrow.engine.patterns import Pattern
from regrow.engine.planned import PlannedLayer
from regrow.engine.ranks import ALONE, Ranks
from regrow.engine.saliency import Scope, Start

__all__ = ["KeptWeights"]

_TOLERANCE = 0.05  # of the weights kept; pruners and patterns round row by row


@dataclass(frozen=True, kw_only=True)
class KeptWeights(Start):
    """Begin with the weights that are not zero: the topology of a pruned model, exactly as it is.

    For models that Wanda, SparseGPT, magnitude pruning or anything else has pruned. Every layer has
    as many active units as its mask has; the method's density says what the whole comes to, and is
    checked, so that no dense layer slips in.

    Args:
        masks: bool tensors by parameter name, True for weights kept; None takes the weights of the
            model that are not zero.

    Raises:
        ValueError: (when the model is made sparse) the masks are not those of these weights, keep
            another share of them than the method's density (by more than 5 %), keep nothing of a
            layer, or cut through the units of the method's pattern.

    Example:
        >>> import regrow
        >>> model = nn.Linear(8, 8)
        >>> with torch.no_grad():
        ...     _ = model.weight[:, ::4].zero_()  # 16 of 64 weights are pruned
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> method = regrow.RigL(density=0.75, start=KeptWeights())
        >>> sparse = regrow.sparsify(model, optimizer, method, total_steps=1000)
        >>> bool((sparse.masks["weight"] == (model.weight != 0)).all()), sparse.density
        (True, 0.75)
    """

    scope: Scope = field(default="global", init=False)
    masks: Mapping[str, Tensor] | None = field(default=None, compare=False, repr=False)

    def check_pattern(self, pattern: Pattern) -> None:
        """Take any pattern here; whether its groups are equal is seen in the masks."""

    def scores(self, model: nn.Module, names: Sequence[str]) -> dict[str, Tensor]:
        """Return 1 for weights kept, 0 for others."""
        weights = {name: model.get_parameter(name).detach() for name in names}
        if self.masks is None:
            return {name: (weight != 0).float() for name, weight in weights.items()}
        return {name: self._given(name, weight).float() for name, weight in weights.items()}

    def choose(
        self,
        model: nn.Module,
        layers: Sequence[PlannedLayer],
        pattern: Pattern,
        seed: int,
        *,
        free: Mapping[str, Tensor] | None = None,
        ranks: Ranks = ALONE,
    ) -> dict[str, Tensor]:
        """Return the units that are kept; nothing is drawn, nothing is ranked."""
        kept = self.scores(model, [layer.name for layer in layers])
        units = {layer.name: _units(layer, kept[layer.name], pattern) for layer in layers}
        _check_density(layers, units)
        for name, own in (free or {}).items():
            units[name] = units[name] & own
        return units

    def _given(self, name: str, weight: Tensor) -> Tensor:
        mask = (self.masks or {}).get(name)
        if mask is None:
            raise ValueError(
                f"masks has none for {name}: give it, or exclude=[{name!r}] to leave it dense"
            )
        if mask.dtype != torch.bool or mask.shape != weight.shape:
            raise ValueError(
                f"masks[{name!r}] is {mask.dtype} of shape {tuple(mask.shape)}: a bool tensor of "
                f"shape {tuple(weight.shape)} is needed, True for weights kept"
            )
        return mask.to(weight.device)


def _units(layer: PlannedLayer, kept: Tensor, pattern: Pattern) -> Tensor:
    pattern = turned(pattern, layer.layout)
    units = pattern.reduce(kept) > 0
    if not units.any():
        raise ValueError(f"{layer.name} keeps no weight at all: exclude it, or prune less")
    if not torch.equal(pattern.expand(units, layer.shape), kept.bool()):
        raise ValueError(
            f"{layer.name}: its zeros cut through units of pattern={pattern}, which are kept or "
            "dropped whole: use pattern=Element(), or prune by these units"
        )
    if not pattern.allows(units):
        raise ValueError(
            f"{layer.name}: its groups do not keep equally many weights, as pattern={pattern} "
            "asks: use pattern=Element()"
        )
    return units


def _check_density(layers: Sequence[PlannedLayer], units: Mapping[str, Tensor]) -> None:
    """Raise ValueError unless as much is kept, over all layers, as the method begins with."""
    wanted = sum(layer.initial for layer in layers)
    kept = sum(int(own.sum()) for own in units.values())
    if abs(kept - wanted) <= _TOLERANCE * wanted:
        return
    total = sum(layer.units for layer in layers)
    dense = [layer.name for layer in layers if units[layer.name].all()]
    leave = f"; without zeros are {', '.join(dense)}: exclude them if they stay dense" * bool(dense)
    raise ValueError(
        f"start=KeptWeights(): {kept} of {total} units are kept, a density of {kept / total:.4g}, "
        f"and the method begins with {wanted / total:.4g}: write density={kept / total:.4g}, or "
        f"initial_density={kept / total:.4g} if it is to change from there{leave}"
    )
