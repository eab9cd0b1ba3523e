"""Many small sparse networks trained as one, by one product a layer."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from regrow.engine.selection import bottom_k, random_k
from regrow.features.importance import gram_attribution

__all__ = ["Ensemble", "EnsembleSetting"]

_FIRST, _SECOND = 0, 2


@dataclass(frozen=True, kw_only=True)
class EnsembleSetting:
    """How the networks of an ensemble look and learn.

    Args:
        members: networks, e.
        width: hidden units (ReLU) of each, h.
        density: of each network's first layer; it holds max(density · d, min(d, K)) · h links for d
            inputs of which K are wanted, and is full once there are no more places.
        learning_rate: constant in the first half of the run, then falling to half of it.
        weight_decay: the share of each weight lost at a step of learning rate 0.01.
        noise: standard deviation of the noise added to inputs.
        dropout: the share of inputs left out at each step, for each row anew.
        drop_fraction: the share of links that a network exchanges when inputs are dropped.
    """

    members: int = 10
    width: int = 32
    density: float = 0.2
    learning_rate: float = 1e-2
    weight_decay: float = 1e-3
    noise: float = 0.3
    dropout: float = 0.5
    drop_fraction: float = 0.3


class Ensemble:
    """e networks d-h-C over the same inputs, without a graph: gradients are written out.

    Adam's second moment is one number for each network and tensor. Moments of single weights would
    move an input that is noise as fast as one that tells something.

    Args:
        inputs: d.
        outputs: C.
        links: in the first layer of each network.
        setting: how the networks look and learn.
        generator: draws everything.
        relative: whether outputs count only relative to each other, as those of a softmax do.

    Example:
        >>> ensemble = Ensemble(5, 2, 40, EnsembleSetting(), torch.Generator().manual_seed(0))
        >>> ensemble.first.shape, ensemble.mask.sum((1, 2)).unique().tolist()
        (torch.Size([10, 32, 5]), [40.0])
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        links: int,
        setting: EnsembleSetting,
        generator: torch.Generator,
        *,
        relative: bool = True,
    ) -> None:
        e, h = setting.members, setting.width
        self.setting, self.links, self._generator = setting, links, generator
        self._relative = relative
        everywhere = torch.ones(h, inputs, dtype=torch.bool)
        full = min(links, h * inputs)
        self.mask = torch.stack([random_k(full, everywhere, generator) for _ in range(e)]).float()
        spread = 0.3 / math.sqrt(max(full / h, 1.0))  # small: inputs are to earn their weights
        self.first = torch.randn(e, h, inputs, generator=generator).mul_(spread).mul_(self.mask)
        self.first_bias = torch.zeros(e, h)
        self.second = torch.randn(e, h, outputs, generator=generator) / math.sqrt(h)
        self.second_bias = torch.zeros(e, 1, outputs)
        self._moments = [torch.zeros_like(weight) for weight in self._parameters()]
        self._squares = torch.zeros(4, e)
        self.steps = 0

    def outputs(self, x: Tensor) -> Tensor:
        """Return the outputs of all networks for rows of shape (B, d): shape (e, B, C)."""
        return torch.baddbmm(self.second_bias, self._hidden(x).relu_(), self.second)

    def step_(
        self, x: Tensor, error: Callable[[Tensor], Tensor], weights: Tensor, learning_rate: float
    ) -> None:
        """Learn from one batch.

        Args:
            x: rows of shape (B, d), before noise and dropout.
            error: the gradient of the summed loss with respect to outputs of shape (e, B, C).
            weights: of the rows in each network, shape (e, B).
            learning_rate: of this step.
        """
        x = self._disturbed(x)
        hidden = self._hidden(x)
        active = hidden > 0
        hidden.mul_(active)
        outputs = torch.baddbmm(self.second_bias, hidden, self.second)
        weights = weights / weights.sum(1, keepdim=True).clamp_(min=1e-12)
        delta = error(outputs) * weights.unsqueeze(2)
        back = torch.bmm(delta, self.second.transpose(1, 2)).mul_(active)
        gradients = (
            (back.transpose(0, 1).reshape(len(x), -1).T @ x).view_as(self.first).mul_(self.mask),
            back.sum(1),
            torch.bmm(hidden.transpose(1, 2), delta),
            delta.sum(1, keepdim=True),
        )
        self._adam_(gradients, learning_rate)

    def importance(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return attribution and strength of each input in each network, both of shape (e, d).

        Each is divided by its mean over inputs, so that networks have the same say.
        """
        active = (self._hidden(x) > 0).float()
        attribution = gram_attribution(self.first, active, self.second, centred=self._relative)
        strength = self.first.square().sum(1).sqrt_()
        return _relative(attribution), _relative(strength)

    def keep_(self, places: Tensor) -> None:
        """Remove all inputs but these, and let every network regrow its links among them.

        Args:
            places: ascending indices of inputs.
        """
        self.first, self.mask = self.first[:, :, places], self.mask[:, :, places]
        self._moments[0] = self._moments[0][:, :, places]
        for member, mask in enumerate(self.mask):
            self.mask[member] = self._exchanged(self.first[member], mask > 0)
        self.first.mul_(self.mask)
        self._moments[0].mul_(self.mask)

    def _exchanged(self, weight: Tensor, active: Tensor) -> Tensor:
        """Drop the smallest links, and grow at random to the constant number: SET."""
        links = min(self.links, weight.numel())
        present = int(active.sum())
        stay = min(present, math.ceil((1 - self.setting.drop_fraction) * links))
        kept = active & ~bottom_k(weight.abs(), present - stay, active)
        return kept | random_k(links - stay, ~kept, self._generator)

    def _parameters(self) -> tuple[Tensor, ...]:
        return self.first, self.first_bias, self.second, self.second_bias

    def _hidden(self, x: Tensor) -> Tensor:
        """Return the hidden units before ReLU, shape (e, B, h)."""
        e, h, d = self.first.shape
        product = x @ self.first.view(e * h, d).T
        return product.view(len(x), e, h).transpose(0, 1) + self.first_bias.unsqueeze(1)

    def _disturbed(self, x: Tensor) -> Tensor:
        share = 1 - self.setting.dropout
        noisy = x + self.setting.noise * torch.randn(x.shape, generator=self._generator)
        return noisy.mul_(torch.rand(x.shape, generator=self._generator) < share).div_(share)

    def _adam_(self, gradients: tuple[Tensor, ...], learning_rate: float) -> None:
        self.steps += 1
        decay = 1 - learning_rate / 0.01 * self.setting.weight_decay
        for place, (weight, gradient) in enumerate(zip(self._parameters(), gradients, strict=True)):
            moment, square = self._moments[place], self._squares[place]
            moment.lerp_(gradient, 0.1)
            square.lerp_(gradient.square().flatten(1).mean(1), 0.01)
            size = (square / (1 - 0.99**self.steps)).sqrt_().add_(1e-12)
            rate = learning_rate / size / (1 - 0.9**self.steps)
            if place in (_FIRST, _SECOND):
                weight.mul_(decay)
            weight.sub_(moment * rate.view(-1, *[1] * (weight.ndim - 1)))
        self.first.mul_(self.mask)


def _relative(scores: Tensor) -> Tensor:
    return scores / scores.mean(1, keepdim=True).clamp_(min=1e-12)
