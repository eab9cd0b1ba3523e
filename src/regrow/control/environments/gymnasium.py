"""Gymnasium's environments as those of a population: a user's own, one for each run."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from regrow.control.environments.base import Bools, Environments, Floats, Seen, Step
from regrow.engine.checks import check_integer

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
            TypeError: ``make`` is no function, or makes no environment.
            ValueError: there are no seeds, no length of episodes is known, runs share an
                environment, or actions are no box of finite bounds, the same in all.
        """
        if not len(seeds):
            raise ValueError(f"seeds={seeds}: at least one is needed, each 0 or above")
        if not callable(make):
            raise TypeError(f"make={make}: a function that makes one is needed: lambda: make(...)")
        self._environments = [make() for _ in seeds]
        first = self._environments[0]
        _check_environments(self._environments)
        length = getattr(getattr(first, "spec", None), "max_episode_steps", None)
        length = length if episode is None else check_integer(episode, "episode")
        if length is None:
            raise ValueError(f"episode=None: {first} does not say how long episodes are; say it")
        self._actions = first.action_space
        self._low, self._high = _bounds(first)
        self.actions = len(self._low)
        self._cut = np.zeros(len(seeds), dtype=bool)
        return first, length

    @abstractmethod
    def see_(self, run: int, seen: Any) -> None:
        """Take over what an environment shows."""

    def begin_(self, run: int, random: np.random.Generator) -> None:
        """Reset one."""
        told = self._environments[run].reset(seed=int(random.integers(2**31)))
        seen, _ = _parts(told, "reset", ("observation", "info"), run)
        self.see_(run, seen)

    def step(self, actions: Floats) -> Step:
        """Step all runs; an episode may also be over for a length that its own wrappers know."""
        step = super().step(actions)
        return replace(step, truncated=(step.truncated | self._cut) & ~step.terminated)

    def advance_(self, actions: Floats) -> tuple[Floats, Bools]:
        """Make a step."""
        rewards, ended = np.zeros(self.runs), np.zeros(self.runs, dtype=bool)
        stretched = self._low + (actions + 1) / 2 * (self._high - self._low)
        kind, shape = self._actions.dtype, self._actions.shape
        if not np.issubdtype(kind, np.floating):
            stretched = np.rint(stretched)
        for run, one in enumerate(self._environments):
            # Rounded to its type, the bound of a space may lie beyond it.
            action = stretched[run].astype(kind).reshape(shape)
            action = np.asarray(np.clip(action, self._actions.low, self._actions.high))
            told = one.step(action)
            seen, reward, ended[run], self._cut[run], _ = _parts(told, "step", _STEP, run)
            rewards[run] = _number(reward, run)
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

    Observations and actions are boxes; actions in −1..1 are stretched to their bounds, and rounded
    where they are whole numbers. Where an episode begins follows from its run's seed and number.
    Such an environment cannot be saved: a run that is resumed begins a new episode.

    Args:
        make: makes one, such as ``lambda: gymnasium.make("Pendulum-v1")``.
        seeds: of the runs.
        episode: steps after which an episode is over for its length; None: as its spec says.

    Raises:
        TypeError: ``make`` is no function, or makes no environment.
        ValueError: observations are no box, or empty; actions are no box of finite bounds, the same
            in all; runs share an environment; or no length of episodes is known.
    """

    def __init__(
        self, make: Callable[[], Any], seeds: Sequence[int], episode: int | None = None
    ) -> None:
        first, length = self.open_(make, seeds, episode)
        super().__init__(seeds, length)
        space = _box(first, "observation_space", "gymnasium.wrappers has FlattenObservation")
        self.observations = int(np.prod(space.shape))
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


_STEP = ("observation", "reward", "terminated", "truncated", "info")


def _parts(told: Any, call: str, names: Sequence[str], run: int) -> Sequence[Any]:
    """Return what an environment told; raise ValueError unless it is as many things as it should.

    That is no tuple of Gymnasium's in environments that were written for the gym of before.
    """
    if not isinstance(told, tuple) or len(told) != len(names):
        what = f"{len(told)} things" if isinstance(told, tuple) else type(told).__name__
        raise ValueError(
            f"environment of run {run}: {call} returned {what}; Gymnasium's {', '.join(names)} "
            "are needed"
        )
    return told


def _number(reward: Any, run: int) -> float:
    """Return a reward; raise ValueError unless it is one number."""
    values = np.asarray(reward)
    if values.size != 1 or values.dtype.kind not in "biuf":
        raise ValueError(f"environment of run {run}: reward={reward!r}: one number is needed")
    return float(values.reshape(()))


def _check_environments(made: Sequence[Any]) -> None:
    """Raise an error unless each run has an environment of its own, and all have equal actions."""
    first = made[0]
    for name in ("observation_space", "action_space", "reset", "step"):
        if not hasattr(first, name):
            raise TypeError(f"make: made {first!r}, which has no {name}: an Env is needed")
    if hasattr(first, "num_envs"):
        raise ValueError(
            f"make: made {first}, a vector of environments: let it make a single one; there is one "
            "for each seed"
        )
    if len({id(one) for one in made}) < len(made):
        raise ValueError("make: gave one environment to several runs: let each call make a new one")
    for run, one in enumerate(made):
        if one.action_space != first.action_space:
            raise ValueError(
                f"environment of run {run}: action_space={one.action_space}, and "
                f"{first.action_space} in run 0: all must be equal"
            )


def _box(environment: Any, name: str, instead: str) -> Any:
    """Return a space that is a Box of some numbers.

    Raises:
        ValueError: it is none.
    """
    space = getattr(environment, name)
    if type(space).__name__ != "Box":
        raise ValueError(f"{name}={space}: a Box of numbers is needed; {instead}")
    if not np.prod(space.shape):
        raise ValueError(f"{name}={space}: at least one number is needed")
    return space


def _bounds(environment: Any) -> tuple[Floats, Floats]:
    """Return the lowest and highest numbers of an environment's actions.

    Raises:
        ValueError: its actions are no box of finite bounds.
    """
    space = _box(environment, "action_space", "agents here choose numbers, not one of several")
    low, high = np.ravel(space.low).astype(float), np.ravel(space.high).astype(float)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ValueError(
            f"action_space={space}: finite bounds are needed; gymnasium.wrappers.TransformAction "
            "gives others"
        )
    return low, high
