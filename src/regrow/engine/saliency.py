"""Starts: choose the first topology by one-shot scores, most of which need data.

A start scores every weight of the model as it is when :func:`regrow.sparsify` or
:func:`regrow.prune` is called, and keeps the best. Scores that run the model do so on a copy: the
model's gradients, statistics and training mode stay as they are.
"""

from __future__ import annotations

import copy
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from regrow.engine.checks import check_integer, check_type
from regrow.engine.layouts import turned
from regrow.engine.patterns import Pattern
from regrow.engine.planned import PlannedLayer
from regrow.engine.ranks import ALONE, Ranks
from regrow.engine.selection import random_k, seeded_generator, top_k

__all__ = ["Grasp", "LargestWeights", "Snip", "Start", "SynapticFlow"]

logger = logging.getLogger("regrow")

Loss = Callable[[nn.Module], Tensor]
Scope = Literal["global", "layer", "ratios"]


@dataclass(frozen=True, kw_only=True)
class Start(ABC):
    """Chooses the first topology by a score.

    Args:
        scope: "global": the best of all layers together, at least one unit a layer, so that the
            score also decides how dense each layer is; "layer": the best of each layer, as many as
            the method's allocation gives it, and of patterns with groups the best of each group;
            "ratios": as many in each layer as "global" keeps there, but drawn at random.

    Attributes:
        uses_up: whether scoring changes the model that it is given, which is then a copy.
    """

    uses_up: ClassVar[bool] = True
    scope: Scope = "global"

    def __post_init__(self) -> None:
        if self.scope not in ("global", "layer", "ratios"):
            raise ValueError(f"scope={self.scope!r}: must be 'global', 'layer' or 'ratios'")

    def check_pattern(self, pattern: Pattern) -> None:
        """Raise ValueError unless the start chooses as many in each group as the pattern asks."""
        # Any shape tells whether a pattern has groups; over all layers a score chooses unequal
        # numbers in them.
        if self.scope != "layer" and pattern.group((1, 4)) is not None:
            raise ValueError(
                f"start={self!r}: in the groups of pattern={pattern} equally many are chosen, "
                "which scope='layer' does"
            )

    @abstractmethod
    def scores(self, model: nn.Module, names: Sequence[str]) -> dict[str, Tensor]:
        """Score the named weights of a model; higher is kept. The model may be used up."""

    def scores_over(
        self, ranks: Ranks, model: nn.Module, names: Sequence[str]
    ) -> dict[str, Tensor]:
        """Score by what all ranks see, each of which has its own data: the mean of their scores."""
        scores = self.scores(model, names)
        return dict(zip(scores, ranks.mean(list(scores.values())), strict=True))

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
        """Choose the active units of every layer.

        Args:
            model: is left as it was.
            layers: the planned layers; their initial counts sum to what is kept.
            pattern: what a unit is, of weights stored as (out, in, *kernel).
            seed: for what is drawn at random.
            free: the units that may be chosen, bool tensors on the grids; all of a layer without.
            ranks: the processes that train this model together.

        Returns:
            Bool tensors on the grids, by name.
        """
        # On a copy: to run the model would move its batch statistics and leave gradients.
        twin = copy.deepcopy(model) if self.uses_up else model
        scores = self.scores_over(ranks, twin, [layer.name for layer in layers])
        worth = _of_free(_by_unit(scores, layers, pattern), free or {})
        return self.best(worth, layers, pattern, free or {}, seed)

    def best(
        self,
        worth: Mapping[str, Tensor],
        layers: Sequence[PlannedLayer],
        pattern: Pattern,
        free: Mapping[str, Tensor],
        seed: int,
    ) -> dict[str, Tensor]:
        """Keep the best units within each layer or over all, as many as the plan asks for."""
        chosen = self.highest(worth, layers, pattern, free)
        if self.scope != "ratios":
            return chosen
        return {
            name: random_k(
                int(units.sum()), worth[name] > -math.inf, seeded_generator(seed, name, "start")
            )
            for name, units in chosen.items()
        }

    def highest(
        self,
        worth: Mapping[str, Tensor],
        layers: Sequence[PlannedLayer],
        pattern: Pattern,
        free: Mapping[str, Tensor],
        share: float = 1.0,
    ) -> dict[str, Tensor]:
        """Keep the highest units within each layer or over all; "ratios" uses only their counts.

        Args:
            worth: of every unit, by layer.
            layers: say how many are kept.
            pattern: see :meth:`choose`.
            free: see :meth:`choose`.
            share: how far, in logarithms, from all units to that number.
        """
        if self.scope == "layer":
            counts = _counts(layers, free, share)
            chosen = {}
            for layer in layers:
                own, k = turned(pattern, layer.layout), counts[layer.name]
                if group := own.group(layer.shape):
                    k += -k % (layer.units // group)  # on the way there, as many in each group
                chosen[layer.name] = own.best(k, worth[layer.name])
            return chosen
        return _best_over_all(worth, _count_over_all(layers, free, share))


@dataclass(frozen=True, kw_only=True)
class LargestWeights(Start):
    """|w| of trained weights: one-shot magnitude pruning, and the mask of a lottery ticket.

    Args:
        trained: a ``state_dict`` whose magnitudes decide; None takes the model's own weights.

    Example:
        >>> LargestWeights().scores(nn.Linear(2, 1), ["weight"])["weight"].shape
        torch.Size([1, 2])
    """

    uses_up: ClassVar[bool] = False
    trained: Mapping[str, Tensor] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.trained is not None:
            check_type(self.trained, Mapping, "trained", "trained_model.state_dict()")

    def best(
        self,
        worth: Mapping[str, Tensor],
        layers: Sequence[PlannedLayer],
        pattern: Pattern,
        free: Mapping[str, Tensor],
        seed: int,
    ) -> dict[str, Tensor]:
        """Keep the largest; say so if some of them are zeros, which nothing chooses among."""
        chosen = super().best(worth, layers, pattern, free, seed)
        zeros = {name: int((units & (worth[name] == 0)).sum()) for name, units in chosen.items()}
        if self.scope != "ratios" and any(zeros.values()):
            logger.warning(
                "LargestWeights keeps %d weights that are zero (%s), the first it finds: the "
                "model is pruned already, to a lower density than the method's. To begin with its "
                "own zeros, use start=regrow.engine.kept.KeptWeights()",
                sum(zeros.values()),
                ", ".join(name for name, count in zeros.items() if count),
            )
        return chosen

    def scores(self, model: nn.Module, names: Sequence[str]) -> dict[str, Tensor]:
        """Return |w|."""
        if self.trained is None:
            return {name: model.get_parameter(name).detach().abs() for name in names}
        missing = [name for name in names if name not in self.trained]
        if missing:
            raise ValueError(f"trained has no {', '.join(missing)}: pass the model's state_dict()")
        weights = {name: model.get_parameter(name) for name in names}
        for name, weight in weights.items():
            if (shape := self.trained[name].shape) != weight.shape:
                raise ValueError(
                    f"trained[{name!r}] has shape {tuple(shape)}, the model's weight "
                    f"{tuple(weight.shape)}: pass the state_dict() of the same model, trained"
                )
        return {
            name: self.trained[name].to(weight.device).abs() for name, weight in weights.items()
        }


@dataclass(frozen=True, kw_only=True)
class _OfLoss(Start):
    """Scores weights by derivatives of a loss, which :meth:`scores_over` takes over all ranks."""

    loss: Loss

    def __post_init__(self) -> None:
        super().__post_init__()
        if not callable(self.loss):
            raise TypeError(
                f"loss={self.loss!r}: a function of the model is needed, such as "
                "lambda model: cross_entropy(model(images), labels)"
            )

    def scores(self, model: nn.Module, names: Sequence[str]) -> dict[str, Tensor]:
        """Score by this process's loss alone."""
        return self.scores_over(ALONE, model, names)


@dataclass(frozen=True, kw_only=True)
class Snip(_OfLoss):
    """|w · ∂L/∂w|: what the loss would change by, to first order, if the weight went.

    Source: SNIP (Lee et al. 2019, arXiv 1810.02340). ``scope="ratios"`` is what several public
    codes call SNIP: random masks with the layer densities that SNIP gives.

    Args:
        loss: computes the loss of a model on a batch, such as
            ``lambda model: cross_entropy(model(images), labels)``. Of ranks that train together,
            each gives its own, and their mean counts.

    Example:
        >>> layer = nn.Linear(2, 1, bias=False)
        >>> _ = nn.init.constant_(layer.weight, 2.0)
        >>> start = Snip(loss=lambda model: model(torch.tensor([[1.0, 3.0]])).sum())
        >>> start.scores(layer, ["weight"])["weight"].tolist()
        [[2.0, 6.0]]
    """

    def scores_over(
        self, ranks: Ranks, model: nn.Module, names: Sequence[str]
    ) -> dict[str, Tensor]:
        """Return |w·g|, g being the gradient of the mean of all ranks' losses."""
        weights = [model.get_parameter(name) for name in names]
        # The mean comes before the absolute value: the mean of |w g| over ranks would be another
        # score.
        gradients = ranks.mean(_gradients(self.loss(model), weights))
        return {name: product.abs() for name, product in _times(weights, gradients, names).items()}


@dataclass(frozen=True, kw_only=True)
class Grasp(_OfLoss):
    """w · (H g): weights whose removal would hurt the flow of gradients most are kept.

    Source: GraSP (Wang et al. 2020, arXiv 2002.07376): the weights with the largest -w·Hg are
    removed. The paper divides logits by a temperature of 200: do so in ``loss``, on a batch with
    some ten samples of every class.

    Args:
        loss: computes the loss of a model on a batch, as for :class:`Snip`.

    Example:
        >>> layer = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.constant_(layer.weight, 2.0)
        >>> start = Grasp(loss=lambda model: model(torch.ones(1, 1)).square().sum())
        >>> start.scores(layer, ["weight"])["weight"].tolist()
        [[16.0]]
    """

    def scores_over(
        self, ranks: Ranks, model: nn.Module, names: Sequence[str]
    ) -> dict[str, Tensor]:
        """Return w·(Hg), g and H being gradient and Hessian of the mean of all ranks' losses."""
        weights = [model.get_parameter(name) for name in names]
        # Hg is the gradient of the product of g with itself, the one factor held constant: no
        # Hessian is formed.
        own = _gradients(self.loss(model), weights, create_graph=True)
        gradients = ranks.mean(own)
        product = sum((o * g).sum() for o, g in zip(own, gradients, strict=True))
        assert isinstance(product, Tensor)
        return _times(weights, ranks.mean(_gradients(product, weights)), names)


@dataclass(frozen=True, kw_only=True)
class SynapticFlow(Start):
    """|w| times the flow through it, pruned in rounds: keeps every layer connected, without data.

    With all weights replaced by their magnitudes and an input of ones, R = Σ outputs; the score is
    |w · ∂R/∂w|. In round r of n the density is dʳᐟⁿ.

    Source: SynFlow (Tanaka et al. 2020, arXiv 2006.05467), 100 rounds. The copy is evaluated in
    float64 and eval mode, with batch statistics' own values made positive as in the released code.

    Args:
        inputs: an example input tensor; only its shape matters.
        rounds: pruning rounds, at least 1.

    Example:
        >>> start = SynapticFlow(inputs=torch.zeros(1, 2), rounds=1)
        >>> layer = nn.Linear(2, 1, bias=False)
        >>> _ = nn.init.constant_(layer.weight, -2.0)
        >>> start.scores(layer, ["weight"])["weight"].tolist()
        [[2.0, 2.0]]
    """

    inputs: Tensor
    rounds: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        check_type(self.inputs, Tensor, "inputs", "torch.zeros(1, 3, 32, 32)")
        check_integer(self.rounds, "rounds", 1)

    def scores(self, model: nn.Module, names: Sequence[str]) -> dict[str, Tensor]:
        """Return the flow of a model whose weights are as they are."""
        # A product over all layers of many magnitudes overflows float32 in deep networks.
        model = model.double().eval()
        with torch.no_grad():
            for name, value in model.state_dict().items():
                if value.is_floating_point():
                    value.abs_()
                    if name.split(".")[-1].startswith(("bias", "running_mean")):
                        value.zero_()
        return self._flow(model, names)

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
        """Choose in rounds: score, prune a little, score what is left."""
        free, names = free or {}, [layer.name for layer in layers]
        twin = copy.deepcopy(model)
        flow = self.scores(twin, names)  # no data: all ranks see the same
        for round_ in range(1, self.rounds):
            # Flow is scored anew for what is left: in one go SynFlow, too, would all but empty some
            # layers.
            worth = _of_free(_by_unit(flow, layers, pattern), free)
            chosen = self.highest(worth, layers, pattern, free, round_ / self.rounds)
            _prune_(twin, layers, pattern, chosen, free)
            flow = self._flow(twin, names)
        worth = _of_free(_by_unit(flow, layers, pattern), free)
        return self.best(worth, layers, pattern, free, seed)

    def _flow(self, model: nn.Module, names: Sequence[str]) -> dict[str, Tensor]:
        weights = [model.get_parameter(name) for name in names]
        ones = torch.ones(
            (1, *self.inputs.shape[1:]), dtype=torch.float64, device=weights[0].device
        )
        gradients = _gradients(model(ones).sum(), weights)
        return {name: product.abs() for name, product in _times(weights, gradients, names).items()}


def _gradients(value: Tensor, weights: Sequence[Tensor], **options: Any) -> tuple[Tensor, ...]:
    """Differentiate a scalar; weights that took no part have zero gradient."""
    gradients = torch.autograd.grad(value, weights, allow_unused=True, **options)
    return tuple(
        torch.zeros_like(w) if g is None else g for w, g in zip(weights, gradients, strict=True)
    )


def _times(
    weights: Sequence[Tensor], gradients: Sequence[Tensor], names: Sequence[str]
) -> dict[str, Tensor]:
    """Multiply weights by gradients, which must be finite."""
    bad = [n for n, g in zip(names, gradients, strict=True) if not bool(g.isfinite().all())]
    if bad:
        raise FloatingPointError(
            f"the score of {', '.join(bad)} is NaN or infinite at the start: check loss and inputs"
        )
    return {n: w * g for n, w, g in zip(names, weights, gradients, strict=True)}


def _counts(
    layers: Sequence[PlannedLayer], free: Mapping[str, Tensor], share: float = 1.0
) -> dict[str, int]:
    """Return how many units each layer keeps, a share of the way (in logarithms) to its density."""
    counts = {}
    for layer in layers:
        n_free = int(free[layer.name].sum()) if layer.name in free else layer.units
        kept = min(layer.initial, n_free)
        counts[layer.name] = math.ceil(n_free * (kept / n_free) ** share) if share < 1 else kept
    return counts


def _count_over_all(
    layers: Sequence[PlannedLayer], free: Mapping[str, Tensor], share: float = 1.0
) -> int:
    """Return how many units all layers keep together: the density of them all, rounded once.

    Rounded layer by layer, a model of many small layers has some more or fewer than its density
    says, and in the rounds of SynFlow another density than that of the whole.
    """
    n_free, wanted = 0, 0.0
    for layer in layers:
        own = int(free[layer.name].sum()) if layer.name in free else layer.units
        n_free += own
        wanted += min(layer.initial_density * layer.units, own)  # some of it may be held
    kept: float = n_free * (wanted / n_free) ** share
    return max(math.ceil(kept) if share < 1 else math.floor(kept + 0.5), len(layers))


def _of_free(worth: Mapping[str, Tensor], free: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what units are worth, -∞ where they cannot be chosen."""
    return {
        name: value.masked_fill(~free[name], -math.inf) if name in free else value
        for name, value in worth.items()
    }


@torch.no_grad()
def _prune_(
    model: nn.Module,
    layers: Sequence[PlannedLayer],
    pattern: Pattern,
    chosen: Mapping[str, Tensor],
    free: Mapping[str, Tensor],
) -> None:
    """Set all weights to zero, except those chosen and those held."""
    for layer in layers:
        units = chosen[layer.name]
        kept = units | ~free[layer.name] if layer.name in free else units
        spread = turned(pattern, layer.layout).expand(kept, layer.shape)
        model.get_parameter(layer.name).mul_(spread)


def _by_unit(
    scores: Mapping[str, Tensor], layers: Sequence[PlannedLayer], pattern: Pattern
) -> dict[str, Tensor]:
    """Sum the scores of every unit's weights."""
    bad = [name for name, score in scores.items() if not bool(score.isfinite().all())]
    if bad:
        raise FloatingPointError(
            f"the score of {', '.join(bad)} is NaN or infinite: check the model's weights"
        )
    return {
        layer.name: turned(pattern, layer.layout).reduce(scores[layer.name].detach())
        for layer in layers
    }


def _best_over_all(worth: Mapping[str, Tensor], k: int) -> dict[str, Tensor]:
    """Select the k highest of all layers together, at least one in each."""
    flat = torch.cat([value.reshape(-1) for value in worth.values()])
    # Scored globally, a narrow layer can lose every unit (layer collapse): its best one is kept in
    # any case.
    firsts = torch.cat([top_k(value.reshape(-1), 1) for value in worth.values()])
    chosen = firsts | top_k(flat, k - len(worth), ~firsts)
    parts = chosen.split([value.numel() for value in worth.values()])
    return {
        name: part.reshape(value.shape)
        for (name, value), part in zip(worth.items(), parts, strict=True)
    }
