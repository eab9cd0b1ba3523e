"""Tasks of the DeepMind Control Suite, stepped together by EnvPool's C++ threads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from regrow.control.environments.base import Bools, Environments, Floats
from regrow.machine import needed

__all__ = ["Pool"]

_FRAMES = 1000  # control steps of an episode
_ENDLESS = 2**30  # EnvPool would begin anew by itself


class Pool(Environments):
    """Environments of EnvPool, equal to dm_control's in each step, but not in where they begin.

    Where an episode begins follows from its run's seed and how many the process has begun. Such
    environments cannot be saved: a run that is resumed begins a new episode.

    Args:
        seeds: of the runs.
        task: such as "cheetah-run".
        repeat: control steps of a step, whose rewards are added.
        threads: that step.

    Raises:
        ImportError: EnvPool is missing.
        ValueError: it has no such task.
    """

    def __init__(
        self, seeds: Sequence[int], task: str, *, repeat: int = 1, threads: int = 1
    ) -> None:
        super().__init__(seeds, -(-_FRAMES // repeat))
        with needed("envpool", "envpool"):
            import envpool  # noqa: PLC0415  an extra
        name = "".join(part.capitalize() for part in task.replace("_", "-").split("-")) + "-v1"
        if name not in envpool.list_all_envs():
            raise ValueError(f"task={task!r}: EnvPool has no {name}; leave engine='envpool' away")
        self._pool: Any = envpool.make(
            name,
            env_type="gymnasium",
            num_envs=self.runs,
            num_threads=threads,
            seed=[seed % 2**31 for seed in self.seeds],
            frame_skip=1,
            max_episode_steps=_ENDLESS,
        )
        self._repeat = repeat
        space = self._pool.action_space
        self._low, self._high = space.low.astype(np.float64), space.high.astype(np.float64)
        self.actions = len(self._low)
        self._seen = _flat(self._pool.reset()[0])
        self.observations = self._seen.shape[1]

    def begin_(self, run: int, random: np.random.Generator) -> None:
        """Begin by EnvPool's own random numbers."""
        self._seen[run] = _flat(self._pool.reset(np.array([run], dtype=np.int32))[0])[0]

    def advance_(self, actions: Floats) -> tuple[Floats, Bools]:
        """Step; actions in −1..1 are stretched to the task's bounds."""
        stretched = self._low + (actions + 1) / 2 * (self._high - self._low)
        total, over = np.zeros(self.runs), np.zeros(self.runs, dtype=bool)
        for _ in range(self._repeat):  # its own frame_skip gives the reward of the last step alone
            seen, rewards, ended, _, _ = self._pool.step(stretched)
            total += np.where(over, 0.0, rewards)
            over |= ended
        self._seen = _flat(seen)
        return total, over

    def observe(self) -> Floats:
        """Return what is seen."""
        return self._seen.copy()

    def state(self) -> dict[str, Floats]:
        """Return nothing: EnvPool's states cannot be saved."""
        return {}

    def set_state_(self, state: Mapping[str, Floats]) -> None:
        """Begin new episodes."""
        self.reset()


def _flat(seen: Mapping[str, Any]) -> Floats:
    """Put the parts of observations side by side, in their order, as float32."""
    parts = [np.asarray(part).reshape(len(part), -1) for part in seen.values()]
    return np.concatenate(parts, 1).astype(np.float32)
