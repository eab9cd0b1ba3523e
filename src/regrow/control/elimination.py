"""Whole features leave all networks of a run, by what the ensemble says of them; with probation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from regrow.control.draws import RunDraws
from regrow.control.networks import Networks
from regrow.control.reward import RewardModels
from regrow.control.sac import SAC
from regrow.control.setting import Arm
from regrow.control.steady import steady
from regrow.engine.selection import top_per_group

__all__ = ["FeatureElimination", "agreement", "rms"]


class FeatureElimination:
    """Which features the runs still read, of those whose arms say "features".

    The number of features falls geometrically, d·keep^p, with p from 0 to 1 over the arm's window.
    At each elimination those of the highest scores stay, and some of those left out, drawn at
    random, come back on probation. Features on probation start with fresh weights and a middling
    score; the last elimination takes none on.

    Args:
        arms: of the runs.
        features: how many there are, d.
        seeds: of the runs.
        steps: of the whole run.
        device: where they are.

    Attributes:
        live: the features read, bool, (runs, d).
        scores: running averages of what they are worth, (runs, d).

    Differs from R2N, which moves single weights of each network by itself: this is ours.
    """

    def __init__(
        self,
        arms: Sequence[Arm],
        features: int,
        seeds: Sequence[int],
        steps: int,
        device: torch.device,
    ) -> None:
        self.arms, self.steps = list(arms), steps
        self.live = torch.ones(len(arms), features, dtype=torch.bool, device=device)
        self.scores = torch.zeros(len(arms), features, device=device)
        self._draws = RunDraws(seeds, "features on probation", device)
        self._agents = _chosen([arm.critic == "features" for arm in arms], device)
        self._models = _chosen([arm.reward_model == "features" for arm in arms], device)
        self._by_rms = _chosen([arm.score == "rms" for arm in arms], device)[:, None]
        self._true = _chosen([arm.true_reward for arm in arms], device)[:, None]
        self._fresh = [False] * len(arms)
        self.acts = any("features" in (arm.reward_model, arm.critic) for arm in arms)

    def counts(self, run: int, step: int) -> tuple[int, int]:
        """Return how many features of a run stay by score, and how many are on probation."""
        arm, d = self.arms[run], self.live.shape[1]
        if "features" not in (arm.reward_model, arm.critic):
            return d, 0
        begin, end = (share * self.steps for share in arm.window)
        done = min(1.0, max(0.0, (step - begin) / max(end - begin, 1.0)))
        kept = max(1, round(d * arm.keep**done))
        trial = min(kept - 1, round(arm.probation * kept)) if done < 1 and kept < d else 0
        return kept - trial, trial

    def score_(self, agent: SAC, models: RewardModels, inputs: Tensor) -> None:
        """Look at what features are worth: that of critics, and of reward models if learnt from.

        Args:
            agent: whose critics are looked at.
            models: of the reward.
            inputs: observations and actions, (runs, B, D + A).
        """
        d = self.live.shape[1]
        spread = inputs[..., :d].var(1)
        of_critics = self._worth(agent.critic, inputs, spread, squash=False)
        of_models = self._worth(models.networks, inputs, spread, squash=True)
        self.scores.lerp_(of_critics + torch.where(self._true, 0.0, of_models), 0.2)

    def _worth(self, nets: Networks, inputs: Tensor, spread: Tensor, *, squash: bool) -> Tensor:
        """Return the shares of features in what moves the networks' outputs, (runs, d)."""
        x = inputs[:, None].expand(-1, nets.members, -1, -1).flatten(0, 1).detach()
        x.requires_grad_()
        outputs = nets.each(x)
        outputs = steady(torch.tanh, outputs) if squash else outputs
        slopes = torch.autograd.grad(outputs.sum(), x)[0][..., : spread.shape[1]]
        slopes = slopes.unflatten(0, (-1, nets.members))
        worth = torch.where(self._by_rms, rms(slopes), agreement(slopes)) * spread
        return worth / worth.sum(1, keepdim=True).clamp(min=1e-12)

    @torch.no_grad()
    def eliminate_(self, step: int, agent: SAC, models: RewardModels) -> None:
        """Let features leave, and others come back on probation.

        Args:
            step: of the agent.
            agent: whose networks they leave.
            models: of the reward, which they leave, too.
        """
        device, d = self.live.device, self.live.shape[1]
        counts = [self.counts(run, step) for run in range(len(self.arms))]
        stay, trial = torch.tensor(counts, device=device).unbind(1)
        before = self.live
        best = top_per_group(self.scores, torch.minimum(stay, before.sum(1)), before)
        others = top_per_group(self._draws.uniform(d), trial, ~best)
        self.live = best | others
        middling = torch.where(best, self.scores, torch.nan).nanmedian(1, keepdim=True).values
        self.scores = torch.where(self.live & ~before, middling, self.scores)
        for nets, which in (
            (agent.actor, self._agents),
            (agent.critic, self._agents),
            (models.networks, self._models),
        ):
            self._apply_(nets, which)
        agent.mask_target_()
        self._start_anew_(step, agent)

    def _apply_(self, nets: Networks, which: Tensor) -> None:
        """Mask the features of some runs' networks; those that came back get fresh weights."""
        before, mask = nets.mask > 0, nets.input_mask()
        features = mask[:, :, : self.live.shape[1]]
        live = self.live[:, None, :, None].to(mask.dtype)
        features.copy_(torch.where(which[:, None, None, None], live, features))
        grown = (nets.mask > 0) & ~before
        drawn = self._draws.uniform(nets.members, nets.mask.shape[1]).flatten(0, 1)
        nets.apply_mask_(grown, (2 * drawn - 1) / nets.sizes[0] ** 0.5)

    def _start_anew_(self, step: int, agent: SAC) -> None:
        over = [step >= arm.window[1] * self.steps for arm in self.arms]
        due = [
            arm.reset and arm.critic == "features" and end and not fresh
            for arm, end, fresh in zip(self.arms, over, self._fresh, strict=True)
        ]
        if any(due):
            agent.reset_(_chosen(due, self.live.device), actor=True)
            self._fresh = [a or b for a, b in zip(self._fresh, due, strict=True)]

    def state_dict(self) -> dict[str, Any]:
        """Return all that changes."""
        arrays = {"live": self.live.clone(), "scores": self.scores.clone()}
        return arrays | {"fresh": list(self._fresh), "draws": self._draws.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.live.copy_(state["live"])
        self.scores.copy_(state["scores"])
        self._fresh = list(state["fresh"])
        self._draws.load_state_dict(state["draws"])


def agreement(slopes: Tensor) -> Tensor:
    """Return E[Σ over pairs of members of their slopes' product], not below 0; (runs, d).

    What members learnt by heart differs among them; what is so, they agree on.

    Args:
        slopes: of outputs by inputs, (runs, members, B, d).

    Example:
        >>> agreement(torch.tensor([[[[1.0, 1.0]], [[1.0, -1.0]]]])).tolist()
        [[2.0, 0.0]]
    """
    pairs = slopes.sum(1).square() - slopes.square().sum(1)
    return pairs.mean(1).clamp(min=0)


def rms(slopes: Tensor) -> Tensor:
    """Return the mean square of slopes over members and batch; (runs, d)."""
    return slopes.square().mean((1, 2))


def _chosen(which: list[bool], device: torch.device) -> Tensor:
    return torch.tensor(which, dtype=torch.bool, device=device)
