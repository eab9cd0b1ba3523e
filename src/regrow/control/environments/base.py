"""What an environment of a population is: one for each run, stepped together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.engine.checks import check_integer

__all__ = ["Bools", "Environments", "Floats", "Seen", "Step"]

Floats = npt.NDArray[np.floating[Any]]
Seen = npt.NDArray[Any]  # numbers as float32, or pictures as uint8
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Step:
    """What a step of all runs gives.

    Args:
        observations: float32, (runs, d), or pictures; of the last state of an episode where that is
            over.
        rewards: (runs,).
        terminated: bool, (runs,): the episode is over for good; nothing comes after its last state.
        truncated: bool, (runs,): it is over for its length.
    """

    observations: Seen
    rewards: Floats
    terminated: Bools
    truncated: Bools


class Environments(ABC):
    """An environment for each run. Where an episode begins follows from its run's seed and number.

    A subclass says how an episode begins, what a step does, and what is seen.

    Args:
        seeds: of the runs, 0 or above.
        episode: steps after which an episode is over for its length.

    Attributes:
        observations: numbers in an observation, d.
        actions: numbers in an action, each in −1..1.
    """

    observations: int
    actions: int

    def __init__(self, seeds: Sequence[int], episode: int) -> None:
        self.seeds = [check_integer(seed, "seed") for seed in seeds]
        if not self.seeds or min(self.seeds) < 0:
            raise ValueError(f"seeds={seeds}: at least one is needed, each 0 or above")
        self.episode = check_integer(episode, "episode", least=1)
        self._numbers = np.zeros(len(self.seeds), dtype=np.int64)  # of episodes begun
        self._steps = np.zeros(len(self.seeds), dtype=np.int64)

    @property
    def runs(self) -> int:
        """How many runs there are."""
        return len(self.seeds)

    def reset(self, which: Bools | None = None) -> Seen:
        """Begin a new episode in some runs, or in all; return the observations of all runs.

        Args:
            which: bool, (runs,).
        """
        chosen = np.ones(self.runs, dtype=bool) if which is None else which
        for run in np.flatnonzero(chosen):
            key = [self.seeds[run], int(self._numbers[run])]
            self.begin_(int(run), np.random.default_rng(key))
            self._numbers[run] += 1
            self._steps[run] = 0
        return self.observe()

    def rewind_(self, numbers: npt.ArrayLike = 0) -> None:
        """Let the next episode of every run be its first one again, or one of a number, (runs,)."""
        self._numbers[:] = numbers

    def step(self, actions: Floats) -> Step:
        """Step all runs.

        Args:
            actions: (runs, actions), in −1..1; beyond, they are clipped.
        """
        rewards, terminated = self.advance_(np.clip(actions, -1.0, 1.0).astype(np.float64))
        self._steps += 1
        truncated = (self._steps >= self.episode) & ~terminated
        return Step(self.observe(), rewards, terminated, truncated)

    @abstractmethod
    def begin_(self, run: int, random: np.random.Generator) -> None:
        """Begin an episode of a run."""

    @abstractmethod
    def advance_(self, actions: Floats) -> tuple[Floats, Bools]:
        """Make a step; return rewards and where an episode is over for good."""

    @abstractmethod
    def observe(self) -> Seen:
        """Return what is seen now, float32, (runs, d), or pictures."""

    @abstractmethod
    def state(self) -> dict[str, Floats]:
        """Return arrays that say where all runs are."""

    @abstractmethod
    def set_state_(self, state: Mapping[str, Floats]) -> None:
        """Go on from arrays."""

    def state_dict(self) -> dict[str, Any]:
        """Return everything a resumed run needs, as tensors."""
        import torch  # noqa: PLC0415  environments know arrays only

        counts = {"numbers": self._numbers, "steps": self._steps}
        return {k: torch.from_numpy(v.copy()) for k, v in (counts | self.state()).items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        arrays = {name: value.numpy().copy() for name, value in state.items()}
        self._numbers, self._steps = arrays.pop("numbers"), arrays.pop("steps")
        self.set_state_(arrays)
