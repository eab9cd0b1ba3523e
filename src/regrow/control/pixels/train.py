"""`train_from_pixels`: the whole of a training on images, with evaluations and checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from regrow.control.distractions.pixels import Pixels
from regrow.control.draws import RunDraws
from regrow.control.pixels.agent import PixelAgent
from regrow.control.pixels.evaluate import Evaluation, evaluate, seen_frames
from regrow.control.pixels.eyes import Eyes
from regrow.control.pixels.frames import Frames
from regrow.control.pixels.kept import KeptFrames
from regrow.control.pixels.method import PIXEL_METHODS, PixelMethod
from regrow.control.pixels.setting import PIXEL_SETTINGS, PixelSetting
from regrow.engine.checks import check_choice
from regrow.training.run import RunLike, device_of

__all__ = ["PixelTraining", "train_from_pixels"]

_LOOK_EVERY = 25  # steps
FRAMES = "frames"  # folder of a run


def train_from_pixels(
    environments: Pixels,
    *,
    method: str | PixelMethod = "MaDi",
    setting: str | PixelSetting = "paper",
    test: Mapping[str, Pixels] | None = None,
    photos: Tensor | None = None,
    device: str = "auto",
    run: RunLike | None = None,
) -> PixelTraining:
    """Train an agent on images, and evaluate it now and then in other environments.

    Args:
        environments: of one run, whose observations are frames, uint8, (1, H, W, 3).
        method: a name of ``PIXEL_METHODS``, or a :class:`regrow.control.pixels.method.PixelMethod`.
        setting: a name of ``PIXEL_SETTINGS``, or a
            :class:`regrow.control.pixels.setting.PixelSetting`.
        test: environments of evaluations, by name, such as clean and video_hard. One of several
            runs, all of the same seed, plays as many episodes at once.
        photos: for overlays, uint8 squares, (N, 3, S, S); see
            :func:`regrow.control.pixels.augment.read_photos`.
        device: "cpu", "cuda" or "auto".
        run: takes metrics, progress and checkpoints; from its checkpoint training goes on bit for
            bit, on a CPU.

    Returns:
        The training, done.

    Raises:
        ValueError: an argument is wrong, or the replay does not fit into memory.
        FloatingPointError: an environment gave NaN.
    """
    if isinstance(method, str):
        check_choice(method, tuple(PIXEL_METHODS), "method")
        method = PIXEL_METHODS[method]
    if isinstance(setting, str):
        check_choice(setting, tuple(PIXEL_SETTINGS), "setting")
        setting = PIXEL_SETTINGS[setting]
    where = device_of({"device": device})
    training = PixelTraining(environments, method, setting, test or {}, photos, where)
    kept = None
    if run is not None:
        kept = KeptFrames(run.folder / FRAMES, training.ring)
        if (state := run.load()) is not None:
            training.load_state_dict(state["training"])
            if training.step < setting.steps:
                kept.load_(state["frames"])
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = (
        where.type == "cuda"
    )  # sizes never change: the fastest is found
    try:
        _train(training, run, kept)
    finally:
        torch.backends.cudnn.benchmark = before
    return training


class PixelTraining:
    """An agent, its environments, replay and evaluations.

    Args:
        environments: of training, of one run.
        method: of the agent.
        setting: sizes, rates and schedule.
        test: environments of evaluations, by name.
        photos: for overlays.
        device: where the agent learns.

    Attributes:
        agent: that learns.
        ring: its replay.
        step: steps in the environment so far.
        returns: of the episodes that are over.
        evaluations: what each found, with the step, by environment.
        last: the latest evaluation of each environment, with its film at the end.
        seconds: spent in steps of this process, and of these in the environment.
    """

    def __init__(
        self,
        environments: Pixels,
        method: PixelMethod,
        setting: PixelSetting,
        test: Mapping[str, Pixels],
        photos: Tensor | None,
        device: torch.device,
    ) -> None:
        self.environments, self.setting, self.test = environments, setting, dict(test)
        rendered = method.rendered(setting.size)
        _check_run(environments)
        for name, one in {"environments": environments, **self.test}.items():
            _check(one, name, rendered)
        actions, seed = environments.actions, environments.seeds[0]
        self.agent = PixelAgent(method, setting, actions, seed, device, photos)
        capacity = setting.replay or _all_frames(setting.steps, environments.episode)
        self.ring = Frames(capacity, self.agent.channels, rendered, actions, device)
        self.eyes = Eyes(self.agent, rendered, test=False)
        self.draws = RunDraws([seed], "random actions")
        self.step = 0
        self.returns: list[float] = []
        self.evaluations: dict[str, list[dict[str, Any]]] = {name: [] for name in self.test}
        self.last: dict[str, Evaluation] = {}
        self.seconds = {"all": 0.0, "environment": 0.0}
        self._sum, self._begun = 0.0, False

    def step_(self, tell: Callable[[int], None] = lambda updates: None) -> None:
        """Make a step in the environment, and the updates due beside it.

        Args:
            tell: is told, after each of the updates that follow the seed steps, how many were made.

        Raises:
            FloatingPointError: the environment gave a reward that is NaN or infinite.
        """
        began = time.perf_counter()
        if not self._begun:
            self._begin_(self.environments.reset())
            self.seconds["environment"] += time.perf_counter() - began
        setting = self.setting
        learns = self.step >= setting.seed_steps
        if learns:
            action = self.eyes.act()
            due = setting.seed_steps if self.step == setting.seed_steps else 1
            for number in range(due):
                if due > 1:
                    tell(number)
                self.agent.learn_(self.ring)  # a GPU computes while the environment steps
        else:
            action = (2 * self.draws.uniform(self.agent.actions) - 1).numpy()
        self._keep_(action)
        self.step += 1
        self.seconds["all"] += time.perf_counter() - began

    def _begin_(self, seen: npt.NDArray[Any]) -> None:
        frames = seen_frames(self.agent, self.environments, seen)
        self.ring.begin_(frames[0])
        self.eyes.begin_(frames)
        self._sum, self._begun = 0.0, True

    def _keep_(self, action: npt.NDArray[np.float32]) -> None:
        began = time.perf_counter()
        result = self.environments.step(action)
        self.seconds["environment"] += time.perf_counter() - began
        reward = float(result.rewards[0])
        if not np.isfinite(reward):
            raise FloatingPointError(
                f"environments: the reward at step {self.step} is {reward}: mend the environment, "
                "and go on from the last checkpoint"
            )
        frames = seen_frames(self.agent, self.environments, result.observations)
        ended = bool(result.terminated[0])
        self.ring.add_(torch.from_numpy(action[0]), reward, ended, frames[0])
        self.eyes.look_(frames)
        self._sum += reward
        if ended or result.truncated[0]:
            self.returns.append(self._sum)
            self._begun = False

    def evaluate_(
        self, *, film: bool = False, tell: Callable[[str, int], None] = lambda name, done: None
    ) -> None:
        """Evaluate in all environments of tests; training goes on unchanged.

        Args:
            film: whether the first episode of each is kept.
            tell: is told now and then in which environment how many episodes are over.
        """
        for name, environments in self.test.items():
            found = evaluate(
                self.agent, environments, self.setting.episodes, film=film, tell=partial(tell, name)
            )
            self.evaluations[name].append({"step": self.step, **found.numbers()})
            self.last[name] = found

    def state_dict(self) -> dict[str, Any]:
        """Return everything a resumed training needs, but the frames."""
        own = {name: getattr(self, name) for name in _OWN}
        parts = {name: getattr(self, name).state_dict() for name in _PARTS}
        seen = self.eyes.stacked.cpu().clone()
        return {"own": own, "parts": parts, "stacked": seen, "evaluations": self.evaluations}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        for name in _OWN:
            setattr(self, name, state["own"][name])
        self.returns = list(self.returns)
        for name in _PARTS:
            getattr(self, name).load_state_dict(state["parts"][name])
        self.eyes.stacked.copy_(state["stacked"])
        episodes = self.environments.state_dict()["numbers"]
        # One that cannot be saved is in another episode now than the latest frame.
        self._begun &= torch.equal(episodes, state["parts"]["environments"]["numbers"])
        self.evaluations = {n: list(state["evaluations"].get(n, [])) for n in self.test}


_OWN = ("step", "returns", "_sum", "_begun")
_PARTS = ("environments", "agent", "ring", "draws")


def _all_frames(steps: int, episode: int) -> int:
    """Count the frames of so many steps, with some to spare for episodes that end early."""
    return steps + 2 * (steps // episode + 1) + 8


def _check_run(environments: Pixels) -> None:
    if environments.runs != 1:
        raise ValueError(
            f"environments: {environments.runs} runs; an agent that sees has one: train others in "
            "processes of their own, as studies do"
        )


def _check(environments: Pixels, name: str, rendered: int) -> None:
    if len(set(environments.seeds)) > 1:
        raise ValueError(
            f"{name}: runs of seeds {environments.seeds}; a test plays the episodes of one seed"
        )
    shape = tuple(getattr(environments, "shape", ()))
    if shape != (rendered, rendered, 3):
        raise ValueError(
            f"{name}: frames of {shape}; this method and setting need ({rendered}, {rendered}, 3)"
        )


def _train(training: PixelTraining, run: RunLike | None, kept: KeptFrames | None) -> None:
    setting, agent = training.setting, training.agent
    began, first = time.monotonic(), training.step

    def tell(words: str) -> None:
        if run is not None:
            run.tell(training.step / setting.steps, f"step {training.step}, {words}")

    def caught_up(updates: int) -> None:
        tell(f"update {updates} of the {setting.seed_steps} that follow the seed steps")

    def tested(name: str, done: int) -> None:
        tell(f"test in {name}: {done} of {setting.episodes} episodes")

    while training.step < setting.steps:
        training.step_(caught_up)
        last = training.step == setting.steps
        if last or training.step % setting.evaluate_every == 0:
            training.evaluate_(film=last, tell=tested)
            if run is not None:
                run.log(**metrics(training))
        if run is None or kept is None or training.step % _LOOK_EVERY:
            continue
        rate = (training.step - first) / max(time.monotonic() - began, 1e-9)
        run.tell(training.step / setting.steps, _words(training, rate))
        if run.due():
            frames = kept.save_()
            run.save({"training": training.state_dict(), "frames": frames})
    for name, environments in training.test.items():
        if name not in training.last:  # the checkpoint was of the last step
            training.last[name] = evaluate(agent, environments, setting.episodes, film=True)
    if run is not None and kept is not None:
        run.save({"training": training.state_dict(), "frames": {"parts": []}})
        kept.remove()


def metrics(training: PixelTraining) -> dict[str, float]:
    """Return a line of metrics: the returns of tests, masks against the truth, losses."""
    found: dict[str, float] = {"step": training.step}
    if training.returns:
        found["return"] = float(np.mean(training.returns[-10:]))
    for name, evaluations in training.evaluations.items():
        latest = evaluations[-1]
        found[f"{name} return"] = latest["return"]
        if "auc" in latest:
            found[f"{name} auc"] = latest["auc"]
    names = ["critic_loss", "actor_loss", "auxiliary_loss"]
    if training.agent.updates:
        learns = names if training.agent.method.auxiliary != "none" else names[:2]
        found |= dict(zip(learns, training.agent.losses.tolist(), strict=False))
    return found


def _words(training: PixelTraining, rate: float) -> str:
    said = f"step {training.step} of {training.setting.steps}, {rate:.0f} steps a second"
    if training.returns:
        said += f", return {np.mean(training.returns[-10:]):.1f}"
    return said
