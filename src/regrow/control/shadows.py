"""Shadows: features that mean nothing and look like the others, to tell by what noise is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from regrow.control.draws import RunDraws

__all__ = ["Shadows"]


class Shadows:
    """Adds to observations what some of their features were one or two episodes ago.

    A shadow has the distribution and the slowness of a feature, and says nothing of now: what
    networks find in it, they find in noise. It is stored as all features are, and so learnt by
    heart as easily. Until its delay has passed, it shows any earlier step, drawn at random.

    Args:
        seeds: of the runs; which features are followed, and by how much, is drawn for each.
        features: numbers in an observation, d.
        count: shadows, k.
        episode: steps of an episode; a shadow follows by one to two of them.
        device: where they are.

    Source: the idea of Boruta (Kursa & Rudnicki 2010), whose shadows are permuted values.

    Example:
        >>> shadows = Shadows([0], 3, 2, episode=1)
        >>> [shadows(torch.full((1, 3), float(t)))[0, 3:].tolist() for t in (1, 2, 3)]
        [[1.0, 1.0], [1.0, 1.0], [2.0, 2.0]]
    """

    def __init__(
        self,
        seeds: Sequence[int],
        features: int,
        count: int,
        episode: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self.features, self.count = features, count
        self._again = RunDraws(seeds, "shadows, drawn anew", device)
        if not count:
            return
        self._draws = RunDraws(seeds, "shadows", device)
        self.sources = (self._draws.uniform(count) * features).long().clamp(max=features - 1)
        delays = episode + self._draws.uniform(count) * episode
        self.lags = delays.long().clamp(max=2 * episode - 1)
        self._past = torch.zeros(len(seeds), 2 * episode, features, device=device)
        self._last = torch.zeros(len(seeds), count, device=device)
        self._rows = torch.arange(len(seeds), device=device)[:, None]
        self._seen = 0

    def __call__(self, observations: Tensor, *, again: bool = False) -> Tensor:
        """Return observations (runs, d + k) of those without shadows, (runs, d).

        Args:
            observations: what is seen.
            again: whether shadows are those of the last call, and this one is not remembered.
        """
        if not self.count:
            return observations
        if not again:
            length, now = self._past.shape[1], self._seen
            self._past[:, now % length] = observations
            early = (self._draws.uniform(self.count) * max(now, 1)).long()
            places = torch.where(self.lags <= now, now - self.lags, early) % length
            self._last.copy_(self._past[self._rows, places, self.sources])
            self._seen += 1
        return torch.cat([observations, self._last], 1)

    def redrawn(self, observations: Tensor) -> Tensor:
        """Return shadows of a batch, each what its feature is elsewhere in it; (runs, B, k).

        Args:
            observations: without shadows, (runs, B, d).
        """
        batch = observations.shape[1]
        if not self.count:
            return observations[..., :0]
        others = (self._again.uniform(batch, self.count) * batch).long().clamp(max=batch - 1)
        return observations[self._rows[..., None], others, self.sources[:, None]]

    def state_dict(self) -> dict[str, object]:
        """Return all that changes."""
        again: dict[str, object] = {"again": self._again.state_dict()}
        if not self.count:
            return again
        kept = {"past": self._past.clone(), "last": self._last.clone(), "seen": self._seen}
        return again | kept | {"draws": self._draws.state_dict()}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Go on from a state."""
        again = state["again"]
        assert isinstance(again, Mapping)
        self._again.load_state_dict(again)
        if self.count:
            past, last, seen, draws = (state[n] for n in ("past", "last", "seen", "draws"))
            assert isinstance(draws, Mapping)
            self._draws.load_state_dict(draws)
            assert isinstance(past, Tensor) and isinstance(last, Tensor) and isinstance(seen, int)
            self._past.copy_(past)
            self._last.copy_(last)
            self._seen = seen
