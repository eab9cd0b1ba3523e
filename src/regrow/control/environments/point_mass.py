"""A point mass that is pushed to the middle of a square: what is needed to try learning at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from regrow.control.environments.base import Bools, Environments, Floats

__all__ = ["PointMass"]


class PointMass(Environments):
    """A mass of friction; r = exp(−2·|x|²). It is seen by its place and velocity.

    Args:
        seeds: of the runs.
        episode: steps of an episode.
        wall: how far from the middle an episode ends for good; None: it never does.

    Example:
        >>> mass = PointMass([0, 1])
        >>> mass.reset().shape, mass.step(np.zeros((2, 2))).rewards.shape
        ((2, 4), (2,))
    """

    observations, actions = 4, 2

    def __init__(self, seeds: Sequence[int], episode: int = 50, wall: float | None = None) -> None:
        super().__init__(seeds, episode)
        self._wall = np.inf if wall is None else wall
        self._places: Floats = np.zeros((self.runs, 2))
        self._speeds: Floats = np.zeros((self.runs, 2))

    def begin_(self, run: int, random: np.random.Generator) -> None:
        """Put the mass anywhere, at rest."""
        self._places[run] = random.uniform(-1, 1, 2)
        self._speeds[run] = 0

    def advance_(self, actions: Floats) -> tuple[Floats, Bools]:
        """Push."""
        self._speeds = 0.9 * self._speeds + 0.03 * actions
        self._places = self._places + self._speeds
        squared = np.square(self._places).sum(1)
        return np.exp(-2 * squared), squared > self._wall**2

    def observe(self) -> Floats:
        """Return places and velocities."""
        return np.concatenate([self._places, 10 * self._speeds], 1).astype(np.float32)

    def state(self) -> dict[str, Floats]:
        """Return places and velocities."""
        return {"places": self._places, "speeds": self._speeds}

    def set_state_(self, state: Mapping[str, Floats]) -> None:
        """Go on from places and velocities."""
        self._places, self._speeds = state["places"], state["speeds"]
