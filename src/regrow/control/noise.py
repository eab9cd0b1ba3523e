"""Noise features: extremely noisy environments, of whose observations few numbers mean anything."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Literal, get_args

import torch
from torch import Tensor

from regrow.control.draws import RunDraws
from regrow.engine.checks import check_choice

__all__ = ["NoiseFeatures", "NoiseKind", "total_features"]

NoiseKind = Literal["gaussian", "autoregressive", "histogram"]


def total_features(real: int, noise: float) -> int:
    """Return ⌈d / (1 − f)⌉, exactly: the features of which a share f is noise.

    Args:
        real: d, the real ones.
        noise: f, in 0..0.99.

    Raises:
        ValueError: the share is out of its range.

    Example:
        >>> [total_features(d, 0.9) for d in (5, 17, 24, 67, 78)]
        [50, 170, 240, 670, 780]
    """
    if not 0 <= noise <= 0.99:
        raise ValueError(f"noise={noise}: must be at least 0 and at most 0.99")
    # In floating point 24 / (1 − 0.9) lies above 240.
    return math.ceil(real / (1 - Fraction(str(float(noise)))))


class NoiseFeatures:
    """Adds noise features to batched observations.

    Args:
        seeds: of the runs; a run's noise is the same in any population.
        real: features of the environment, d.
        noise: the share of all features that is noise, 0..0.99.
        kind: standard normal numbers ("gaussian"); the same following slowly on one another
            ("autoregressive"); or values that real features take, each noise feature those of one
            ("histogram").
        correlation: of a feature with itself a step later, if autoregressive.
        samples: observations (n, d) for "histogram".
        permuted: whether features stand in an order drawn for each run; else real ones come first.
        stored: whether an observation's noise is kept in the replay buffer with it; else it is
            drawn anew whenever it is learned from. Segments that a teacher saw keep theirs.
        device: where observations are made.

    Attributes:
        real: which features are real, bool, shape (runs, total).
        places: where each real feature is, shape (runs, d).
        total: how many features there are.

    Raises:
        ValueError: an argument is out of its range, samples are missing or do not fit, or slow
            noise were to be drawn anew.

    Source: ANF (Grooten et al. 2023, arXiv 2302.06548); R2N (arXiv 2406.06495).

    Example:
        >>> noise = NoiseFeatures([0], 5, 0.9)
        >>> seen = noise(torch.ones(1, 5))
        >>> seen.shape, noise.real.sum().item(), bool((seen[:, :5] == 1).all())
        (torch.Size([1, 50]), 5, True)
    """

    def __init__(
        self,
        seeds: Sequence[int],
        real: int,
        noise: float,
        *,
        kind: NoiseKind = "gaussian",
        correlation: float = 0.97,
        samples: Tensor | None = None,
        permuted: bool = False,
        stored: bool = True,
        device: torch.device | str = "cpu",
    ) -> None:
        check_choice(kind, get_args(NoiseKind), "kind")
        if not 0 <= correlation < 1:
            raise ValueError(f"correlation={correlation}: must be at least 0 and below 1")
        if not stored and kind == "autoregressive":
            raise ValueError("stored=False: autoregressive noise cannot be drawn anew")
        self.total, self.kind, self.stored = total_features(real, noise), kind, stored
        self._correlation = correlation
        self._added = self.total - real
        self._samples = None if kind != "histogram" else _checked(samples, real, device)
        self._draws = RunDraws(seeds, "noise features", device)
        self._again = RunDraws(seeds, "noise features, drawn anew", device)
        places = torch.arange(self.total, device=device).expand(len(seeds), -1)
        if permuted:
            drawn = RunDraws(seeds, "order of features", device).uniform(self.total)
            places = drawn.argsort(dim=1, stable=True)
        self._order = places.contiguous() if permuted else None
        self.real = places < real
        self.places = places.argsort(dim=1)[:, :real]
        self._last = torch.zeros(len(seeds), self._added, device=device)
        self._begun = False

    def __call__(self, observations: Tensor, *, again: bool = False) -> Tensor:
        """Return observations (runs, total) of real ones (runs, d).

        Args:
            observations: real ones.
            again: whether the noise is that of the last call.
        """
        if not again:
            self._last.copy_(self._next())
        seen = torch.cat([observations, self._last], 1)
        return seen if self._order is None else seen.gather(1, self._order)

    def redrawn(self, observations: Tensor) -> Tensor:
        """Return observations (runs, B, total) with noise drawn anew, unless it is stored."""
        if self.stored:
            return observations
        noise = self._draw(self._again, observations.shape[1])
        fresh = torch.zeros_like(observations)
        fresh[..., self.total - self._added :] = noise
        if self._order is not None:
            fresh = fresh.gather(2, self._order[:, None].expand_as(fresh))
        return torch.where(self.real[:, None], observations, fresh)

    def _next(self) -> Tensor:
        noise = self._draw(self._draws, 1)[:, 0]
        if self.kind == "autoregressive" and self._begun:
            noise = math.sqrt(1 - self._correlation**2) * noise + self._correlation * self._last
        self._begun = True
        return noise

    def _draw(self, draws: RunDraws, batch: int) -> Tensor:
        if self._samples is None:
            return draws.normal(batch, self._added)
        rows = (draws.uniform(batch, self._added) * len(self._samples)).long()
        columns = torch.arange(self._added, device=rows.device) % self._samples.shape[1]
        return self._samples[rows.clamp(max=len(self._samples) - 1), columns]

    def restart_(self) -> None:
        """Be as new: the same noise comes again."""
        for draws in (self._draws, self._again):
            draws.count.zero_()
        self._last.zero_()
        self._begun = False

    def state_dict(self) -> dict[str, object]:
        """Return all that changes."""
        draws = {"draws": self._draws.state_dict(), "again": self._again.state_dict()}
        return {"last": self._last.clone(), "begun": self._begun, **draws}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Go on from a state."""
        last, draws, again = state["last"], state["draws"], state["again"]
        assert isinstance(last, Tensor) and isinstance(draws, Mapping)
        assert isinstance(again, Mapping)
        self._last.copy_(last)
        self._begun = bool(state["begun"])
        self._draws.load_state_dict(draws)
        self._again.load_state_dict(again)


def _checked(samples: Tensor | None, real: int, device: torch.device | str) -> Tensor:
    if samples is None or samples.ndim != 2 or samples.shape[1] != real or not len(samples):
        given = None if samples is None else tuple(samples.shape)
        raise ValueError(f"samples={given}: kind='histogram' needs observations (n, {real})")
    return samples.float().to(device)
