"""Many small networks trained as one, by one product a layer; links may be sparse."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from regrow.engine.selection import bottom_k, random_k
from regrow.features.disturbance import above, disturbed_, kept_share
from regrow.features.importance import gram_attribution

__all__ = ["Ensemble", "EnsembleSetting"]


@dataclass(frozen=True, kw_only=True)
class EnsembleSetting:
    """How the networks of an ensemble look and learn.

    Args:
        members: networks, e.
        width: hidden units (ReLU) of each, h.
        density: of each network's first layer; it holds max(density · d, min(d, K)) · h links for d
            inputs of which K are wanted, and is full once there are no more places. Below 1 links
            are drawn, and exchanged whenever inputs leave, which takes time.
        learning_rate: constant in the first half of the run, then falling to half of it.
        weight_decay: the share of each weight lost at a step of learning rate 0.01.
        noise: standard deviation of the noise added to inputs, which is uniform.
        dropout: the share of inputs left out at each step, for each row anew.
        drop_fraction: the share of links that a network exchanges when inputs are dropped.
    """

    members: int = 10
    width: int = 32
    density: float = 1.0
    learning_rate: float = 1e-2
    weight_decay: float = 1e-3
    noise: float = 0.3
    dropout: float = 0.5
    drop_fraction: float = 0.3


class Ensemble:
    """e networks d-h-C over the same inputs, without a graph: gradients are written out.

    Adam's second moment is one number for each network and tensor. Moments of single weights would
    move an input that is noise as fast as one that tells something.

    What belongs to an input lies together: inputs that leave are rows that go, and the product that
    gives the first layers' gradient takes 0.6 of the time that it takes the other way round.

    Args:
        inputs: d.
        outputs: C.
        links: in the first layer of each network.
        setting: how the networks look and learn.
        generator: draws everything.
        relative: whether outputs count only relative to each other, as those of a softmax do.

    Attributes:
        first: first layers, shape (d, e, h).
        mask: 1 where there is a link, else 0, shape (d, e, h); None once there is one everywhere.
        first_bias: shape (e, h).
        second: second layers, shape (e, C, h).
        second_bias: shape (e, C).

    Example:
        >>> ensemble = Ensemble(5, 2, 40, EnsembleSetting(), torch.Generator().manual_seed(0))
        >>> ensemble.first.shape, ensemble.mask.sum((0, 2)).unique().tolist()
        (torch.Size([5, 10, 32]), [40.0])
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
        self._relative, self._share = relative, kept_share(setting.dropout)
        full = min(links, h * inputs)
        spread = 0.3 / math.sqrt(max(full / h, 1.0))  # small: inputs are to earn their weights
        self.first = torch.randn(inputs, e, h, generator=generator).mul_(spread)
        self.mask: Tensor | None = None
        if full < h * inputs:
            everywhere = torch.ones(inputs, h, dtype=torch.bool)
            drawn = [random_k(full, everywhere, generator) for _ in range(e)]
            self.mask = torch.stack(drawn, 1).float()
            self.first.mul_(self.mask)
        # Biases and second layers are small: one tensor, so that a step has few calls.
        sizes = torch.tensor([h, outputs * h, outputs])
        self._rest = torch.zeros(e, int(sizes.sum()))
        self.first_bias, second, self.second_bias = self._rest.split(sizes.tolist(), dim=1)
        self.second = second.view(e, outputs, h)
        self.second.copy_(torch.randn(e, outputs, h, generator=generator) / math.sqrt(h))
        self._parts = torch.eye(3).repeat_interleave(sizes, dim=0)  # which tensor a number is of
        self._means = self._parts / sizes  # what takes the mean of each
        self._moments = [torch.zeros_like(self.first), torch.zeros_like(self._rest)]
        self._squares = torch.zeros(e, 4)
        self._gradient, self._spare = (torch.empty_like(self.first) for _ in range(2))
        self._seen = torch.zeros(1, e * h)  # the hidden units of the last step
        self.steps = 0

    def outputs(self, x: Tensor) -> Tensor:
        """Return the outputs of all networks for rows of shape (B, d): shape (e, C, B)."""
        return self._outputs(self._hidden(x))

    def step_(
        self, x: Tensor, error: Callable[[Tensor], Tensor], weights: Tensor, learning_rate: float
    ) -> None:
        """Learn from one batch.

        Args:
            x: rows of shape (B, d), before noise and dropout; may change.
            error: the gradient of the summed loss with respect to outputs of shape (e, C, B).
            weights: of the rows in each network, shape (e, B).
            learning_rate: of this step.
        """
        x = disturbed_(x, self.setting.noise, self.setting.dropout, self._generator)
        hidden = self._seen = self._hidden(x, 1 / self._share)
        by_network = self._by_network(hidden)
        weights = weights / weights.sum(1, keepdim=True).clamp_(min=1e-12)
        delta = error(self._outputs(hidden)) * weights.unsqueeze(1)
        back = torch.bmm(delta.transpose(1, 2), self.second).transpose(0, 1).reshape(hidden.shape)
        back = above(back, hidden, 0)
        gradient = self._gradient.view(-1, back.shape[1])
        gradient.addmm_(x.T, back, beta=0, alpha=1 / self._share)
        if self.mask is not None:
            self._gradient.mul_(self.mask)
        rest = [
            back.sum(0).view_as(self.first_bias),
            torch.bmm(delta, by_network).flatten(1),
            delta.sum(2),
        ]
        self._adam_(self._gradient, torch.cat(rest, 1), learning_rate)

    def importance(self) -> tuple[Tensor, Tensor]:
        """Return attribution and strength of each input in each network, both of shape (e, d).

        Attribution takes the hidden units as active that were so in the last step. Each is divided
        by its mean over inputs, so that networks have the same say.
        """
        active = (self._by_network(self._seen) > 0).float()
        first = self.first.transpose(0, 1)
        attribution = gram_attribution(first, active, self.second, centred=self._relative)
        return _relative(attribution), _relative(torch.linalg.vector_norm(first, dim=2))

    def keep_(self, places: Tensor) -> None:
        """Remove all inputs but these; networks that are sparse regrow their links among them.

        Args:
            places: ascending indices of inputs.
        """
        self.first, self._moments[0] = self.first[places], self._moments[0][places]
        self._gradient, self._spare = self._gradient[: len(places)], self._spare[: len(places)]
        if self.mask is None:
            return
        mask = self.mask[places]
        if self.links >= self.first[:, 0].numel():
            self.mask = None
            return
        for member in range(self.setting.members):
            mask[:, member] = self._exchanged(self.first[:, member], mask[:, member] > 0)
        self.mask = mask
        self.first.mul_(mask)
        self._moments[0].mul_(mask)

    def _exchanged(self, weight: Tensor, active: Tensor) -> Tensor:
        """Drop the smallest links, and grow at random to the constant number: SET."""
        present = int(active.sum())
        stay = min(present, math.ceil((1 - self.setting.drop_fraction) * self.links))
        kept = active & ~bottom_k(weight.abs(), present - stay, active)
        return kept | random_k(self.links - stay, ~kept, self._generator)

    def _hidden(self, x: Tensor, scale: float = 1.0) -> Tensor:
        """Return the hidden units after ReLU, shape (B, e·h); inputs are multiplied by a scale."""
        bias = self.first_bias.reshape(1, -1)
        return torch.addmm(bias, x, self.first.view(len(self.first), -1), alpha=scale).relu_()

    def _by_network(self, hidden: Tensor) -> Tensor:
        return hidden.view(len(hidden), *self.first_bias.shape).transpose(0, 1)

    def _outputs(self, hidden: Tensor) -> Tensor:
        bias = self.second_bias.unsqueeze(2)
        return torch.baddbmm(bias, self.second, self._by_network(hidden).transpose(1, 2))

    def _adam_(self, first: Tensor, rest: Tensor, learning_rate: float) -> None:
        """Make a step of the optimizer, given the gradients of the first layers and of the rest."""
        self.steps += 1
        of_first = torch.mul(first, first, out=self._spare).sum(0).mean(1) / len(first)
        of_rest = rest.square() @ self._means
        self._squares.lerp_(torch.cat([of_first.unsqueeze(1), of_rest], 1), 0.01)
        size = (self._squares / (1 - 0.99**self.steps)).sqrt_().add_(1e-12)
        rates = learning_rate / (1 - 0.9**self.steps) / size
        for moment, gradient in zip(self._moments, (first, rest), strict=True):
            moment.lerp_(gradient, 0.1)
        for weight in (self.first, self.second):
            weight.mul_(1 - learning_rate / 0.01 * self.setting.weight_decay)
        rate = rates[:, :1].expand_as(self.first_bias).contiguous()
        self.first.addcmul_(self._moments[0], rate, value=-1)
        self._rest.addcmul_(self._moments[1], rates[:, 1:] @ self._parts.T, value=-1)


def _relative(scores: Tensor) -> Tensor:
    return scores / scores.mean(1, keepdim=True).clamp_(min=1e-12)
