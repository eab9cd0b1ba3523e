"""Soft actor-critic of a population: twin critics, an actor and a temperature for each run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from regrow.control.draws import RunDraws
from regrow.control.networks import Networks, row_views
from regrow.control.setting import Setting
from regrow.control.steady import steady

__all__ = ["SAC", "squashed"]

_LOWEST, _HIGHEST = -5.0, 2.0  # of the logarithm of the actor's deviation


class SAC:
    """The agents of all runs.

    The target is y = r + γ·(1 − ended)·(min Q'(s', a') − α·log π(a'|s')); time limits do not end an
    episode. All terms are those of the published code that preference-based RL builds on.

    Args:
        seeds: of the runs.
        observations: numbers in an observation.
        actions: numbers in an action, each in −1..1.
        setting: sizes and rates.
        device: where they learn.

    Attributes:
        actor: networks, one a run.
        critic: networks, two a run.
        target: the critics' averages, in rows, masked like them.
        actor_gradient: a running average of the dense gradients of the actors' first layers.
        critic_gradient: the same of critics.

    Source: Haarnoja et al. 2018 (arXiv 1812.05905); BPref (Lee et al. 2021, arXiv 2111.03026).

    Differs from BPref: weights start as torch's linear layers do, not orthogonal; the targets move
    at every update; masked weights of targets are zero.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        observations: int,
        actions: int,
        setting: Setting,
        device: torch.device,
    ) -> None:
        self.setting, self.n_actions = setting, actions
        hidden = [setting.width] * 2
        rate = setting.learning_rate
        self.actor = Networks(seeds, 1, [observations, *hidden, 2 * actions], "actor", rate, device)
        self.critic = Networks(
            seeds, 2, [observations + actions, *hidden, 1], "critic", rate, device
        )
        self.target = self.critic.rows.detach().clone()
        self._target_weights = row_views(self.target, self.critic.sizes)
        runs = len(seeds)
        self.log_alpha = torch.full((runs, 1), math.log(setting.temperature), device=device)
        self.alpha_state = torch.zeros(3, runs, 1, device=device)  # Adam's moments and steps
        self.actor_gradient = torch.zeros_like(self.actor.mask)
        self.critic_gradient = torch.zeros_like(self.critic.mask)
        self._draws = RunDraws(seeds, "actions of updates", device)

    def act(self, observations: Tensor, noise: Tensor | None) -> Tensor:
        """Return actions (runs, B, A) in −1..1 for observations (runs, B, D).

        Args:
            observations: what is seen.
            noise: standard normal numbers (runs, B, A); None: the most likely actions.
        """
        with torch.no_grad():
            mean, log_std = self._policy(observations)
            return steady(
                torch.tanh, mean if noise is None else mean + steady(torch.exp, log_std) * noise
            )

    def update_(self, inputs: Tensor, following: Tensor, rewards: Tensor, ended: Tensor) -> None:
        """Learn from a batch: critics, then actor and temperature, then targets.

        Args:
            inputs: observations and actions, (runs, B, D + A).
            following: next observations, (runs, B, D).
            rewards: (runs, B).
            ended: 1 where an episode ended for good, (runs, B).
        """
        batch, setting = inputs.shape[1], self.setting
        noise = self._draws.normal(2, batch, self.n_actions)
        alpha = steady(torch.exp, self.log_alpha)
        ahead = self.value(following, noise[:, 0])
        wanted = rewards + setting.discount * (1 - ended) * ahead
        values = self.critic(inputs)[..., 0]
        loss = (values - wanted[:, None]).square().mean(2).sum()
        gradients = self.critic.gradients(loss)
        self.critic_gradient.lerp_(gradients[:, : self.critic.mask.shape[1]], 0.01)
        self.critic.step_(gradients)
        self._improve_(inputs[..., : following.shape[-1]], noise[:, 1], alpha)
        self.target.lerp_(self.critic.rows.detach(), setting.target_rate)
        self.mask_target_()

    @torch.no_grad()
    def value(self, observations: Tensor, noise: Tensor) -> Tensor:
        """Return min Q'(s, a) − α·log π(a|s), (runs, B), of actions drawn by noise (runs, B, A)."""
        action, log_prob = squashed(*self._policy(observations), noise)
        values = self._values(observations, action, self._target_weights).amin(1)
        return values - steady(torch.exp, self.log_alpha) * log_prob

    def _improve_(self, observations: Tensor, noise: Tensor, alpha: Tensor) -> None:
        """Move the actor and the temperature."""
        action, log_prob = squashed(*self._policy(observations), noise)
        values = self._values(observations, action, self.critic.weights).amin(1)
        gradients = self.actor.gradients((alpha * log_prob - values).mean(1).sum())
        self.actor_gradient.lerp_(gradients[:, : self.actor.mask.shape[1]], 0.01)
        self.actor.step_(gradients)
        with torch.no_grad():
            entropy = -log_prob.mean(1, keepdim=True)
            gradient = alpha * (entropy + self.n_actions)  # the entropy wanted is −A
            self._step_alpha_(gradient)

    def _step_alpha_(self, gradient: Tensor) -> None:
        first, second, steps = self.alpha_state
        steps += 1
        first.lerp_(gradient, 0.1)
        second.lerp_(gradient.square(), 0.001)
        sizes = second / (1 - steady(lambda n: 0.999**n, steps))
        rate = self.setting.temperature_rate / (1 - steady(lambda n: 0.9**n, steps))
        self.log_alpha.sub_(rate * first / (sizes.sqrt() + 1e-8))

    def _policy(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = self.actor(observations)[:, 0].chunk(2, -1)
        half = (_HIGHEST - _LOWEST) / 2
        return mean, _LOWEST + half * (steady(torch.tanh, log_std) + 1)

    def _values(self, observations: Tensor, actions: Tensor, weights: Sequence[Tensor]) -> Tensor:
        """Return both critics' values, (runs, 2, B)."""
        x = torch.cat([observations, actions], -1)
        x = x[:, None].expand(-1, 2, -1, -1).flatten(0, 1)
        values: Tensor = self.critic.each(x, weights)[..., 0].unflatten(0, (-1, 2))
        return values

    @torch.no_grad()
    def mask_target_(self) -> None:
        """Set the weights of targets to zero that the critics' mask leaves out."""
        self.target[:, : self.critic.mask.shape[1]].mul_(self.critic.mask)

    @torch.no_grad()
    def reset_(self, which: Tensor, *, actor: bool = False) -> None:
        """Start the critics of some runs anew, with their targets and Adam; the actor, if asked.

        Args:
            which: bool, shape (runs,).
            actor: whether the actor and the temperature start anew, too.
        """
        self.critic.reset_(which)
        rows = which.repeat_interleave(2)[:, None]
        self.target.copy_(torch.where(rows, self.critic.rows, self.target))
        self.critic_gradient.masked_fill_(rows, 0.0)
        if actor:
            self.actor.reset_(which)
            self.actor_gradient.masked_fill_(which[:, None], 0.0)
            self.log_alpha.masked_fill_(which[:, None], math.log(self.setting.temperature))
            self.alpha_state.masked_fill_(which[None, :, None], 0.0)

    def state_dict(self) -> dict[str, Any]:
        """Return all that changes."""
        state: dict[str, Any] = {name: getattr(self, name).clone() for name in _STATE}
        for name in ("actor", "critic", "_draws"):
            state[name] = getattr(self, name).state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state, in place."""
        for name in _STATE:
            getattr(self, name).copy_(state[name])
        for name in ("actor", "critic", "_draws"):
            getattr(self, name).load_state_dict(state[name])


_STATE = ("target", "log_alpha", "alpha_state", "actor_gradient", "critic_gradient")


def squashed(mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Return a = tanh(mean + std · noise) and log π(a), summed over the action's numbers.

    Example:
        >>> a, log_prob = squashed(torch.zeros(1, 1), torch.zeros(1, 1), torch.zeros(1, 1))
        >>> float(a), round(float(log_prob), 4)
        (0.0, -0.9189)
    """
    before = mean + steady(torch.exp, log_std) * noise
    normal = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
    stretch = 2 * (math.log(2) - before - steady(functional.softplus, -2 * before))
    return steady(torch.tanh, before), (normal - stretch).sum(-1)
