"""Gymnasium's environments as those of a population: a user's own, one for each run."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from regrow.control.environments.base import Bools, Environments, Floats, Seen, Step

__all__ = ["Gymnasium", "GymnasiumRuns"]


class GymnasiumRuns(Environments):
    """An environment of Gymnasium's for each run; a subclass says what is seen of it.

    A subclass calls ``open_`` before its base class's constructor.
    """

    _seen: Seen  # last, a row for each run

    def open_(
        self, make: Callable[[], Any], seeds: Sequence[int], episode: int | None
    ) -> tuple[Any, int]:
        """Make an environment for each run; return the first, and the length of episodes.

        Raises:
            ValueError: there are no seeds, no length of episodes is known, or actions are no box of
                finite bounds.
        """
        if not len(seeds):
            raise ValueError(f"seeds={seeds}: at least one is needed, each 0 or above")
        self._environments = [make() for _ in seeds]
        first = self._environments[0]
        length = episode or getattr(getattr(first, "spec", None), "max_episode_steps", None)
        if length is None:
            raise ValueError(f"episode=None: {first} does not say how long episodes are; say it")
        self._low, self._high = _bounds(first)
        self.actions = len(self._low)
        self._shape = first.action_space.shape
        self._cut = np.zeros(len(seeds), dtype=bool)
        return first, length

    @abstractmethod
    def see_(self, run: int, seen: Any) -> None:
        """Take over what an environment shows."""

    def begin_(self, run: int, random: np.random.Generator) -> None:
        """Reset one."""
        seen, _ = self._environments[run].reset(seed=int(random.integers(2**31)))
        self.see_(run, seen)

    def step(self, actions: Floats) -> Step:
        """Step all runs; an episode may also be over for a length that its own wrappers know."""
        step = super().step(actions)
        return replace(step, truncated=(step.truncated | self._cut) & ~step.terminated)

    def advance_(self, actions: Floats) -> tuple[Floats, Bools]:
        """Make a step."""
        rewards, ended = np.zeros(self.runs), np.zeros(self.runs, dtype=bool)
        stretched = self._low + (actions + 1) / 2 * (self._high - self._low)
        for run, one in enumerate(self._environments):
            action = stretched[run].reshape(self._shape).astype(np.float32)
            seen, rewards[run], ended[run], self._cut[run], _ = one.step(action)
            self.see_(run, seen)
        return rewards, ended

    def observe(self) -> Seen:
        """Return what was seen last."""
        return self._seen.copy()

    def state(self) -> dict[str, Floats]:
        """Return nothing: such an environment cannot be saved."""
        return {}

    def set_state_(self, state: Mapping[str, Floats]) -> None:
        """Begin new episodes."""
        self.reset()


class Gymnasium(GymnasiumRuns):
    """Environments of any kind that Gymnasium knows, with numbers as observations and actions.

    Observations and actions are boxes; actions in −1..1 are stretched to their bounds. Where an
    episode begins follows from its run's seed and number. Such an environment cannot be saved: a
    run that is resumed begins a new episode.

    Args:
        make: makes one, such as ``lambda: gymnasium.make("Pendulum-v1")``.
        seeds: of the runs.
        episode: steps after which an episode is over for its length; None: as its spec says.

    Raises:
        ValueError: a space is no box of finite bounds, or no length of episodes is known.
    """

    def __init__(
        self, make: Callable[[], Any], seeds: Sequence[int], episode: int | None = None
    ) -> None:
        first, length = self.open_(make, seeds, episode)
        super().__init__(seeds, length)
        self.observations = int(np.prod(_box(first, "observation_space").shape))
        self._seen = np.zeros((self.runs, self.observations), dtype=np.float32)

    def see_(self, run: int, seen: Any) -> None:
        """Take over what an environment shows, as a row of numbers.

        Raises:
            ValueError: there are more or fewer than its space has.
        """
        row = np.ravel(seen)
        if len(row) != self.observations:
            raise ValueError(
                f"environment of run {run}: shows {len(row)} numbers, its observation_space has "
                f"{self.observations}: mend one of them"
            )
        with np.errstate(over="ignore"):  # what float32 has not is infinite, and told as that
            self._seen[run] = row


def _box(environment: Any, name: str) -> Any:
    space = getattr(environment, name)
    if type(space).__name__ != "Box":
        raise ValueError(
            f"{name}={space}: a Box of numbers is needed; gymnasium.wrappers has FlattenObservation"
        )
    return space


def _bounds(environment: Any) -> tuple[Floats, Floats]:
    """Return the lowest and highest numbers of an environment's actions.

    Raises:
        ValueError: its actions are no box of finite bounds.
    """
    space = _box(environment, "action_space")
    low, high = np.ravel(space.low).astype(float), np.ravel(space.high).astype(float)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ValueError(
            f"action_space={space}: finite bounds are needed; gymnasium.wrappers has RescaleAction"
        )
    return low, high
