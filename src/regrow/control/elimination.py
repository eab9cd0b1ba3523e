"""Whole features leave all networks of a run, by what the ensemble says of them; with probation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from regrow.control.draws import RunDraws
from regrow.control.moved import enough, fewest, moved
from regrow.control.networks import Networks
from regrow.control.replay import Replay
from regrow.control.reward import RewardModels
from regrow.control.sac import SAC
from regrow.control.setting import Arm, Setting
from regrow.control.steady import steady
from regrow.engine.selection import top_per_group

__all__ = ["FeatureElimination", "agreement", "attention", "autocorrelation", "rms", "slopes"]

_SHADOWS_LEFT, _FEWEST_SHADOWS = 0.2, 5  # shadows a feature left, and at least
_PACE = 0.1  # the share to which the number of features falls where the data choose
_SCORED = 256  # transitions by which features are scored
_SETTLED = 0.2  # the share of a new look in running scores
_LOOK_FOR_MOVED, _LOOKED_AT = 2500, 8000  # steps between looks; transitions


class FeatureElimination:
    """Which features the runs still read, of those whose arms say "features".

    The number of features falls geometrically, d·keep^p, with p from 0 to 1 over the arm's window.
    At each elimination those of the highest scores stay, and some of those left out, drawn at
    random, come back on probation, with fresh weights and a middling score; the last elimination
    takes none on.

    With keep=None the number falls towards a tenth, but no feature leaves that is worth more than
    the quantile ``null`` of the shadows; at the last elimination all others do: what stays is
    chosen by the data. The number of shadows falls with that of the features, at random; at the
    end they leave. Features on probation begin at the quantile.

    Arms of the score "moved" read all features until there are transitions enough to tell which of
    them actions move (:func:`regrow.control.moved.moved`), and then these; at every further look
    some may come back, up to the end of the window.

    Args:
        arms: of the runs.
        features: how many there are, d.
        seeds: of the runs.
        setting: how many steps a run has.
        device: where they are.
        shadows: how many follow the features.

    Attributes:
        live: the features and shadows read, bool, (runs, d + shadows).
        scores: running averages of what they are worth, shaped likewise.

    Differs from R2N, which moves single weights of each network by itself: this is ours.
    """

    def __init__(
        self,
        arms: Sequence[Arm],
        features: int,
        seeds: Sequence[int],
        setting: Setting,
        device: torch.device,
        shadows: int = 0,
    ) -> None:
        self.arms, self.setting, self.features = list(arms), setting, features
        self.by_data = _chosen([arm.needs_shadows for arm in arms], device)
        self.live = torch.ones(len(arms), features + shadows, dtype=torch.bool, device=device)
        self.live[:, features:] = self.by_data[:, None]
        self.scores = torch.zeros(len(arms), features + shadows, device=device)
        self._draws = RunDraws(seeds, "features on probation", device)
        # Which shadows leave first; a stream of its own, so that other draws are as without them.
        self._leave = RunDraws(seeds, "shadows that leave", device).uniform(max(shadows, 1))
        self._agents = _chosen([arm.critic == "features" for arm in arms], device)
        self._models = _chosen([arm.reward_model == "features" for arm in arms], device)
        self._by_rms = _chosen([arm.score == "rms" for arm in arms], device)[:, None]
        self.filters = _chosen(
            [arm.eliminates and arm.score == "autocorrelation" for arm in arms], device
        )
        self._finds = _chosen([arm.eliminates and arm.score == "moved" for arm in arms], device)
        self._return = RunDraws(seeds, "features that return", device)
        self._true = _chosen([arm.true_reward for arm in arms], device)[:, None]
        self._nulls = [arm.null for arm in arms]
        self._fresh = [False] * len(arms)
        self.acts = any(arm.eliminates for arm in arms)

    def done(self, run: int, step: int) -> float:
        """Return how far the elimination of a run is, 0 to 1."""
        arm, setting = self.arms[run], self.setting
        if arm.score == "autocorrelation":
            return float(step >= setting.seed_steps)
        begin, end = (share * setting.steps for share in arm.window)
        return min(1.0, max(0.0, (step - begin) / max(end - begin, 1.0)))

    def counts(self, run: int, step: int) -> tuple[int, int]:
        """Return how many features of a run stay by score, and how many are on probation.

        With keep=None, how many stay though they are worth no more than shadows.
        """
        arm, d = self.arms[run], self.features
        if not arm.eliminates or arm.score == "moved":
            return d, 0
        done = self.done(run, step)
        kept = max(1, round(d * (_PACE if arm.keep is None else arm.keep) ** done))
        if arm.keep is None and done == 1:
            return 1, 0
        trial = min(kept - 1, round(arm.probation * kept)) if done < 1 and kept < d else 0
        return kept - trial, trial

    def null(self) -> Tensor:
        """Return what features must be worth more than to stay, (runs,); infinite if by number."""
        found = torch.full_like(self.scores[:, 0], torch.inf)
        worth = torch.where(self.live, self.scores, torch.nan)[:, self.features :]
        for run in self.by_data.nonzero()[:, 0].tolist():
            if self.live[run, self.features :].any():
                found[run] = worth[run].nanquantile(self._nulls[run])
        return found

    def step_(
        self, step: int, updates: int, agent: SAC, models: RewardModels, replay: Replay,
        draws: RunDraws,
    ) -> None:  # fmt: skip
        """Look at what features are worth, and let some leave or return, as due.

        Args:
            step: of the agent.
            updates: that it has made.
            agent: whose networks features leave.
            models: of the reward, which they leave, too.
            replay: of the transitions that are looked at.
            draws: of these, where features are scored.
        """
        setting = self.setting
        if self.acts and updates % setting.score_every == 0:
            places = replay.places(draws.uniform(_SCORED))
            self.score_(agent, models, replay.sample(places)[0])
        if self.acts and updates % setting.eliminate_every == 0:
            self.eliminate_(step, agent, models)
        self.find_moved_(step, agent, models, replay)

    def score_(self, agent: SAC, models: RewardModels, inputs: Tensor) -> None:
        """Look at what features are worth: that of critics, and of reward models if learnt from.

        Args:
            agent: whose critics are looked at.
            models: of the reward.
            inputs: observations and actions, (runs, B, D + A).
        """
        spread = inputs[..., : self.live.shape[1]].var(1)
        of_critics = self._worth(agent.critic, inputs, spread, squash=False)
        of_models = self._worth(models.networks, inputs, spread, squash=True)
        found = of_critics + torch.where(self._true, 0.0, of_models)
        settled = self.scores.lerp(found, _SETTLED)
        self.scores = torch.where(self.filters[:, None], self.scores, settled)

    @torch.no_grad()
    def filter_(self, agent: SAC, models: RewardModels, now: Tensor, following: Tensor) -> None:
        """Choose the features of runs that go by autocorrelation, once.

        Args:
            agent: whose networks the others leave.
            models: of the reward, which they leave, too.
            now: observations, (runs, n, D).
            following: the next ones.
        """
        d, which = self.features, self.filters
        self.scores[which, :d] = autocorrelation(now, following)[which, :d]
        counts = [self.counts(run, self.setting.seed_steps)[0] for run in range(len(self.arms))]
        stay = torch.tensor(counts, device=self.live.device)
        best = top_per_group(self.scores[:, :d], stay, torch.ones_like(self.live[:, :d]))
        self.live[which, :d] = best[which]
        self._leave_(agent, models, which, None)

    def _looks_for_moved(self, step: int, replay: Replay) -> bool:
        """Return whether it is looked, after a step, for what actions move."""
        there = min(step, replay.capacity)
        if step % _LOOK_FOR_MOVED or not enough(there, self.features, replay.actions):
            return False
        last = (arm.window[1] for arm in self.arms if arm.eliminates and arm.score == "moved")
        return step <= self.setting.steps * max(last, default=0.0)

    @torch.no_grad()
    def find_moved_(self, step: int, agent: SAC, models: RewardModels, replay: Replay) -> None:
        """Let runs of the score "moved" read the features that actions move, when it is time.

        Args:
            step: of the agent.
            agent: whose networks the others leave.
            models: of the reward, which they leave, too.
            replay: whose latest transitions are looked at.
        """
        if not self._looks_for_moved(step, replay):
            return
        d, seen = self.features, self.live.shape[1]
        places = replay.latest(max(_LOOKED_AT, fewest(d, replay.actions)))
        for run in self._finds.nonzero()[:, 0].tolist():
            inputs, following = replay.inputs[run, places], replay.following[run, places]
            found = moved(inputs[:, :d], inputs[:, seen:], following[:, :d])
            if found.any():
                self.live[run, :d] = found
        self._leave_(agent, models, self._finds, self._return)

    def _worth(self, nets: Networks, inputs: Tensor, spread: Tensor, *, squash: bool) -> Tensor:
        """Return the shares of features in what moves the networks' outputs, (runs, d)."""
        found = slopes(nets, inputs, squash=squash)[..., : spread.shape[1]]
        worth = torch.where(self._by_rms, rms(found), agreement(found)) * spread
        return worth / worth.sum(1, keepdim=True).clamp(min=1e-12)

    @torch.no_grad()
    def eliminate_(self, step: int, agent: SAC, models: RewardModels) -> None:
        """Let features leave, and others come back on probation.

        Args:
            step: of the agent.
            agent: whose networks they leave.
            models: of the reward, which they leave, too.
        """
        d = self.features
        runs = range(len(self.arms))
        counts = torch.tensor([self.counts(run, step) for run in runs], device=self.live.device)
        stay, trial = counts.unbind(1)
        before, scores, null = self.live[:, :d], self.scores[:, :d], self.null()[:, None]
        stay = torch.maximum(stay, (before & (scores > null)).sum(1))
        over = self.by_data & ~self.live[:, d:].any(1)  # nothing is there to compare with any more
        stay = torch.where(over, before.sum(1), stay)
        best = top_per_group(scores, torch.minimum(stay, before.sum(1)), before)
        others = top_per_group(self._draws.uniform(d), trial, ~best)
        after = best | others
        middling = torch.where(best, scores, torch.nan).nanmedian(1, keepdim=True).values
        start = torch.where(null.isfinite(), null, middling)
        self.scores[:, :d] = torch.where(after & ~before, start, scores)
        self.live = torch.cat([after, self._shadows(step, after.sum(1))], 1)
        self._leave_(agent, models, torch.ones_like(self._agents), self._draws)
        self._start_anew_(step, agent)

    def _shadows(self, step: int, features: Tensor) -> Tensor:
        """Return which shadows stay, beside so many features."""
        before = self.live[:, self.features :]
        if not before.shape[1]:
            return before
        left = (_SHADOWS_LEFT * features).round().long().clamp(min=_FEWEST_SHADOWS)
        over = [self.done(run, step) >= 1 for run in range(len(self.arms))]
        left = torch.where(_chosen(over, left.device), 0, torch.minimum(left, before.sum(1)))
        return top_per_group(self._leave, left, before)

    def _leave_(
        self, agent: SAC, models: RewardModels, runs: Tensor, draws: RunDraws | None
    ) -> None:
        """Let the networks of some runs read what is live; fresh weights are drawn by ``draws``."""
        nets = (agent.actor, self._agents), (agent.critic, self._agents)
        for one, own in (*nets, (models.networks, self._models)):
            if draws is None:
                self._mask_(one, own & runs)
            else:
                self._apply_(one, own & runs, draws)
        agent.mask_target_()

    def _mask_(self, nets: Networks, which: Tensor) -> Tensor:
        """Mask the features of some runs' networks; return which weights came back."""
        before, mask = nets.mask > 0, nets.input_mask()
        features = mask[:, :, : self.live.shape[1]]
        live = self.live[:, None, :, None].to(mask.dtype)
        features.copy_(torch.where(which[:, None, None, None], live, features))
        nets.apply_mask_()
        return (nets.mask > 0) & ~before

    def _apply_(self, nets: Networks, which: Tensor, draws: RunDraws) -> None:
        """Mask the features of some runs' networks; those that came back get fresh weights."""
        grown = self._mask_(nets, which)
        drawn = draws.uniform(nets.members, nets.mask.shape[1]).flatten(0, 1)
        nets.apply_mask_(grown, (2 * drawn - 1) / nets.sizes[0] ** 0.5)

    def _start_anew_(self, step: int, agent: SAC) -> None:
        over = [self.done(run, step) >= 1 for run in range(len(self.arms))]
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
        draws = {"draws": self._draws.state_dict(), "return": self._return.state_dict()}
        return arrays | draws | {"fresh": list(self._fresh)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.live.copy_(state["live"])
        self.scores.copy_(state["scores"])
        self._fresh = list(state["fresh"])
        self._draws.load_state_dict(state["draws"])
        self._return.load_state_dict(state["return"])


def slopes(nets: Networks, inputs: Tensor, *, squash: bool) -> Tensor:
    """Return the slopes of all members' outputs by their inputs, (runs, members, B, in).

    Args:
        nets: of one output each.
        inputs: (runs, B, in).
        squash: whether the output goes through tanh.
    """
    x = inputs[:, None].expand(-1, nets.members, -1, -1).flatten(0, 1).detach()
    x.requires_grad_()
    outputs = nets.each(x)
    outputs = steady(torch.tanh, outputs) if squash else outputs
    found: Tensor = torch.autograd.grad(outputs.sum(), x)[0].unflatten(0, (-1, nets.members))
    return found


def attention(nets: Networks, inputs: Tensor, real: Tensor, *, squash: bool) -> Tensor:
    """Return the share of real features in what moves outputs: E[slope²]·var, summed; (runs,).

    Args:
        nets: of one output each.
        inputs: (runs, B, in).
        real: which of the first inputs, the features, are real, bool, (runs, features).
        squash: whether the output goes through tanh.
    """
    d = real.shape[1]
    worth = rms(slopes(nets, inputs, squash=squash)[..., :d])
    worth = worth * inputs[..., :d].var(1, correction=0)
    return (worth * real).sum(1) / worth.sum(1).clamp(min=1e-30)


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


def autocorrelation(now: Tensor, following: Tensor) -> Tensor:
    """Return the correlation of each feature with itself a step later; (runs, d); 0 if constant.

    Args:
        now: observations, (runs, n, d).
        following: the next ones.

    Example:
        >>> seen = torch.tensor([[[1.0, 5.0], [2.0, 5.0], [3.0, 5.0], [4.0, 5.0]]])
        >>> autocorrelation(seen[:, :-1], seen[:, 1:]).round(decimals=4).tolist()
        [[1.0, 0.0]]
    """
    a, b = (x - x.mean(1, keepdim=True) for x in (now, following))
    return (a * b).sum(1) / (a.square().sum(1) * b.square().sum(1)).sqrt().clamp(min=1e-12)


def _chosen(which: list[bool], device: torch.device) -> Tensor:
    return torch.tensor(which, dtype=torch.bool, device=device)
