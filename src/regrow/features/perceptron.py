"""A sparse perceptron, trained as in the papers, that measures its inputs' importance."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn

from regrow.engine.dynamic import Dynamic
from regrow.engine.method import Method
from regrow.engine.selection import top_k
from regrow.engine.sparsify import sparsify
from regrow.features.importance import attribution, sampled_attribution, strength
from regrow.features.recipe import Recipe
from regrow.features.targets import Targets

__all__ = ["ACTIVATIONS", "Perceptron"]

# Each activation, and its slope as a function of its value.
ACTIVATIONS: Mapping[str, tuple[type[nn.Module], Callable[[Tensor], Tensor]]] = {
    "relu": (nn.ReLU, lambda y: (y > 0).to(y)),
    "tanh": (nn.Tanh, lambda y: 1 - y.square()),
    "sigmoid": (nn.Sigmoid, lambda y: y * (1 - y)),
}


class Perceptron:
    """A sparse perceptron and its optimizer.

    Args:
        inputs: d.
        outputs: C.
        recipe: how it looks and learns.
        method: what moves its topology.
        total_steps: of the whole run.
        epoch: steps in one epoch.
        generator: draws everything.

    Example:
        >>> from regrow import SET
        >>> recipe = Recipe(hidden=(4,))
        >>> net = Perceptron(3, 2, recipe, SET(density=0.5), 10, 2, torch.Generator())
        >>> net.outputs(torch.zeros(5, 3)).shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        recipe: Recipe,
        method: Method,
        total_steps: int,
        epoch: int,
        generator: torch.Generator,
    ) -> None:
        self._recipe, self._generator = recipe, generator
        self._activation, self._slope = ACTIVATIONS[recipe.activation]
        layers: list[nn.Module] = []
        for before, after in pairwise([inputs, *recipe.hidden, outputs]):
            layers += [_linear(before, after, generator), self._activation()]
        self.model = nn.Sequential(*layers[:-1])
        self._optimizer = _optimizer(self.model, recipe)
        if recipe.epsilon is not None:
            method = replace(method, density=_densities(self.model, recipe.epsilon))
        if recipe.update_each_epoch and isinstance(method, Dynamic):
            method = replace(method, update_every=epoch)
        self.sparse = sparsify(
            self.model,
            self._optimizer,
            method,
            total_steps=total_steps,
            execution=recipe.execution,
            example_inputs=torch.zeros(2, inputs),
            seed=generator.initial_seed(),
        )

    def outputs(self, x: Tensor) -> Tensor:
        """Return the outputs for rows of shape (B, d), without a graph."""
        with torch.no_grad():
            result: Tensor = self.model(x)
        return result

    def step_(
        self, x: Tensor, targets: Targets, rows: Tensor, weights: Tensor, wanted: tuple[str, ...]
    ) -> dict[str, Tensor]:
        """Learn from one batch; return the importance of the inputs before the step.

        Args:
            x: rows of shape (B, d).
            targets: of all rows.
            rows: which these are.
            weights: of these rows, shape (B,).
            wanted: components to return, each of shape (d,).
        """
        if self._recipe.noise:
            x = x + self._recipe.noise * torch.randn(x.shape, generator=self._generator)
        x.requires_grad_("sensitivity" in wanted)
        hidden = self._forward(x)
        worth = self._worth(x, hidden, wanted)
        losses = targets.loss(hidden[-1], rows)
        loss = (losses * weights).sum() / weights.sum().clamp(min=1e-12)
        self._optimizer.zero_grad()
        loss.backward()
        if "sensitivity" in wanted:
            worth["sensitivity"] = cast(Tensor, x.grad).abs().mean(0) * len(x)
        self._optimizer.step()
        return worth

    def strength(self) -> Tensor:
        """Return Σ|w| of each input, shape (d,); stored layers are not made dense."""
        first = cast(Any, self.model[0])
        weight = first.weight.detach()
        if weight.ndim == 2:
            return strength(weight)
        total = torch.zeros(first.in_features)
        return total.index_add_(0, first.index.positions % first.in_features, weight.abs())

    @torch.no_grad()
    def prune_inputs_(self, n_live: int) -> None:
        """Set the links of all inputs to zero but those of the strongest.

        They stay in the topology, whose next update drops the smallest first: a pruned input comes
        back only by links that earn their place.

        Args:
            n_live: how many inputs keep their links, from 1 to d.
        """
        live = top_k(self.strength(), n_live)
        first = cast(Any, self.model[0])
        if first.weight.ndim == 2:
            first.weight.mul_(live)
        else:
            first.weight.mul_(live[first.index.positions % first.in_features])

    def _forward(self, x: Tensor) -> list[Tensor]:
        """Return the activations of hidden layers, before dropout, and the outputs."""
        activations, share = [], 1 - self._recipe.dropout
        for layer in self.model:
            x = layer(x)
            if isinstance(layer, self._activation):
                activations.append(x)
                if share < 1:
                    kept = torch.rand(x.shape, generator=self._generator) < share
                    x = x * kept / share
        return [*activations, x]

    def _worth(self, x: Tensor, hidden: list[Tensor], wanted: tuple[str, ...]) -> dict[str, Tensor]:
        """Return what can be told before the backward pass."""
        worth = {}
        if "strength" in wanted:
            worth["strength"] = self.strength()
        if not {"attribution", "sampled"} & set(wanted):
            return worth
        weights = [layer.weight.detach() for layer in self._linears()]
        if any(weight.ndim < 2 for weight in weights):
            return worth | self._traced(x, wanted, hidden[-1].shape[1])
        slopes = [self._slope(h.detach()) for h in hidden[:-1]]
        if "attribution" in wanted:
            worth["attribution"] = attribution(weights, slopes)
        if "sampled" in wanted:
            worth["sampled"] = sampled_attribution(weights, slopes, self._generator)
        return worth

    def _linears(self) -> list[Any]:
        return [layer for layer in self.model if hasattr(layer, "weight")]

    def _traced(self, x: Tensor, wanted: tuple[str, ...], n_outputs: int) -> dict[str, Tensor]:
        """Return attributions by backward passes, through layers that have no dense weight."""
        x = x.detach().requires_grad_()
        with _nothing_captured(self._linears()):
            outputs = self.model(x)

            def slope(directions: Tensor) -> Tensor:
                return torch.autograd.grad(outputs, x, directions, retain_graph=True)[0]

            attributions = {}
            if "attribution" in wanted:
                each = torch.eye(n_outputs).unsqueeze(1).expand(n_outputs, *outputs.shape)
                attributions["attribution"] = sum(
                    (slope(one).abs().mean(0) for one in each), start=torch.zeros(())
                )
            if "sampled" in wanted:
                signs = torch.randint(2, outputs.shape, generator=self._generator) * 2.0 - 1
                attributions["sampled"] = slope(signs).square().mean(0)
        return attributions


@contextmanager
def _nothing_captured(layers: list[Any]) -> Iterator[None]:
    """Keep stored layers from taking down backward passes that are none of the loss's."""
    capturing = [layer for layer in layers if getattr(layer, "captures", False)]
    for layer in capturing:
        layer.captures = False
    try:
        yield
    finally:
        for layer in capturing:
            layer.captures = True


def _densities(model: nn.Module, epsilon: float) -> dict[str, float]:
    """Return ε(n_in + n_out)/(n_in n_out) of each layer, at most 1."""
    weights = {name: w for name, w in model.named_parameters() if w.ndim == 2}
    return {name: min(epsilon * sum(w.shape) / w.numel(), 1.0) for name, w in weights.items()}


def _linear(before: int, after: int, generator: torch.Generator) -> nn.Linear:
    """Make a linear layer as torch does, without the global generator."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, before, after)
    bound = 1 / math.sqrt(before)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.uniform_(-bound, bound, generator=generator)
    return layer


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    if recipe.optimizer == "adam":
        return torch.optim.Adam(
            model.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay
        )
    return torch.optim.SGD(
        model.parameters(),
        recipe.learning_rate,
        momentum=0.9,
        nesterov=recipe.nesterov,
        weight_decay=recipe.weight_decay,
    )
