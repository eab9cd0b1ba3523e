"""A population: runs of preference-based reinforcement learning, stepped and updated together."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from regrow.control.bilevel import Bilevel
from regrow.control.checkpoints import begun_anew, compact_state, rebuild_, refill_
from regrow.control.checks import check_finite, check_population, checked_answers
from regrow.control.draws import RunDraws
from regrow.control.elimination import FeatureElimination, attention
from regrow.control.entropy import StateEntropy
from regrow.control.environments.base import Bools, Environments, Floats, Step
from regrow.control.graphs import Graphed
from regrow.control.inputs import InputLayers
from regrow.control.noise import NoiseFeatures
from regrow.control.pseudo import PseudoLabels
from regrow.control.queries import choose
from regrow.control.replay import Replay
from regrow.control.reward import RewardModels, correlation
from regrow.control.sac import SAC
from regrow.control.setting import Arm, Setting
from regrow.control.shadows import Shadows
from regrow.control.teachers import Query, Teacher

__all__ = ["Population"]

logger = logging.getLogger("regrow.control")

_LATE = 10  # episodes whose mean return is told
_AFTER_RESET = 100  # updates after critics start anew
_SCORED = 256  # transitions by which features are scored
_LOOKS = 50  # in a training
_CORRELATED = 2500  # latest transitions on which rewards are compared


class Population:
    """Runs that learn at the same time, each with a seed and an arm of its own.

    A run gives the same numbers alone and in any population.

    Args:
        environments: one for each run.
        teacher: who compares segments; None: every arm learns from the true reward.
        arms: of the runs.
        setting: shared by all.
        noise: added to observations; None: nothing is.
        device: where networks and the replay buffer are.

    Attributes:
        step: agent steps so far.
        returns: of finished episodes, for each run.
        asked: comparisons that the teacher was asked for, of each run.
        looks: what is read and how rewards follow the true ones, for each run, fifty times in all.

    Raises:
        ValueError: arms and environments differ in number, segments are longer than episodes, or an
            arm has nobody to learn from.

    Example:
        >>> from regrow.control.environments import PointMass
        >>> from regrow.control.setting import METHODS
        >>> from regrow.control.teachers import TEACHERS
        >>> setting = Setting(steps=60, seed_steps=50, queries=2, feedbacks=1, reward_steps=2)
        >>> runs = Population(PointMass([0]), TEACHERS["oracle"], [METHODS["r2n"]], setting)
        >>> runs.run_to_(60)
        >>> runs.step, len(runs.returns[0])
        (60, 1)
    """

    def __init__(
        self,
        environments: Environments,
        teacher: Teacher | None,
        arms: Sequence[Arm],
        setting: Setting,
        noise: NoiseFeatures | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        check_population(environments, teacher, arms, setting)
        self.environments, self.teacher, self.setting = environments, teacher, setting
        self.arms, self.device = list(arms), torch.device(device)
        seeds, runs, dev = environments.seeds, environments.runs, self.device
        self.noise = noise or NoiseFeatures(seeds, environments.observations, 0.0, device=dev)
        shadows, a = setting.shadows_for(arms), environments.actions
        d = self.features_shown = self.noise.total + shadows
        longest = min(2 * environments.episode, setting.seed_steps)
        self.shadows = Shadows(seeds, self.noise.total, shadows, longest, dev)
        self.agent = SAC(seeds, d, a, setting, dev)
        self.replay = Replay(runs, setting.replay or setting.steps, d, a, dev)
        guessing = any(arm.pseudo_labels for arm in arms)
        self.pseudo = PseudoLabels(seeds, arms, setting, self.replay) if guessing else None
        capacity = max(setting.queries * setting.feedbacks, 1)
        self.models = RewardModels(seeds, d + a, setting, dev, capacity, self.pseudo)
        self.bilevel = Bilevel(seeds, arms, setting, dev)
        self.entropy = StateEntropy(runs, setting.neighbours, dev)
        self.elimination = FeatureElimination(arms, self.noise.total, seeds, setting, dev, shadows)
        self.layers = self._make_layers(seeds, a)
        self.draws = {
            name: RunDraws(seeds, name, dev)
            for name in ("actions", "random actions", "batches", "scored", "segments", "chance")
        }
        self._true = torch.tensor([arm.true_reward for arm in arms], device=dev)[:, None]
        self._first_curiosity = torch.tensor([arm.curiosity for arm in arms], device=dev)[:, None]
        self._curiosity = self._first_curiosity.clone()
        self._learn = Graphed(self._learn_, dev)
        self._learn_alone = Graphed(self._learn_alone_, dev)
        self._choose, self._store = Graphed(self._choose_, dev), Graphed(self._store_, dev)
        self.step, self.asked = 0, 0
        self.returns: list[list[float]] = [[] for _ in arms]
        self.looks: list[dict[str, list[float]]] = []
        self._sums, self._episodes = np.zeros(runs), np.zeros(runs, dtype=np.int64)
        self._now = {
            "action": torch.zeros(runs, a, device=dev),
            "following": torch.zeros(runs, d, device=dev),
            "rewards": torch.zeros(runs, device=dev),
            "ended": torch.zeros(runs, device=dev),
            "episode": torch.zeros(runs, dtype=torch.int64, device=dev),
            "seen": self._see(environments.reset()),
        }

    def _make_layers(self, seeds: Sequence[int], actions: int) -> dict[str, InputLayers]:
        features, shown = self.noise.total, self.elimination.live
        every = torch.ones_like(shown[:, :actions])
        real = torch.cat([self.noise.real, torch.zeros_like(shown[:, features:])], 1)
        nets = {
            "actor": (self.agent.actor, real, shown),
            "critic": (
                self.agent.critic,
                torch.cat([real, every], 1),
                torch.cat([shown, every], 1),
            ),
            "reward_model": (
                self.models.networks,
                torch.cat([real, every], 1),
                torch.cat([shown, every], 1),
            ),
        }
        layers = {
            name: InputLayers(
                net, [getattr(arm, name) for arm in self.arms], self.arms, means, may, features,
                seeds, name,
            )
            for name, (net, means, may) in nets.items()
        }  # fmt: skip
        self.agent.target.copy_(self.agent.critic.rows)
        return layers

    # ------------------------------------------------------------------ a step

    def run_to_(self, step: int) -> None:
        """Step until so many steps were made."""
        while self.step < step:
            self.step_()

    def step_(self) -> None:
        """Make a step in all environments, and the update, feedback and topology due after it.

        Raises:
            FloatingPointError: an environment gave NaN or an infinite number, which was not kept.
        """
        setting = self.setting
        learns = self.step >= setting.seed_steps
        self._act_()
        actions = self._now["action"].cpu().numpy()
        self._curiosity.copy_(self._first_curiosity * (1 - setting.curiosity_decay) ** self.step)
        if learns:  # the device learns while the environments step
            (self._learn_alone if self.step < setting.first_feedback else self._learn)()
        step = self.environments.step(actions)
        check_finite(self.step, rewards=step.rewards)  # observations are where they are seen
        self._keep_(step)
        self.step += 1
        if learns:
            self._move_(self.step - setting.seed_steps)
        elif self.step == setting.seed_steps:
            self._end_seed_steps_()
        if self.bilevel.due(self.step):
            self.bilevel.step_(self.agent, self.models, self.replay)
            self.relabel_(self.bilevel.which)
        if self.teacher is not None and setting.feedback_due(self.step):
            self.feedback_()
        if self.step % max(1, setting.steps // _LOOKS) == 0:
            self.looks.append(self.look())

    def _act_(self) -> None:
        if self.step >= self.setting.seed_steps:
            self._choose()
        elif self.step % self.setting.hold == 0:
            drawn = self.draws["random actions"].uniform(self.environments.actions)
            self._now["action"].copy_(2 * drawn - 1)

    def _choose_(self) -> None:
        noise = self.draws["actions"].normal(1, self.environments.actions)
        self._now["action"].copy_(self.agent.act(self._now["seen"][:, None], noise)[:, 0])

    def _keep_(self, step: Step) -> None:
        """Store what a step gave, and begin new episodes."""
        now = self._now
        now["following"].copy_(self._see(step.observations))
        now["rewards"].copy_(self._tensor(step.rewards))
        now["ended"].copy_(self._tensor(step.terminated))
        now["episode"].copy_(torch.from_numpy(self._episodes))
        self._store()
        now["seen"].copy_(now["following"])
        self._sums += step.rewards
        if (over := step.terminated | step.truncated).any():
            for run in np.flatnonzero(over):
                self.returns[run].append(float(self._sums[run]))
            self._begin_(over, self.environments.reset(over))

    def _begin_(self, over: Bools, shown: Floats) -> None:
        """Take over the first states of episodes.

        Their noise is that of the last: what a run draws must not hang on when others end.
        """
        fresh, first = self._see(shown, again=True), torch.from_numpy(over).to(self.device)
        self._now["seen"].copy_(torch.where(first[:, None], fresh, self._now["seen"]))
        self._sums[over] = 0
        self._episodes += over

    def _see(self, observations: Floats, *, again: bool = False) -> Tensor:
        """Add noise and shadows, those of the last call or new ones."""
        check_finite(self.step, observations=observations)
        return self.shadows(self.noise(self._tensor(observations), again=again), again=again)

    @torch.no_grad()
    def _store_(self) -> None:
        now = self._now
        inputs = torch.cat([now["seen"], now["action"]], 1)
        learned, spread = self._reward(inputs[:, None], now["rewards"][:, None])
        self.replay.add_(
            inputs,
            now["following"],
            now["rewards"],
            learned[:, 0],
            spread[:, 0],
            now["ended"],
            now["episode"],
        )

    @torch.no_grad()
    def _reward(self, inputs: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
        """Return what agents learn from, the models' reward or the true one, and its spread."""
        members = self.models(inputs)
        spread = torch.where(self._true, 0.0, members.std(1, correction=0))
        return torch.where(self._true, true, members.mean(1)), spread

    # ------------------------------------------------------------------ an update

    def _learn_(self) -> None:
        self.agent.update_(*self._batch())

    def _learn_alone_(self) -> None:
        """Learn without a teacher: rewards are the distances of states to their neighbours."""
        inputs, following, _, ended = self._batch()
        d, kept = self.noise.total, self.replay.added.clamp(max=self.replay.capacity)
        among = self.replay.inputs[:, : self.setting.first_feedback, :d]
        with torch.no_grad():
            rewards = self.entropy(inputs[..., :d], among, kept)
        self.agent.update_(inputs, following, rewards, ended)

    def _batch(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        places = self.replay.places(self.draws["batches"].uniform(self.setting.batch))
        inputs, following, learned, ended = self.replay.sample(places)
        learned = learned + self._curiosity * self.replay.read("spread", places)
        if not self.noise.stored:
            inputs, following = self._redrawn(inputs), self._redrawn(following)
        return inputs, following, learned, ended

    def _redrawn(self, inputs: Tensor) -> Tensor:
        n, d = self.noise.total, self.features_shown
        fresh = self.noise.redrawn(inputs[..., :n])
        return torch.cat([fresh, self.shadows.redrawn(fresh), inputs[..., d:]], -1)

    def _end_seed_steps_(self) -> None:
        """Fill the shadows of what was seen, which nobody has looked at yet; and filter."""
        kept, d = slice(0, len(self.replay)), self.features_shown
        inputs, following = self.replay.inputs[:, kept], self.replay.following[:, kept]
        if self.step <= self.replay.capacity:
            self.shadows.fill_(inputs, following)
        if self.elimination.filters.any():
            self.elimination.filter_(self.agent, self.models, inputs[..., :d], following)

    def _move_(self, updates: int) -> None:
        """Exchange weights and let features leave, as due after so many updates."""
        setting, agent = self.setting, self.agent
        if updates % setting.update_every == 0:
            self.layers["actor"].exchange_(agent.actor_gradient)
            self.layers["critic"].exchange_(agent.critic_gradient)
            agent.mask_target_()
        if self.elimination.acts and updates % setting.score_every == 0:
            places = self.replay.places(self.draws["scored"].uniform(_SCORED))
            self.elimination.score_(agent, self.models, self.replay.sample(places)[0])
        if self.elimination.acts and updates % setting.eliminate_every == 0:
            self.elimination.eliminate_(self.step, agent, self.models)
        self.elimination.find_moved_(self.step, agent, self.models, self.replay)

    # ------------------------------------------------------------------ the teacher

    def feedback_(self) -> None:
        """Ask the teacher, let reward models learn, and label the whole replay buffer anew.

        Raises:
            ValueError: there are too few segments, or an answer is none; nothing was learnt.
        """
        first = self.asked == 0
        wide, inside, starts, query = self._query(first)
        assert self.teacher is not None
        answers = checked_answers(self.teacher(query), query, self.device)
        self.models.add_(wide, answers.labels, answers.answered, inside, starts)
        self.asked += self.setting.queries
        for run in (~answers.answered.any(1)).nonzero()[:, 0].tolist():
            logger.warning("run %d: the teacher answered none of %d", run, self.setting.queries)
        if self.pseudo is not None:
            self.pseudo.renew_()
        self.models.learn_(self.layers["reward_model"])
        self.relabel_()
        resets = self.setting.reset_critic
        if first and (self.setting.unsupervised_steps > 0 if resets is None else resets):
            self.agent.reset_(torch.ones_like(self._true[:, 0]))
            for _ in range(_AFTER_RESET):
                self._learn()

    def _query(self, first: bool) -> tuple[Tensor, Tensor, Tensor, Query]:
        """Return segments with margins, their steps in one episode, their places, and a query."""
        setting, replay, models, d = self.setting, self.replay, self.models, self.features_shown
        kind = "uniform" if first else setting.query
        count = setting.queries * (1 if kind == "uniform" else setting.candidates)
        drawn = self.draws["segments"].uniform(2 * count)
        starts = replay.starts(drawn, setting.segment, setting.recent).unflatten(1, (count, 2))
        if kind != "uniform":
            clips = replay.segments(starts, setting.segment, "inputs")
            known = models.clips[:, : int(models.count.max())]
            chosen = choose(kind, clips, known, models.chances, setting.queries, models.count)
            starts = starts.gather(1, chosen[..., None].expand(-1, -1, 2))
        margin = models.margin
        wide = replay.segments(starts, setting.segment, "inputs", margin=margin)
        inside = replay.inside(starts, setting.segment, margin)
        clips = wide[:, :, :, margin : margin + setting.segment]
        late = torch.tensor(self.late_returns(), dtype=torch.float32, device=self.device)
        ages = (replay.added - 1 - starts) % replay.capacity
        query = Query(
            rewards=replay.segments(starts, setting.segment, "rewards"),
            observations=clips[..., : self.noise.total],
            actions=clips[..., d:],
            steps=replay.added - 1 - ages,
            recent_return=late.nan_to_num(),
            episode=self.environments.episode,
            chance=self.draws["chance"].uniform(setting.queries, 2),
        )
        return wide, inside, starts, query

    def relabel_(self, which: Tensor | None = None) -> None:
        """Give all transitions kept the reward of the models as they are now.

        Args:
            which: runs whose transitions are, bool, (runs,); None: all.
        """
        replay = self.replay
        runs = torch.ones_like(self._true[:, 0]) if which is None else which
        for part in replay.parts():
            learned, spread = self._reward(replay.inputs[:, part], replay.rewards[:, part])
            replay.learned[runs, part], replay.spread[runs, part] = learned[runs], spread[runs]

    # ------------------------------------------------------------------ what it tells

    def late_returns(self) -> list[float]:
        """Return the mean return of each run's last ten episodes; NaN where none is over."""
        return [float(np.mean(r[-_LATE:])) if r else float("nan") for r in self.returns]

    def correlations(self) -> list[float]:
        """Return how the models' reward correlates with the true one on the latest steps."""
        size = min(len(self.replay), _CORRELATED)
        latest = self.replay.added - 1 - torch.arange(size, device=self.device)
        places = latest % self.replay.capacity
        with torch.no_grad():
            found = self.models.reward(self.replay.inputs[:, places])
        return correlation(found, self.replay.rewards[:, places]).tolist()

    def features(self) -> tuple[list[float], list[float]]:
        """Return how many real and other features the critics of each run read."""
        read = self.agent.critic.reads()[:, :, : self.noise.total].any(3).any(1)
        real = self.noise.real
        return [float(x) for x in (read & real).sum(1)], [float(x) for x in (read & ~real).sum(1)]

    def look(self) -> dict[str, list[float]]:
        """Return numbers of each run: what critics and reward models read, how rewards follow."""
        found = {"step": [float(self.step)] * len(self.arms)}
        found["real_features"], found["noise_features"] = self.features()
        number = min(len(self.replay), _SCORED)
        places = torch.arange(number, device=self.device) * len(self.replay) // number
        inputs = self.replay.inputs[:, places]
        nets = {"critic": self.agent.critic, "reward_model": self.models.networks}
        for name, net in nets.items():
            seen = attention(net, inputs, self.noise.real, squash=name != "critic")
            found[f"{name}_attention"] = seen.tolist()
            kinds = self.layers[name].connections(self.noise.real)
            for kind, values in zip(("real", "noise"), kinds, strict=True):
                found[f"{name}_{kind}_connections"] = values.tolist()
        return found | {"reward_correlation": self.correlations()}

    def evaluate(
        self,
        environments: Environments,
        episodes: int = 1,
        watch: Callable[[Floats, Bools], None] = lambda observations, over: None,
    ) -> list[float]:
        """Return each run's mean return with its most likely actions; training goes on unchanged.

        Args:
            environments: others than those of training, as many, with seeds of their own.
            episodes: of each run.
            watch: is shown what is seen without noise after every step, (runs, d), and which
                episodes are over then.

        Raises:
            ValueError: there are fewer or more runs.
            FloatingPointError: an environment gave NaN or an infinite number.
        """
        if environments.runs != len(self.arms):
            raise ValueError(f"environments: {environments.runs} runs for {len(self.arms)} arms")
        noise, shadows = copy.deepcopy(self.noise), copy.deepcopy(self.shadows)
        shown = environments.reset()
        sums, counts = np.zeros(len(self.arms)), np.zeros(len(self.arms), dtype=np.int64)
        while (counts < episodes).any():
            check_finite(self.step, observations=shown)
            seen = shadows(noise(self._tensor(shown)))
            step = environments.step(self.agent.act(seen[:, None], None)[:, 0].cpu().numpy())
            check_finite(self.step, rewards=step.rewards)
            sums += step.rewards * (counts < episodes)
            over = step.terminated | step.truncated
            watch(step.observations, over)
            counts += over
            shown = environments.reset(over) if over.any() else step.observations
        return [float(x) for x in sums / episodes]

    # ------------------------------------------------------------------ state

    def _tensor(self, array: Floats | np.ndarray[Any, Any]) -> Tensor:
        return torch.from_numpy(array.astype(np.float32)).to(self.device, non_blocking=True)

    def _parts(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in _PARTS}
        own |= {} if self.pseudo is None else {"pseudo": self.pseudo}
        layers = {f"inputs of {name}": layer for name, layer in self.layers.items()}
        return own | layers | {f"draws of {name}": draws for name, draws in self.draws.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return everything a resumed population needs to go on bit for bit.

        As long as the replay buffer has not wrapped, what it holds is noise for the most part, and
        is made again from the rest.
        """
        parts, whole = self._parts(), self.step > self.replay.capacity
        state = {name: part.state_dict() for name, part in parts.items() if name not in _LARGE}
        state["models"] = self.models.state_dict(segments=whole)
        state["replay"] = (
            self.replay.state_dict() if whole else compact_state(self.replay, self.noise)
        )
        own = {"step": self.step, "asked": self.asked, "returns": [list(r) for r in self.returns]}
        arrays = {n: torch.from_numpy(getattr(self, f"_{n}")) for n in ("sums", "episodes")}
        own["looks"] = copy.deepcopy(self.looks)
        now = {name: value.clone() for name, value in self._now.items()}
        return {"parts": state, "now": now, **own, **{k: v.clone() for k, v in arrays.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of a population of the same runs."""
        kept = state["parts"]["replay"]
        if "inputs" in kept:
            self.replay.load_state_dict(kept)
        else:
            rebuild_(self.replay, self.noise, self.shadows, self.setting.seed_steps, kept)
        for name, part in self._parts().items():
            if name != "replay":
                part.load_state_dict(state["parts"][name])
        if "wide" not in state["parts"]["models"]:
            refill_(self.models, self.replay)
        for name, value in self._now.items():
            value.copy_(state["now"][name])
        self.step, self.asked = state["step"], state["asked"]
        self.returns = [list(r) for r in state["returns"]]
        self.looks = copy.deepcopy(state["looks"])
        self._sums = state["sums"].numpy().copy()
        self._episodes = state["episodes"].numpy().copy()
        if (begun := begun_anew(self.environments, state["parts"]["environments"])).any():
            self._begin_(begun, self.environments.observe())


_PARTS = (
    "environments", "noise", "shadows", "agent", "models", "bilevel", "replay", "entropy",
    "elimination",
)  # fmt: skip
_LARGE = ("models", "replay")
