"""Learns from a table that comes in parts: inputs are scored after each, and none is eliminated."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from regrow.features.copies import Groups, alike, joined
from regrow.features.elimination import InputScores, batches, bootstrapped
from regrow.features.ensemble import Ensemble, EnsembleSetting
from regrow.features.inputs import ROUNDED, Floats, Inputs, Scaling, scaling, unit_of, units
from regrow.features.targets import Targets

__all__ = ["Stream", "merged"]


def merged(a: Scaling, b: Scaling, share: float) -> Scaling:
    """Return the scaling of two tables together, of which b holds a share of the weight.

    Source: Chan, Golub & LeVeque 1983 (The American Statistician 37).

    Example:
        >>> a, b = (scaling(np.array([[x], [x + 2]]), np.ones(2), None) for x in (0.0, 4.0))
        >>> both = merged(a, b, 0.5)
        >>> both.mean.tolist(), round(float(both.std[0]) ** 2, 6)
        ([3.0], 5.0)
    """
    spreads = [np.where(part.constant, 0.0, part.std) for part in (a, b)]
    unit = units(np.max([*spreads, np.abs(a.mean), np.abs(b.mean)], axis=0))
    apart = b.mean * unit - a.mean * unit
    mean = np.where(apart == 0, a.mean, (a.mean * unit + share * apart) / unit)
    within = [(spread * unit) ** 2 for spread in spreads]
    between = share * (1 - share) * apart**2
    std = np.sqrt((1 - share) * within[0] + share * within[1] + between) / unit
    equal = np.abs(apart) <= ROUNDED * np.abs(a.mean * unit)
    constant = (a.constant & b.constant & equal) | (std == 0)
    shift = (1 - share) * a.shift + share * b.shift
    return Scaling(mean, np.where(constant, 1.0, std), shift, constant)


class Stream:
    """An ensemble trained on each part once, with the scores of all parts so far.

    Args:
        keep: K, for the number of links.
        batch: rows in a step.
        clip: of inputs, in standard deviations.
        importance: "mixed", "attribution" or "strength".
        setting: of the ensemble.
        generator: draws everything.

    Attributes:
        steps: made so far.
        copies: by column, a number: the same for those that were equal in every row so far.
    """

    def __init__(
        self,
        keep: int,
        batch: int,
        clip: float | None,
        importance: str,
        setting: EnsembleSetting,
        generator: torch.Generator,
    ) -> None:
        self._keep, self._batch, self._clip = keep, batch, clip
        self._setting, self._generator = setting, generator
        self._scores = InputScores(importance)
        self._ensemble: Ensemble | None = None
        self._scaling: Scaling | None = None
        self._weight = 0.0
        self.copies: Groups = np.empty(0, dtype=np.int64)
        self.steps = 0

    def learn_(self, table: Any, targets: Targets, weights: Floats) -> Floats:
        """Go once through one part of the table.

        Args:
            table: array or CSR of shape (n, d).
            targets: of its rows.
            weights: of its rows, not all zero.

        Returns:
            Scores of all columns so far, shape (d,): √(attribution · strength), each relative to
            its mean over inputs; 0 for columns that never changed.
        """
        self._measure_(table, weights)
        found = alike(table)
        self.copies = joined(self.copies, found) if len(self.copies) else found
        assert self._scaling is not None
        all_columns = self._scaling._replace(constant=np.zeros_like(self._scaling.constant))
        inputs = Inputs(table, all_columns, self._clip)
        ensemble = self._ensemble = self._ensemble or self._started(len(inputs.live), targets)
        shares = torch.from_numpy((weights * unit_of(weights)).astype(np.float32))
        rows = shares.nonzero().squeeze(1)
        stream = batches(rows, self._batch, self._generator)
        shares = bootstrapped(shares, self._setting.members, self._generator)
        for _ in range(max(len(rows) // self._batch, 1)):
            chosen: Tensor = next(stream)
            error = partial(targets.error, rows=chosen)
            rate = self._setting.learning_rate
            ensemble.step_(inputs.batch(chosen), error, shares[:, chosen], rate)
            self._scores.add_(ensemble.importance())
            self.steps += 1
        scores: npt.NDArray[np.float64] = self._scores.mean().exp().double().numpy()
        return np.where(self._scaling.constant, 0.0, scores)

    def _measure_(self, table: Any, weights: Floats) -> None:
        part, weight = scaling(table, weights, self._clip), float(weights.sum())
        self._weight += weight
        if self._scaling is not None:
            part = merged(self._scaling, part, weight / self._weight)
        self._scaling = part

    def _started(self, inputs: int, targets: Targets) -> Ensemble:
        links = max(round(self._setting.density * inputs), min(inputs, self._keep))
        return Ensemble(
            inputs,
            targets.outputs,
            links * self._setting.width,
            self._setting,
            self._generator,
            relative=targets.classes,
        )
