"""Trains an ensemble while its least important inputs are eliminated, round by round."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from regrow.engine.selection import top_k
from regrow.features.ensemble import Ensemble, EnsembleSetting
from regrow.features.inputs import Floats, Inputs
from regrow.features.targets import Targets

__all__ = [
    "Elimination",
    "InputScores",
    "batches",
    "bootstrapped",
    "held_out_loss",
    "live_counts",
]

Report = Callable[[dict[str, Any]], None]

_ROUNDS_FALL = (0.2, 0.85)  # the first and the last, as shares of the steps
_SCORED_EVERY = 5  # steps, once K inputs are live
_MEASURED_EVERY = 10
_EVALUATED = 1024  # rows at once
# The weights of log attribution and log strength.
_MIXTURES = {"attribution": (1.0, 0.0), "strength": (0.0, 1.0), "mixed": (0.5, 0.5)}


def live_counts(inputs: int, keep: int, rounds: int) -> list[int]:
    """Return how many inputs are live after each round: d·(K/d)^(r/R), a geometric fall to K.

    Example:
        >>> live_counts(1000, 10, 4)
        [316, 100, 32, 10]
    """
    return [round(inputs * (keep / inputs) ** (r / rounds)) for r in range(1, rounds + 1)]


def batches(rows: Tensor, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield batches of rows for ever, each row once before any comes again.

    A rest that does not fill a batch is left out, another one each time.

    Example:
        >>> next(batches(torch.tensor([3, 5]), 2, torch.Generator())).sort().values.tolist()
        [3, 5]
    """
    size = min(size, len(rows))
    while True:
        order = rows[torch.randperm(len(rows), generator=generator)]
        yield from order[: len(order) // size * size].split(size)


def bootstrapped(weights: Tensor, members: int, generator: torch.Generator) -> Tensor:
    """Draw weights of the rows for each network, shape (e, n): a balanced Bayesian bootstrap.

    Networks see the same batches with weights of their own, Exp(1) times the rows' weights, divided
    by their mean over networks: all networks together weigh rows as they were given.

    Args:
        weights: of the rows, shape (n,).
        members: networks, e.
        generator: draws them.

    Source: Rubin 1981 (The Annals of Statistics 9); balanced as in Davison, Hinkley & Schechtman
    1986 (Biometrika 73), for less to depend on the draw.

    Example:
        >>> drawn = bootstrapped(torch.tensor([1.0, 2.0]), 10, torch.Generator().manual_seed(0))
        >>> drawn.std(0).min() > 0.5, [round(float(mean), 4) for mean in drawn.mean(0)]
        (tensor(True), [1.0, 2.0])
    """
    drawn = torch.empty(members, len(weights), device="cpu").exponential_(generator=generator)
    return drawn.div_(drawn.mean(0)).mul_(weights)


class InputScores:
    """The scores of live inputs, averaged over the steps since inputs last left.

    score_j = α · log mean a_j + β · log mean s_j, means over networks and steps; a is attribution,
    s strength, each relative to its mean over inputs.

    Args:
        importance: which α and β: (1, 0), (0, 1), or a half each.

    Example:
        >>> scores = InputScores("strength")
        >>> scores.add_((torch.ones(2, 3), torch.ones(2, 3)))
        >>> scores.mean().tolist()
        [0.0, 0.0, 0.0]
    """

    def __init__(self, importance: str) -> None:
        self._mixture = _MIXTURES[importance]
        self._sums: list[Tensor] = []
        self._count = 0

    def add_(self, importance: tuple[Tensor, Tensor]) -> None:
        """Take in the attribution and the strength of one step, each of shape (e, d)."""
        means = [score.mean(0) for score in importance]
        sums = self._sums or [torch.zeros(())] * 2
        self._sums = [a + b for a, b in zip(sums, means, strict=True)]
        self._count += 1

    def __bool__(self) -> bool:
        return self._count > 0

    def mean(self) -> Tensor:
        """Return the scores so far, shape (d,)."""
        logs = [(score / self._count).clamp_(min=1e-9).log_() for score in self._sums]
        return sum((w * s for w, s in zip(self._mixture, logs, strict=True)), start=torch.zeros(()))


class Elimination:
    """Train an ensemble, eliminate inputs until K are live, and rank all by when they left.

    Rounds fall at equal distances between 20 % and 85 % of the run. In each, inputs are scored by
    the step just made, and those of the lowest scores leave all networks: their columns are
    removed, and so are their weights. Networks that are sparse then drop their smallest links and
    regrow them at random among the inputs that are left.

    Args:
        inputs: the table; what leaves is dropped from it.
        targets: of all rows of the table.
        weights: of the rows, shape (n,); rows of weight zero are not learned from.
        held_out: rows to measure the loss on after each round, not learned from; may be empty.
        keep: K, at most the number of live inputs.
        steps: of the optimizer.
        rounds: how often inputs leave.
        batch: rows in a step.
        importance: "attribution", "strength" or "mixed".
        setting: of the ensemble.
        generator: draws everything.
        report: called with the record of each round.
        patience: once K inputs are live, the run stops after so many measurements of the held-out
            loss, ten steps apart, without a fall; None: it does not stop.
    """

    def __init__(
        self,
        inputs: Inputs,
        targets: Targets,
        weights: Tensor,
        held_out: Tensor,
        *,
        keep: int,
        steps: int,
        rounds: int,
        batch: int,
        importance: str,
        setting: EnsembleSetting,
        generator: torch.Generator,
        report: Report,
        patience: int | None = None,
    ) -> None:
        d, e = len(inputs.live), setting.members
        links = max(round(setting.density * d), min(d, keep)) * setting.width
        self.ensemble = Ensemble(
            d, targets.outputs, links, setting, generator, relative=targets.classes
        )
        self._inputs, self._targets, self._held_out = inputs, targets, held_out
        self._steps, self._importance, self._report = steps, importance, report
        due = sorted({max(round(steps * at), 1) for at in np.linspace(*_ROUNDS_FALL, rounds)})
        self._due = dict(zip(due, live_counts(d, keep, len(due)), strict=True))
        weights = weights.index_fill(0, held_out, 0.0)
        self._weights = bootstrapped(weights, e, generator)
        self._batches = batches(weights.nonzero().squeeze(1), batch, generator)
        self._places = torch.arange(d)
        self._scores = torch.zeros(d, dtype=torch.float64)
        self._outlived = 0
        self._patience = patience
        self._losses: list[float] = []

    def run(self) -> tuple[Floats, int]:
        """Go through all steps.

        Returns:
            Scores of the inputs that were live at first, in their order: the number of rounds an
            input outlived, plus its standing among those that left with it, in (0, 1). And the
            number of steps made.
        """
        scores, last = InputScores(self._importance), max(self._due)
        for step in range(1, self._steps + 1):
            rows = next(self._batches)
            error = partial(self._targets.error, rows=rows)
            rate = self.ensemble.setting.learning_rate * min(1.0, 1.5 - step / self._steps)
            self.ensemble.step_(self._inputs.batch(rows), error, self._weights[:, rows], rate)
            if step in self._due or (step > last and step % _SCORED_EVERY == 0):
                scores.add_(self.ensemble.importance())
            if step in self._due:
                self._leave_(scores.mean(), self._due[step])
                self._report(self._record(step))
                scores = InputScores(self._importance)
            if step > last and self._learned(step):
                break
        if not scores:
            scores.add_(self.ensemble.importance())
        self._note_(self._places, scores.mean())
        return self._scores.numpy(), step

    def _learned(self, step: int) -> bool:
        """Tell whether the held-out loss has not fallen for long enough."""
        if self._patience is None or step % _MEASURED_EVERY:
            return False
        self._losses.append(self._loss()["loss"])
        return len(self._losses) - 1 - int(np.argmin(self._losses)) >= self._patience

    def _loss(self) -> dict[str, float]:
        def predict(x: Tensor) -> Tensor:
            return self.ensemble.outputs(x).mean(0).T

        return held_out_loss(predict, self._inputs, self._targets, self._held_out)

    def _leave_(self, scores: Tensor, keep: int) -> None:
        stays = top_k(scores, keep)
        self._note_(self._places[~stays], scores[~stays])
        self._outlived += 1
        places = stays.nonzero().squeeze(1)
        self._places = self._places[places]
        self._inputs.keep_(places)
        self.ensemble.keep_(places)

    def _note_(self, places: Tensor, scores: Tensor) -> None:
        """Write down how those that leave together stand among each other."""
        order = scores.argsort(stable=True, descending=True)
        standing = torch.arange(len(order), 0, -1, dtype=torch.float64) / (len(order) + 1)
        self._scores[places[order]] = self._outlived + standing

    def _record(self, step: int) -> dict[str, Any]:
        record: dict[str, Any] = {"step": step, "n_features": len(self._places)}
        if len(self._held_out):
            record |= self._loss()
        return record


def held_out_loss(
    predict: Callable[[Tensor], Tensor],
    inputs: Inputs,
    targets: Targets,
    rows: Tensor,
    live: Tensor | None = None,
) -> dict[str, float]:
    """Return the mean loss on some rows ("loss"), and its standard error ("loss_error").

    Args:
        predict: outputs of shape (B, C) for rows of shape (B, d).
        inputs: the table.
        targets: of all its rows.
        rows: which to measure on.
        live: bool, shape (d,): all other inputs are set to their means; None: none are.
    """
    per_part = []
    for part in rows.split(_EVALUATED):
        x = inputs.batch(part)
        per_part.append(targets.loss(predict(x if live is None else x * live), part))
    losses = torch.cat(per_part)
    error = float(losses.std(correction=0)) / len(losses) ** 0.5
    return {"loss": float(losses.mean()), "loss_error": error}
