"""SRigL: RigL with a constant fan-in and with ablation of non-salient neurons."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from regrow.engine.checks import check_number, check_type
from regrow.engine.dynamic import Dynamic
from regrow.engine.patterns import FanIn, Pattern
from regrow.engine.selection import bottom_k, top_k, top_per_group
from regrow.engine.sparse_layer import SparseLayer
from regrow.engine.update import UpdateView

__all__ = ["SRigL"]


@dataclass(frozen=True, kw_only=True)
class SRigL(Dynamic):
    """RigL whose active neurons all have the same fan-in, with neuron ablation.

    At an update of a layer with a active weights, of which e are to be exchanged:

    1. Salient are the a - e largest weights, and the e positions with the largest gradients.
    2. A neuron with fewer than max(1, ⌊γ·k⌋) salient positions is ablated, k being the fan-in at
       the start; but never so many that the others could not hold the layer's weights.
    3. The fan-in becomes ⌊budget / neurons left⌋. Every neuron left keeps its largest weights among
       the a - e, up to the fan-in, and grows by gradient to exactly the fan-in.

    Ablated neurons have no weights, but keep their bias; they come back when they are salient.

    Source: Lasby et al. 2024 (arXiv 2305.02299), with its released code.

    Differs from the code: rows are trimmed by magnitude (there, by the order of a boolean row); an
    ablated neuron's weights cannot be counted as kept; the last sparse layer is spared unless
    ``ablate_last``; the update replaces the optimizer step, as in RigL.

    Args:
        gamma: γ, the share of the fan-in that must be salient, from 0 to 1. 0 ablates neurons
            without any salient position only; the paper's 0.3 suits convolutions, 0.95
            Transformers.
        ablate_last: whether neurons of the last sparse layer, usually the outputs, may go.

    Example:
        >>> SRigL(density=0.1).gamma
        0.3
    """

    pattern: Pattern = FanIn()
    gamma: float = 0.3
    ablate_last: bool = False
    replaces_step: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self.gamma, "gamma", "0.3")
        check_type(self.ablate_last, bool, "ablate_last", "True")
        if not 0 <= self.gamma <= 1:
            raise ValueError(f"gamma={self.gamma}: must lie in 0..1")
        for role, score in (("drop", self.drop), ("grow", self.grow)):
            if not score.ranks:
                raise ValueError(
                    f"{role}={score!r} does not rank weights, so none is salient by it; "
                    "use Magnitude() or Gradient()"
                )
        if not isinstance(self.pattern, FanIn):
            raise ValueError(f"pattern={self.pattern}: SRigL needs FanIn()")

    def propose(self, view: UpdateView) -> dict[str, Tensor]:
        """Return every layer's active units after an update."""
        return {layer.name: self._propose(view, layer) for layer in view.layers}

    def _propose(self, view: UpdateView, layer: SparseLayer) -> Tensor:
        active = view.active[layer.name]
        rows = len(active)
        exchange = view.moves[layer.name].exchange
        drop = self.drop.worth(view.signals(layer, "drop", active)).reshape(rows, -1)
        grow = self.grow.worth(view.signals(layer, "grow", active)).reshape(rows, -1)
        kept = active.reshape(rows, -1) & ~bottom_k(drop, exchange, active.reshape(rows, -1))
        # Of the plan, not of the active weights: rounding to a whole fan-in loses a few at an
        # update, which would add up.
        budget = layer.planned.final
        left = torch.ones(rows, dtype=torch.bool, device=active.device)
        if self.ablate_last or not layer.planned.last:
            salient = (kept | top_k(grow, exchange)).sum(1)
            left = self._not_ablated(salient, budget // rows, budget, grow.shape[1])
        fan_in = budget // left.sum()
        counts = torch.where(left, fan_in, 0)
        kept = kept & left.unsqueeze(1)
        kept = top_per_group(drop, torch.minimum(kept.sum(1), counts), kept)
        grown = top_per_group(grow, counts - kept.sum(1), ~kept)
        return (kept | grown).reshape(active.shape)

    def _not_ablated(self, salient: Tensor, fan_in: int, budget: int, inputs: int) -> Tensor:
        """Return which neurons stay: enough of them that the budget fits into their inputs."""
        # Were too many neurons ablated, those left could not hold the layer's weights, however
        # dense.
        needed = -(-budget // inputs)
        most = salient.sort(descending=True).values[needed - 1]
        threshold = most.clamp(max=max(1, int(self.gamma * fan_in)))
        return salient >= threshold
