"""A population: runs of preference-based reinforcement learning, stepped and updated together."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from regrow.control.bilevel import Bilevel
from regrow.control.checkpoints import begun_anew, large_state, load_models_, load_replay_
from regrow.control.checks import check_finite, check_noise, check_population
from regrow.control.draws import RunDraws
from regrow.control.elimination import FeatureElimination
from regrow.control.entropy import StateEntropy
from regrow.control.environments.base import Bools, Environments, Floats, Step
from regrow.control.evaluation import mean_returns
from regrow.control.graphs import Graphed
from regrow.control.inputs import input_layers
from regrow.control.looks import attended, correlations, features_read, late_returns
from regrow.control.noise import NoiseFeatures
from regrow.control.pseudo import PseudoLabels
from regrow.control.queries import ask_
from regrow.control.replay import Replay
from regrow.control.reward import RewardModels
from regrow.control.sac import SAC
from regrow.control.setting import Arm, Setting
from regrow.control.shadows import Shadows, redrawn
from regrow.control.teachers import Teacher

__all__ = ["Population"]

logger = logging.getLogger("regrow.control")

_DRAWS = ("actions", "random actions", "batches", "scored", "segments", "chance")
_AFTER_RESET = 100  # updates after critics start anew
_LOOKS = 50  # in a training


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
        ValueError: arms and environments differ in number, noise was made for others, segments are
            longer than episodes, or an arm has nobody to learn from.

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
        check_noise(self.noise, environments)
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
        self.networks = {"actor": self.agent.actor, "critic": self.agent.critic}
        self.networks["reward_model"] = self.models.networks
        shown = self.elimination.live
        self.layers = input_layers(self.networks, self.arms, self.noise.real, shown, seeds)
        self.agent.target.copy_(self.agent.critic.rows)
        self.draws = {name: RunDraws(seeds, name, dev) for name in _DRAWS}
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
        zeros = partial(torch.zeros, runs, device=dev)
        self._now = {"action": zeros(a), "following": zeros(d), "rewards": zeros()}
        self._now |= {"ended": zeros(), "episode": zeros(dtype=torch.int64)}
        self._now["seen"] = self._see(environments.reset())

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
            inputs, now["following"], now["rewards"], learned[:, 0], spread[:, 0], now["ended"],
            now["episode"],
        )  # fmt: skip

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
        states = inputs[..., : self.noise.total]
        rewards = self.entropy.reward(states, self.replay, self.setting.first_feedback)
        self.agent.update_(inputs, following, rewards, ended)

    def _batch(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        places = self.replay.places(self.draws["batches"].uniform(self.setting.batch))
        inputs, following, learned, ended = self.replay.sample(places)
        learned = learned + self._curiosity * self.replay.read("spread", places)
        if not self.noise.stored:
            inputs, following = (redrawn(self.noise, self.shadows, x) for x in (inputs, following))
        return inputs, following, learned, ended

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
        self.elimination.step_(
            self.step, updates, agent, self.models, self.replay, self.draws["scored"]
        )

    # ------------------------------------------------------------------ the teacher

    def feedback_(self) -> None:
        """Ask the teacher, let reward models learn, and label the whole replay buffer anew.

        Raises:
            ValueError: there are too few segments, or an answer is none; nothing was learnt.
        """
        setting, first = self.setting, self.asked == 0
        assert self.teacher is not None
        answered = ask_(
            self.teacher, self.models, self.replay, setting, self.draws, self.noise.total,
            self.late_returns(), self.environments.episode, first=first,
        )  # fmt: skip
        self.asked += setting.queries
        for run in (~answered.any(1)).nonzero()[:, 0].tolist():
            logger.warning("run %d: the teacher answered none of %d", run, setting.queries)
        if self.pseudo is not None:
            self.pseudo.renew_()
        self.models.learn_(self.layers["reward_model"])
        self.relabel_()
        resets = setting.reset_critic
        if first and (setting.unsupervised_steps > 0 if resets is None else resets):
            self.agent.reset_(torch.ones_like(self._true[:, 0]))
            for _ in range(_AFTER_RESET):
                self._learn()

    def relabel_(self, which: Tensor | None = None) -> None:
        """Give all transitions kept the reward of the models as they are now.

        Args:
            which: runs whose transitions are, bool, (runs,); None: all.
        """
        self.replay.relabel_(
            self._reward, torch.ones_like(self._true[:, 0]) if which is None else which
        )

    # ------------------------------------------------------------------ what it tells

    def late_returns(self) -> list[float]:
        """Return the mean return of each run's last ten episodes; NaN where none is over."""
        return late_returns(self.returns)

    def correlations(self) -> list[float]:
        """Return how the models' reward correlates with the true one on the latest steps."""
        return correlations(self.models, self.replay)

    def features(self) -> tuple[list[float], list[float]]:
        """Return how many real and other features the critics of each run read."""
        return features_read(self.agent.critic, self.noise.real)

    def look(self) -> dict[str, list[float]]:
        """Return numbers of each run: what critics and reward models read, how rewards follow."""
        found = {"step": [float(self.step)] * len(self.arms)}
        found["real_features"], found["noise_features"] = self.features()
        found |= attended(self.networks, self.layers, self.replay, self.noise.real)
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

        def act(shown: Floats) -> Floats:
            seen = shadows(noise(self._tensor(shown)))
            return self.agent.act(seen[:, None], None)[:, 0].cpu().numpy()

        return mean_returns(act, environments, episodes, watch, self.step)

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
        parts = self._parts().items()
        state = {name: part.state_dict() for name, part in parts if name not in _LARGE}
        state |= large_state(self.replay, self.models, self.noise, self.step)
        own = {"step": self.step, "asked": self.asked, "returns": [list(r) for r in self.returns]}
        arrays = {n: torch.from_numpy(getattr(self, f"_{n}")) for n in ("sums", "episodes")}
        own["looks"] = copy.deepcopy(self.looks)
        now = {name: value.clone() for name, value in self._now.items()}
        return {"parts": state, "now": now, **own, **{k: v.clone() for k, v in arrays.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of a population of the same runs."""
        saved, seed_steps = state["parts"], self.setting.seed_steps
        load_replay_(self.replay, self.noise, self.shadows, seed_steps, saved["replay"])
        for name, part in self._parts().items():
            if name not in _LARGE:
                part.load_state_dict(saved[name])
        load_models_(self.models, self.replay, saved["models"])
        for name, value in self._now.items():
            value.copy_(state["now"][name])
        self.step, self.asked = state["step"], state["asked"]
        self.returns = [list(r) for r in state["returns"]]
        self.looks = copy.deepcopy(state["looks"])
        self._sums = state["sums"].numpy().copy()
        self._episodes = state["episodes"].numpy().copy()
        if (begun := begun_anew(self.environments, saved["environments"])).any():
            self._begin_(begun, self.environments.observe())


_PARTS = (
    "environments", "noise", "shadows", "agent", "models", "bilevel", "replay", "entropy",
    "elimination",
)  # fmt: skip
_LARGE = ("models", "replay")
