"""Methods whose static topology is chosen once, by a score: SNIP, GraSP, SynFlow, OMP and LTH."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from regrow.engine.method import Method, Static
from regrow.engine.saliency import Grasp, LargestWeights, Loss, Snip, Start, SynapticFlow
from regrow.engine.saliency import Scope as StartScope

__all__ = ["LTH", "OMP", "SNIP", "GraSP", "SynFlow"]


@dataclass(frozen=True, kw_only=True)
class _OneShot(Static):
    """A static topology that is chosen at the start."""

    scope: StartScope = "global"
    start: Start | None = field(default=None, init=False)

    def _choose_by(self, start: Start) -> None:
        object.__setattr__(self, "start", start)
        Method.__post_init__(self)


@dataclass(frozen=True, kw_only=True)
class SNIP(_OneShot):
    """Keep what the loss would miss most: |w·g| on one batch, before training.

    Source: Lee et al. 2019 (arXiv 1810.02340).

    Differs from the paper: every layer keeps at least one unit. Several public codes draw random
    masks with SNIP's layer densities: ``scope="ratios"``.

    Args:
        loss: computes the loss of a model on a batch.
        scope: "global", "layer" or "ratios" (:class:`regrow.engine.saliency.Start`).

    Example:
        >>> SNIP(density=0.1, loss=lambda model: model.weight.sum()).scope
        'global'
    """

    loss: Loss

    def __post_init__(self) -> None:
        self._choose_by(Snip(loss=self.loss, scope=self.scope))


@dataclass(frozen=True, kw_only=True)
class GraSP(_OneShot):
    """Keep what gradients flow through: w·(Hg) on one batch, before training.

    Source: Wang et al. 2020 (arXiv 2002.07376); divide logits by 200 in ``loss``, as there.

    Differs from the released code: one batch, of any composition, instead of a fixed number of
    samples a class; every layer keeps at least one weight.

    Args:
        loss: computes the loss of a model on a batch.
        scope: "global", "layer" or "ratios".

    Example:
        >>> GraSP(density=0.1, loss=lambda model: model.weight.square().sum()).scope
        'global'
    """

    loss: Loss

    def __post_init__(self) -> None:
        self._choose_by(Grasp(loss=self.loss, scope=self.scope))


@dataclass(frozen=True, kw_only=True)
class SynFlow(_OneShot):
    """Keep what carries the flow from inputs to outputs, in rounds and without data.

    Source: Tanaka et al. 2020 (arXiv 2006.05467).

    Differs from the released code: biases and running means count as zero, so that no flow begins
    behind the inputs.

    Args:
        inputs: an example input tensor; only its shape matters.
        rounds: pruning rounds.
        scope: "global", "layer" or "ratios".

    Example:
        >>> import torch
        >>> SynFlow(density=0.1, inputs=torch.zeros(1, 8)).rounds
        100
    """

    inputs: Tensor = field(compare=False)
    rounds: int = 100

    def __post_init__(self) -> None:
        self._choose_by(SynapticFlow(inputs=self.inputs, rounds=self.rounds, scope=self.scope))


@dataclass(frozen=True, kw_only=True)
class OMP(_OneShot):
    """One-shot magnitude pruning: keep the largest weights of a trained model, and train on.

    Source: Han et al. 2015 (arXiv 1506.02626), in one step.

    Differs from the paper: the threshold lies over all layers together, unless ``scope="layer"``.

    Args:
        scope: "global", "layer" or "ratios".

    Example:
        >>> OMP(density=0.1).scope
        'global'
    """

    def __post_init__(self) -> None:
        self._choose_by(LargestWeights(scope=self.scope))


@dataclass(frozen=True, kw_only=True)
class LTH(_OneShot):
    """Lottery ticket: the mask of the trained weights, on the initial weights.

    Load the weights to rewind to (those at initialisation or early in training) into the model,
    and pass the trained ones. For iterative pruning, train with the ticket, pass its trained
    weights (its zeros stay zero) and lower the density round by round, by 20 % of what is left in
    the paper.

    Source: Frankle & Carbin 2019 (arXiv 1803.03635); rewinding, Frankle et al. 2020 (arXiv
    1912.05671).

    Differs from the first paper, which prunes each layer by the same share: the largest weights of
    all layers together, as in the second, unless ``scope="layer"``.

    Args:
        trained: the ``state_dict`` of the trained model.
        scope: "global", "layer" or "ratios".

    Example:
        >>> from torch import nn
        >>> LTH(density=0.2, trained=nn.Linear(2, 2).state_dict()).density
        0.2
    """

    trained: Mapping[str, Tensor] = field(compare=False, repr=False)

    def __post_init__(self) -> None:
        self._choose_by(LargestWeights(trained=self.trained, scope=self.scope))
