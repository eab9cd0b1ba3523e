"""Cartpoles of the DeepMind Control Suite, stepped together by mujoco's own threads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from regrow.control.environments.base import Bools, Environments, Floats
from regrow.control.environments.models import suite_model
from regrow.control.environments.tolerance import tolerance

__all__ = ["Cartpole"]

_FRAMES = 1000  # control steps of an episode
_X, _ANGLE, _SPEED = 1, 2, 4  # in a full state: time, two places, two velocities


class Cartpole(Environments):
    """cartpole-swingup or cartpole-balance; equal to dm_control's to rounding.

    Args:
        seeds: of the runs.
        swingup: whether the pole hangs at first.
        repeat: control steps of a step, whose rewards are added.
        threads: that step; None: this one.

    Raises:
        ImportError: mujoco or dm_control is missing.
    """

    observations, actions = 5, 1

    def __init__(
        self, seeds: Sequence[int], *, swingup: bool, repeat: int = 4, threads: int | None = None
    ) -> None:
        super().__init__(seeds, -(-_FRAMES // repeat))
        self._model = suite_model("cartpole")
        import mujoco  # noqa: PLC0415  an extra
        from mujoco.rollout import Rollout  # noqa: PLC0415

        self._swingup, self._repeat = swingup, repeat
        self._data = [mujoco.MjData(self._model) for _ in range(threads or 1)]
        self._rollout = Rollout(nthread=threads or 0)
        self._states: Floats = np.zeros((self.runs, 5))

    def begin_(self, run: int, random: np.random.Generator) -> None:
        """Hang the pole down, or set it upright; a little off."""
        x, angle = random.standard_normal(2) * 0.01 if self._swingup else (0.0, 0.0)
        if not self._swingup:
            x, angle = random.uniform(-0.1, 0.1), random.uniform(-0.034, 0.034)
        start = angle + np.pi if self._swingup else angle
        self._states[run] = [0.0, x, start, *(0.01 * random.standard_normal(2))]

    def advance_(self, actions: Floats) -> tuple[Floats, Bools]:
        """Step; rewards follow from states, since sensors lag behind."""
        control = np.repeat(actions[:, None], self._repeat, 1)
        states, _ = self._rollout.rollout(self._model, self._data, self._states, control)
        self._states = states[:, -1].copy()
        upright = (np.cos(states[..., _ANGLE]) + 1) / 2
        centred = (1 + tolerance(states[..., _X], margin=2.0)) / 2
        gentle = tolerance(actions, margin=1.0, at_margin=0.0, shape="quadratic")
        slow = (1 + tolerance(states[..., _SPEED], margin=5.0)) / 2
        rewards = upright * (4 + gentle) / 5 * slow * centred
        return rewards.sum(1), np.zeros(self.runs, dtype=bool)

    def observe(self) -> Floats:
        """Return the cart's place, the pole's cosine and sine, and both velocities."""
        s = self._states
        seen = [s[:, _X], np.cos(s[:, _ANGLE]), np.sin(s[:, _ANGLE]), s[:, 3], s[:, _SPEED]]
        return np.stack(seen, 1).astype(np.float32)

    def state(self) -> dict[str, Floats]:
        """Return the physical states."""
        return {"states": self._states}

    def set_state_(self, state: Mapping[str, Floats]) -> None:
        """Go on from physical states."""
        self._states = state["states"]
