"""What published selectors differ in: network, training, and measure of importance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

__all__ = ["Importance", "Recipe", "combine", "components"]

Importance = Literal["mixed", "attribution", "strength", "sampled", "wast"]

_COMPONENTS = {
    "strength": ("strength",),
    "attribution": ("attribution",),
    "sampled": ("sampled",),
    "mixed": ("attribution", "strength"),
    "wast": ("sensitivity", "strength"),
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one perceptron looks, learns, and is read. The defaults are those of Neuron Attribution.

    Args:
        hidden: units of each hidden layer.
        activation: "relu", "tanh" or "sigmoid".
        optimizer: "adam", or "sgd" with momentum 0.9.
        nesterov: whether that momentum is Nesterov's.
        learning_rate, weight_decay: of the optimizer.
        batch_size: rows in a step.
        max_epochs: passes over the rows.
        noise: standard deviation of the noise added to inputs, drawn afresh for each batch.
        dropout: the share of hidden units left out at each step.
        epsilon: ε: each layer keeps ε·(n_in + n_out) links, at most all; None: the method's own
            density counts.
        update_each_epoch: whether the topology moves once an epoch, whatever the method says.
        accumulate: "all": scores are summed over all steps, up to the best epoch (that one
            included) where rows are held out; "last": those at the end count alone.
        score_every: steps between two scores.
        balance: λ of WAST's importance, in [0, 1].
        mean_error: whether the squared error of an autoencoder is a mean over columns, not a sum.
        prune_inputs: None, or the share of inputs above K that is still live when 65 % of the
            epochs are over: inputs are then pruned epoch by epoch, and some regrown (NeuroFS).
        execution: "masked", or "csr": active weights only are stored and computed; "auto".

    Source: Atashgahi et al. 2024 (arXiv 2408.04583), appendix A.

    Example:
        >>> Recipe(hidden=(32,)).batch_size
        100
    """

    hidden: tuple[int, ...] = (1000, 100)
    activation: Literal["relu", "tanh", "sigmoid"] = "relu"
    optimizer: Literal["adam", "sgd"] = "adam"
    nesterov: bool = False
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    batch_size: int = 100
    max_epochs: int = 200
    noise: float = 0.0
    dropout: float = 0.0
    epsilon: float | None = None
    update_each_epoch: bool = False
    accumulate: Literal["all", "last"] = "all"
    score_every: int = 1
    balance: float = 0.9
    mean_error: bool = False
    prune_inputs: float | None = None
    execution: Literal["masked", "csr", "auto"] = "masked"

    def __post_init__(self) -> None:
        allowed = {
            "activation": ("relu", "tanh", "sigmoid"),
            "optimizer": ("adam", "sgd"),
            "accumulate": ("all", "last"),
            "execution": ("masked", "csr", "auto"),
        }
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise ValueError(f"{name}={getattr(self, name)!r}: must be one of {values}")
        for name in ("batch_size", "max_epochs", "score_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)!r}: must be at least 1")
        for name in ("balance", "dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)!r}: must lie in 0..1")
        if not self.hidden or min(self.hidden) < 1:
            raise ValueError(f"hidden={self.hidden!r}: at least one layer of at least one unit")


def components(importance: str) -> tuple[str, ...]:
    """Return what has to be measured for an importance.

    Example:
        >>> components("mixed")
        ('attribution', 'strength')
    """
    return _COMPONENTS[importance]


def combine(importance: str, sums: Mapping[str, Tensor], balance: float) -> Tensor:
    """Return the scores of all inputs, shape (d,), from what was summed over a run.

    "mixed" is √(attribution · strength); "wast" is λ · sensitivity + (1 - λ) · strength.

    Example:
        >>> import torch
        >>> sums = {"attribution": torch.tensor([4.0]), "strength": torch.tensor([1.0])}
        >>> combine("mixed", sums, 0.9).tolist()
        [2.0]
    """
    if importance == "mixed":
        return (sums["attribution"] * sums["strength"]).sqrt()
    if importance == "wast":
        return balance * sums["sensitivity"] + (1 - balance) * sums["strength"]
    return sums[importance]
