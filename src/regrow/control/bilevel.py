"""Bi-level learning of rewards: reward models move so that critics agree with comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from regrow.control.draws import RunDraws
from regrow.control.networks import DECAYS, Networks, joined, split_rows
from regrow.control.replay import Replay
from regrow.control.reward import RewardModels, cross_entropy
from regrow.control.sac import SAC
from regrow.control.setting import Arm, Setting
from regrow.control.steady import steady

__all__ = ["Bilevel", "adam_step"]


class Bilevel:
    """Moves the reward models of some runs by what a step on their rewards does to the critics.

    Inner: critics make one step of Adam on (Q − r̂ − γ·V')². Outer: the cross-entropy of the latest
    comparisons with σ(Q(s₁, a₁) − Q(s₀, a₀)), of both critics after that step, at the first step
    of each segment; reward models go down its gradient, through the inner step.

    Args:
        seeds: of the runs.
        arms: of the runs; those with bilevel move.
        setting: sizes.
        device: where they are.

    Source: MRN (Liu et al. 2022, Meta-Reward-Net); its public code was read, not the paper, and
        neither was run: that these agree in numbers is not verified.

    Differs from MRN's code: the second moments of the inner Adam are taken as they would be, but no
    gradient flows through them; critics then learn from another batch. The weight of the outer loss
    is left out: Adam does not heed it.
    """

    def __init__(
        self, seeds: Sequence[int], arms: Sequence[Arm], setting: Setting, device: torch.device
    ) -> None:
        self.setting = setting
        which = [arm.bilevel and not arm.true_reward for arm in arms]
        self.which, self.acts = torch.tensor(which, device=device), any(which)
        self._batches = RunDraws(seeds, "batches of bi-level updates", device)
        self._actions = RunDraws(seeds, "actions of bi-level updates", device)

    def due(self, step: int) -> bool:
        """Whether there is an update after a step."""
        setting, first = self.setting, self.setting.first_feedback
        last = first + (setting.feedbacks - 1) * setting.feedback_every
        return self.acts and first < step < last and step % setting.bilevel_every == 0

    def step_(self, agent: SAC, models: RewardModels, replay: Replay) -> None:
        """Move the reward models of these runs once.

        Args:
            agent: whose critics are looked at; it stays as it is.
            models: moved.
            replay: of the transitions that critics would learn from.
        """
        places = replay.places(self._batches.uniform(self.setting.batch))
        inputs, following, _, ended = replay.sample(places)
        weights = self._inner(agent, models, inputs, following, ended)
        outer = self._outer(agent.critic, weights, models)
        gradients = models.networks.gradients(outer)
        on = (self.which[:, None] & (models.count > 0)).float()
        models.networks.step_(gradients, on.repeat_interleave(self.setting.reward_members, 0))

    def _inner(
        self, agent: SAC, models: RewardModels, inputs: Tensor, following: Tensor, ended: Tensor
    ) -> list[Tensor]:
        """Return the critics' weights after a step, through which gradients flow to rewards."""
        critic = agent.critic
        noise = self._actions.normal(following.shape[1], agent.n_actions)
        ahead = agent.value(following, noise)
        wanted = models(inputs).mean(1) + self.setting.discount * (1 - ended) * ahead
        values = critic(inputs)[..., 0]
        loss = (values - wanted[:, None]).square().mean(2).sum()
        parts = torch.autograd.grad(loss, critic.weights, create_graph=True)
        return split_rows(adam_step(critic, joined([p.flatten(1) for p in parts])), critic.sizes)

    def _outer(self, critic: Networks, weights: list[Tensor], models: RewardModels) -> Tensor:
        """Return the sum of all runs' losses on their latest comparisons."""
        number = min(self.setting.reward_batch, models.labels.shape[1])
        places = models.count - 1 - torch.arange(number, device=models.count.device)
        there = (places >= 0).float()
        rows = torch.arange(len(places), device=places.device)[:, None]
        places = places.clamp(min=0)
        firsts = models.clips[rows, places, :, 0].flatten(1, 2)
        x = firsts[:, None].expand(-1, 2, -1, -1).flatten(0, 1)
        values = critic.each(x, weights)[..., 0].view(len(places), 2, number, 2)
        apart = values[..., 1] - values[..., 0]
        labels = models.labels[rows, places][:, None]
        losses = cross_entropy(apart, labels).mul(there[:, None]).sum((1, 2))
        return (losses / there.sum(1).clamp(min=1)).sum()

    def state_dict(self) -> dict[str, Any]:
        """Return all that changes."""
        return {"batches": self._batches.state_dict(), "actions": self._actions.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self._batches.load_state_dict(state["batches"])
        self._actions.load_state_dict(state["actions"])


def adam_step(nets: Networks, gradients: Tensor) -> Tensor:
    """Return the rows of networks after a step of their Adam, which stays as it is.

    Gradients flow through the gradients and the first moments.

    Args:
        nets: whose weights and moments are read.
        gradients: in rows, dense.
    """
    inputs = nets.mask.shape[1]
    masked = torch.cat([gradients[:, :inputs] * nets.mask, gradients[:, inputs:]], 1)
    steps = nets.steps + 1
    first = 0.9 * nets.first + 0.1 * masked
    second = (0.999 * nets.second + 0.001 * masked.square()).detach()
    faded = [1 - steady(decay, steps) for decay in DECAYS]
    sizes = (second / faded[1]).sqrt() + 1e-8
    return nets.rows.detach() - nets.learning_rate / faded[0] * first / sizes
