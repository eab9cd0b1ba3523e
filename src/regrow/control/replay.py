"""The replay buffer of a population: a ring of transitions on the device, and segments of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from regrow.control.memory import check_memory

__all__ = ["Replay"]

_RELABELLED = 1024  # transitions of each run at once


class Replay:
    """The latest transitions of all runs, which step together.

    Args:
        runs: how many.
        capacity: transitions kept of each run.
        observations: numbers in an observation, D.
        actions: numbers in an action, A.
        device: where they are kept.

    Attributes:
        inputs: observations and actions, (runs, capacity, D + A).
        following: next observations, (runs, capacity, D).
        rewards: of the environment, (runs, capacity).
        learned: what the agent learns from, (runs, capacity).
        spread: how far reward models differ on it, their standard deviation, (runs, capacity).
        ended: 1 where the episode ended for good, not by a time limit, (runs, capacity).
        episode: the number of the episode, (runs, capacity); -1 where nothing is yet.
        added: transitions added so far, a tensor on the device.

    Raises:
        ValueError: they do not fit into memory; the message says how many would.
    """

    def __init__(
        self, runs: int, capacity: int, observations: int, actions: int, device: torch.device | str
    ) -> None:
        # Numbers of inputs, next observations, rewards of two kinds, spread, end, and the episode.
        check_memory(capacity, 4 * (2 * observations + actions + 4) + 8, device, runs)
        self.capacity, self.observations, self.actions = capacity, observations, actions
        self.inputs = torch.zeros(runs, capacity, observations + actions, device=device)
        self.following = torch.zeros(runs, capacity, observations, device=device)
        self.rewards = torch.zeros(runs, capacity, device=device)
        self.learned, self.spread = torch.zeros_like(self.rewards), torch.zeros_like(self.rewards)
        self.ended = torch.zeros_like(self.rewards)
        self.episode = torch.full((runs, capacity), -1, dtype=torch.int64, device=device)
        self.added = torch.zeros(1, dtype=torch.int64, device=device)
        self._rows = torch.arange(runs, device=device)[:, None]

    def __len__(self) -> int:
        """Return how many transitions of each run are kept; waits for the device."""
        return min(int(self.added), self.capacity)

    def add_(
        self,
        inputs: Tensor,
        following: Tensor,
        rewards: Tensor,
        learned: Tensor,
        spread: Tensor,
        ended: Tensor,
        episode: Tensor,
    ) -> None:
        """Add a transition of each run, in place of the oldest if there is no more room."""
        place = self.added % self.capacity
        new = {"inputs": inputs, "following": following, "rewards": rewards}
        new |= {"learned": learned, "spread": spread, "ended": ended, "episode": episode}
        for name, values in new.items():
            getattr(self, name).index_copy_(1, place, values.unsqueeze(1))
        self.added += 1

    def places(self, uniform: Tensor) -> Tensor:
        """Turn numbers in (0, 1) into places of transitions; int64 of the same shape.

        A transition lies at every place below the number of those kept.
        """
        size = self.added.clamp(max=self.capacity)
        return torch.minimum((uniform * size).long(), size - 1)

    def latest(self, most: int) -> Tensor:
        """Return the places of the latest transitions, in the order of time."""
        added = int(self.added)
        first = added - min(most, len(self))
        return torch.arange(first, added, device=self.added.device) % self.capacity

    def sample(self, places: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return inputs, next observations, learned rewards and ends at places (runs, B)."""
        inputs, following = self.read("inputs", places), self.read("following", places)
        return inputs, following, self.read("learned", places), self.read("ended", places)

    def read(self, what: str, places: Tensor) -> Tensor:
        """Return what the attribute ``what`` holds at places (runs, B)."""
        found: Tensor = getattr(self, what)[self._rows, places]
        return found

    # ------------------------------------------------------------------ segments

    def starts(self, uniform: Tensor, length: int, latest: int) -> Tensor:
        """Turn random numbers into places at which segments start, each inside one episode.

        Args:
            uniform: numbers in (0, 1), shape (runs, count).
            length: transitions in a segment.
            latest: how many of the latest transitions of a run segments may lie in.

        Returns:
            int64, shape (runs, count); every place at which a segment may start is as likely.

        Raises:
            ValueError: a run has no such place.
        """
        allowed = self._may_start(length, latest)
        places = allowed.cumsum(1)
        if not int(places[:, -1].min()):
            run = int(places[:, -1].argmin())
            raise ValueError(
                f"run {run}: no episode of it has had segment={length} steps so far: shorten "
                "segments below the length of episodes, or ask later"
            )
        ranks = 1 + (uniform * places[:, -1:]).long()
        return torch.searchsorted(places, torch.minimum(ranks, places[:, -1:]))

    def _may_start(self, length: int, latest: int) -> Tensor:
        """Return whether a segment may start at each place; bool (runs, capacity)."""
        ages = (self.added - 1 - torch.arange(self.capacity, device=self.added.device)) % (
            self.capacity
        )
        within = (ages < min(latest, len(self))) & (ages >= length - 1)
        return within & (self.episode == self.episode.roll(1 - length, 1)) & (self.episode >= 0)

    def segments(
        self,
        starts: Tensor,
        length: int,
        what: str,
        *,
        margin: int = 0,
        runs: Tensor | None = None,
    ) -> Tensor:
        """Return what lies in segments: shaped as starts, then (length + 2·margin, ...).

        Args:
            starts: places at which they start, (runs, ...).
            length: transitions in a segment.
            what: the attribute read.
            margin: transitions before and after it that are returned, too.
            runs: those that the starts are of; None: all.
        """
        steps = torch.arange(-margin, length + margin, device=starts.device)
        found: Tensor = getattr(self, what)[self._runs(starts, runs), self._near(starts, steps)]
        return found

    def inside(
        self, starts: Tensor, length: int, margin: int, runs: Tensor | None = None
    ) -> Tensor:
        """Return which transitions in and around segments belong to the same episode; bool.

        Args:
            starts: as of ``segments``.
            length: likewise.
            margin: likewise.
            runs: likewise.
        """
        steps = torch.arange(-margin, length + margin, device=starts.device)
        ages = (self.added - 1 - starts.unsqueeze(-1)) % self.capacity - steps
        rows = self._runs(starts, runs)
        first = self.episode[rows, starts.unsqueeze(-1)]
        same = self.episode[rows, self._near(starts, steps)] == first
        return same & (ages >= 0) & (ages < self.added.clamp(max=self.capacity))

    def _near(self, starts: Tensor, steps: Tensor) -> Tensor:
        return (starts.unsqueeze(-1) + steps) % self.capacity

    def _runs(self, starts: Tensor, runs: Tensor | None) -> Tensor:
        rows = self._rows if runs is None else runs
        return rows.view(-1, *[1] * starts.ndim)

    # ------------------------------------------------------------------ labels, state

    def relabel_(
        self, reward: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], which: Tensor
    ) -> None:
        """Give all transitions kept of some runs other rewards to learn from.

        Args:
            reward: gives learned rewards and their spread, (runs, n), for inputs (runs, n, D + A)
                and the environment's rewards (runs, n).
            which: the runs, bool, (runs,).
        """
        size = len(self)
        for at in range(0, size, _RELABELLED):
            part = slice(at, min(at + _RELABELLED, size))
            learned, spread = reward(self.inputs[:, part], self.rewards[:, part])
            self.learned[which, part], self.spread[which, part] = learned[which], spread[which]

    def state_dict(self, leave_out: Sequence[str] = ()) -> dict[str, Tensor]:
        """Return everything kept, but attributes that are to be left out."""
        size = len(self)
        names = [name for name in _STATE if name not in leave_out]
        kept = {name: getattr(self, name)[:, :size].clone() for name in names}
        return kept | {"added": self.added.clone()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over what was kept."""
        for name in [name for name in _STATE if name in state]:
            getattr(self, name)[:, : state[name].shape[1]].copy_(state[name])
        self.added.copy_(state["added"])


_STATE = ("inputs", "following", "rewards", "learned", "spread", "ended", "episode")
