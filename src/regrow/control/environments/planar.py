"""Walkers and cheetahs of the DeepMind Control Suite, in dm_control's own order of calls."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from regrow.control.environments.base import Bools, Environments, Floats
from regrow.control.environments.models import suite_model
from regrow.control.environments.tolerance import tolerance

__all__ = ["Cheetah", "Walker"]

_FRAMES = 1000  # control steps of an episode


class _Planar(Environments):
    """A model with a state of its own for each run; equal to dm_control's to rounding.

    Args:
        seeds: of the runs.
        repeat: control steps of a step, whose rewards are added.
    """

    domain: str
    frame: float  # seconds of a control step
    actions = 6

    def __init__(self, seeds: Sequence[int], *, repeat: int = 1) -> None:
        super().__init__(seeds, -(-_FRAMES // repeat))
        self._model = suite_model(self.domain)
        import mujoco  # noqa: PLC0415  an extra

        self._mujoco: Any = mujoco
        self._datas = [mujoco.MjData(self._model) for _ in self.seeds]
        self._substeps = round(self.frame / self._model.opt.timestep)
        self._repeat = repeat
        self._torso = self._model.body("torso").id
        self._raw = np.zeros((self.runs, repeat, 3))  # height, upright, speed
        self._seen = np.zeros((self.runs, self.observations), dtype=np.float32)

    def begin_(self, run: int, random: np.random.Generator) -> None:
        """Begin anywhere within the joints' ranges."""
        mujoco, data = self._mujoco, self._datas[run]
        mujoco.mj_resetData(self._model, data)
        mujoco.mj_forward(self._model, data)
        self._place_(data, random)
        mujoco.mj_forward(self._model, data)
        self._see(run)

    @abstractmethod
    def _place_(self, data: Any, random: Any) -> None:
        """Put a run anywhere within the joints' ranges."""

    def advance_(self, actions: Floats) -> tuple[Floats, Bools]:
        """Step, in the order in which dm_control does."""
        mujoco, model, torso = self._mujoco, self._model, self._torso
        for run, (data, action) in enumerate(zip(self._datas, actions, strict=True)):
            data.ctrl[:] = action
            for frame in range(self._repeat):
                mujoco.mj_step2(model, data)
                if self._substeps > 1:
                    mujoco.mj_step(model, data, self._substeps - 1)
                mujoco.mj_step1(model, data)
                self._raw[run, frame] = (
                    data.xpos[torso, 2],
                    data.xmat[torso, 8],
                    data.sensordata[0],
                )
            self._see(run)
        rewards = self._reward(*np.moveaxis(self._raw, 2, 0))
        return rewards.sum(1), np.zeros(self.runs, dtype=bool)

    @abstractmethod
    def _reward(self, height: Floats, upright: Floats, speed: Floats) -> Floats:
        """Return rewards, (runs, repeat), of heights, uprightness and speeds."""

    @abstractmethod
    def _see(self, run: int) -> None:
        """Take down what is seen of a run."""

    def observe(self) -> Floats:
        """Return what is seen."""
        return self._seen.copy()

    @property
    def _kind(self) -> Any:
        return self._mujoco.mjtState.mjSTATE_INTEGRATION

    def state(self) -> dict[str, Floats]:
        """Return all that steps depend on, where the solver starts among it."""
        mujoco, model = self._mujoco, self._model
        states = np.zeros((self.runs, mujoco.mj_stateSize(model, self._kind)))
        for data, row in zip(self._datas, states, strict=True):
            mujoco.mj_getState(model, data, row, self._kind)
        return {"states": states}

    def set_state_(self, state: Mapping[str, Floats]) -> None:
        """Go on from physical states."""
        for run, row in enumerate(state["states"]):
            self._mujoco.mj_setState(self._model, self._datas[run], row, self._kind)
            self._mujoco.mj_step1(self._model, self._datas[run])
            self._see(run)


class Walker(_Planar):
    """walker-walk: 24 numbers seen."""

    domain, frame, observations = "walker", 0.025, 24

    def _place_(self, data: Any, random: Any) -> None:
        model = self._model
        for joint in range(model.njnt):
            if model.jnt_limited[joint]:
                data.qpos[joint] = random.uniform(*model.jnt_range[joint])
            elif model.jnt_type[joint] == self._mujoco.mjtJoint.mjJNT_HINGE:
                data.qpos[joint] = random.uniform(-np.pi, np.pi)

    def _reward(self, height: Floats, upright: Floats, speed: Floats) -> Floats:
        standing = tolerance(height, 1.2, np.inf, margin=0.6)
        stands = (3 * standing + (1 + upright) / 2) / 4
        moves = tolerance(speed, 1.0, np.inf, margin=0.5, at_margin=0.5, shape="linear")
        return stands * (5 * moves + 1) / 6

    def _see(self, run: int) -> None:
        data, seen = self._datas[run], self._seen[run]
        seen[0:14:2], seen[1:14:2] = data.xmat[1:, 0], data.xmat[1:, 2]
        seen[14] = data.xpos[self._torso, 2]
        seen[15:] = data.qvel


class Cheetah(_Planar):
    """cheetah-run: 17 numbers seen."""

    domain, frame, observations = "cheetah", 0.01, 17

    def _place_(self, data: Any, random: Any) -> None:
        mujoco, model = self._mujoco, self._model
        limited = model.jnt_limited == 1
        lower, upper = model.jnt_range[limited].T
        data.qpos[limited] = random.uniform(lower, upper)
        mujoco.mj_step2(model, data)
        mujoco.mj_step(model, data, 199)
        mujoco.mj_step1(model, data)
        data.time = 0

    def _reward(self, height: Floats, upright: Floats, speed: Floats) -> Floats:
        return tolerance(speed, 10.0, np.inf, margin=10.0, at_margin=0.0, shape="linear")

    def _see(self, run: int) -> None:
        data, seen = self._datas[run], self._seen[run]
        seen[:8], seen[8:] = data.qpos[1:], data.qvel
