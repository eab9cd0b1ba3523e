"""Shadows: features that mean nothing and look like the others, to tell by what noise is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from regrow.control.draws import RunDraws
from regrow.control.noise import NoiseFeatures

__all__ = ["Shadows", "redrawn"]


class Shadows:
    """Adds to observations what some of their features were some time ago.

    A shadow has the distribution and the slowness of a feature, and says nothing of now: what
    networks find in it, they find in noise. It is stored as all features are, and so learnt by
    heart as easily. Until its delay has passed it is zero; :meth:`fill_` mends that afterwards.

    Args:
        seeds: of the runs; which features are followed, and by how much, is drawn for each.
        features: numbers in an observation, d.
        count: shadows, k.
        longest: steps; a shadow follows by at least half of them, and less than all.
        device: where they are.

    Attributes:
        sources: the features that are followed, (runs, k).
        lags: steps by which, (runs, k).

    Source: the idea of Boruta (Kursa & Rudnicki 2010), whose shadows are permuted values.

    Example:
        >>> shadows = Shadows([0], 3, 2, longest=2)
        >>> [shadows(torch.full((1, 3), float(t)))[0, 3:].tolist() for t in (1, 2, 3)]
        [[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]]
    """

    def __init__(
        self,
        seeds: Sequence[int],
        features: int,
        count: int,
        longest: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self.features, self.count = features, count
        self._again = RunDraws(seeds, "shadows, drawn anew", device)
        if not count:
            return
        draws = RunDraws(seeds, "shadows", device)
        self.sources = (draws.uniform(count) * features).long().clamp(max=features - 1)
        least = max(longest // 2, 1)
        most = max(longest - 1, least)
        self.lags = (least + draws.uniform(count) * (most - least + 1)).long().clamp(max=most)
        self._past = torch.zeros(len(seeds), most, features, device=device)
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
            length = self._past.shape[1]
            places = (self._seen - self.lags) % length
            self._last.copy_(self._past[self._rows, places, self.sources])
            self._past[:, self._seen % length] = observations
            self._seen += 1
        return torch.cat([observations, self._last], 1)

    def fill_(self, inputs: Tensor, following: Tensor) -> None:
        """Give the first steps shadows, too: what features are later, up to the last step.

        Args:
            inputs: observations and more of the first n steps, (runs, n, ≥ d + k); written.
            following: the next observations, (runs, n, d + k); written.
        """
        if not self.count:
            return
        d, n = self.features, inputs.shape[1]
        calls = torch.cat([inputs[:, :1, :d], following[..., :d]], 1)
        number = torch.arange(n + 1, device=inputs.device)[:, None]
        places = (number - self.lags[:, None]) % (n + 1)
        found = calls[self._rows[..., None], places, self.sources[:, None]]
        early = number < self.lags[:, None]
        for kept, of, new in ((inputs, early[:, :-1], found[:, :-1]),
                              (following, early[:, 1:], found[:, 1:])):  # fmt: skip
            columns = kept[..., d : d + self.count]
            columns.copy_(torch.where(of, new, columns))

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

    def restart_(self) -> None:
        """Be as new, with nothing seen."""
        self._again.count.zero_()
        if self.count:
            self._past.zero_()
            self._last.zero_()
            self._seen = 0

    def state_dict(self) -> dict[str, object]:
        """Return all that changes."""
        again: dict[str, object] = {"again": self._again.state_dict()}
        if not self.count:
            return again
        return again | {"past": self._past.clone(), "last": self._last.clone(), "seen": self._seen}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Go on from a state."""
        again = state["again"]
        assert isinstance(again, Mapping)
        self._again.load_state_dict(again)
        if self.count:
            past, last, seen = state["past"], state["last"], state["seen"]
            assert isinstance(past, Tensor) and isinstance(last, Tensor) and isinstance(seen, int)
            self._past.copy_(past)
            self._last.copy_(last)
            self._seen = seen


def redrawn(noise: NoiseFeatures, shadows: Shadows, inputs: Tensor) -> Tensor:
    """Return a batch whose noise and shadows are drawn anew; real features and actions stay.

    Args:
        noise: that is not stored.
        shadows: behind it.
        inputs: (runs, B, features + shadows + anything).
    """
    n = noise.total
    fresh = noise.redrawn(inputs[..., :n])
    return torch.cat([fresh, shadows.redrawn(fresh), inputs[..., n + shadows.count :]], -1)
