"""Any task of the DeepMind Control Suite, stepped by dm_control itself."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from regrow.control.environments.base import Bools, Environments, Floats
from regrow.control.environments.models import check_mujoco
from regrow.machine import needed

__all__ = ["Suite"]


class Suite(Environments):
    """Environments of dm_control, for tasks that have no faster ones here.

    Observations are the parts of dm_control's, one after the other. An environment that was saved
    goes on bit for bit if what its task draws lies in the physical state, as that of quadrupeds and
    humanoids does; of a reacher's target, which is moved in the model, a new episode must begin.

    Args:
        seeds: of the runs.
        domain: such as "quadruped".
        task: such as "walk".
        repeat: control steps of a step, whose rewards are added.

    Raises:
        ImportError: mujoco or dm_control is missing.
        ValueError: dm_control has no such task.
    """

    def __init__(self, seeds: Sequence[int], domain: str, task: str, *, repeat: int = 1) -> None:
        self._suite, self._mujoco = _packages()
        if (domain, task) not in self._suite.ALL_TASKS:
            raise ValueError(f"task={domain}-{task!s}: dm_control has no such task")
        self._own = [self._suite.load(domain, task) for _ in seeds]
        first = self._own[0] if self._own else self._suite.load(domain, task)
        super().__init__(seeds, -(-int(first._step_limit) // repeat))
        self._repeat = repeat
        self.actions = int(np.prod(first.action_spec().shape))
        low, high = first.action_spec().minimum, first.action_spec().maximum
        self._low, self._high = (
            np.broadcast_to(low, self.actions),
            np.broadcast_to(high, self.actions),
        )
        self.observations = sum(
            int(np.prod(spec.shape)) for spec in first.observation_spec().values()
        )
        self._seen = np.zeros((self.runs, self.observations), dtype=np.float32)
        self._rewards = np.zeros(self.runs)
        self._ended = np.zeros(self.runs, dtype=bool)

    def begin_(self, run: int, random: np.random.Generator) -> None:
        """Begin as dm_control does, by numbers of its own kind of generator."""
        drawn: Any = random
        if isinstance(random, np.random.Generator):
            drawn = np.random.RandomState(random.integers(2**32))
        one = self._own[run]
        one.task._random = drawn
        self._see(run, one.reset())

    def advance_(self, actions: Floats) -> tuple[Floats, Bools]:
        """Step; actions in −1..1 are stretched to dm_control's bounds."""
        stretched = self._low + (actions + 1) / 2 * (self._high - self._low)
        for run, own in enumerate(self._own):
            total = 0.0
            for _ in range(self._repeat):
                step = own.step(stretched[run])
                total += step.reward
                if step.last():  # dm_control would begin anew
                    break
            self._rewards[run] = total
            self._ended[run] = step.last() and step.discount == 0
            self._see(run, step)
        return self._rewards.copy(), self._ended.copy()

    def _see(self, run: int, step: Any) -> None:
        self._seen[run] = np.concatenate([np.ravel(part) for part in step.observation.values()])

    def observe(self) -> Floats:
        """Return what is seen."""
        return self._seen.copy()

    def state(self) -> dict[str, Floats]:
        """Return physical states, where the solver starts among them, and what was seen."""
        mujoco, kind = self._mujoco, self._mujoco.mjtState.mjSTATE_INTEGRATION
        rows = []
        for one in self._own:
            model, data = one.physics.model.ptr, one.physics.data.ptr
            row = np.zeros(mujoco.mj_stateSize(model, kind))
            mujoco.mj_getState(model, data, row, kind)
            rows.append(row)
        # Sensors of forces lag behind the state: what was seen cannot be computed from it.
        return {"states": np.stack(rows), "seen": self._seen.astype(np.float64)}

    def set_state_(self, state: Mapping[str, Floats]) -> None:
        """Go on from physical states."""
        mujoco, kind = self._mujoco, self._mujoco.mjtState.mjSTATE_INTEGRATION
        for run, (one, row) in enumerate(zip(self._own, state["states"], strict=True)):
            one.reset()
            model, data = one.physics.model.ptr, one.physics.data.ptr
            mujoco.mj_setState(model, data, row, kind)
            mujoco.mj_step1(model, data)
            one._step_count = int(self._steps[run]) * self._repeat
        self._seen = state["seen"].astype(np.float32)


def _packages() -> tuple[Any, Any]:
    mujoco = check_mujoco()
    with needed("dm_control", "control"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on machines without a display
        from dm_control import suite  # noqa: PLC0415  an extra
    return suite, mujoco
