"""Utterances chosen by their losses: :class:`regrow.samples.Samples` as batches ask for it."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from regrow.engine.ranks import rank_and_ranks
from regrow.samples import Samples
from regrow.speech.conformer import steps_of
from regrow.speech.data import Learnt

__all__ = ["BySamples", "Score"]

Score = Literal["label", "step", "sum"]
"""What divides an utterance's loss before it is compared, labels, steps, or nothing."""


class BySamples:
    """Lets samples decide which utterances an epoch has.

    Args:
        samples: with ids 0 to n - 1, the utterances' places.
        learnt: the utterances.
        score: "label": losses as they are trained on; "step": by step of the encoder; "sum": of the
            whole utterance, which is higher the longer it is, so that a choice by it shifts
            lengths.
        stride: frames of a step.

    Raises:
        ValueError: how many are kept is known only when they are chosen, or there is no such score.
    """

    def __init__(
        self, samples: Samples, learnt: Learnt, score: Score = "label", stride: int = 4
    ) -> None:
        if samples.shares.keep is None:
            raise ValueError(
                "keep=None: the steps of a run are planned, so give a share such as 0.7"
            )
        labels = learnt.label_lengths.double()
        steps = steps_of(learnt.features.lengths, stride).double()
        factors = {"label": torch.ones_like(labels), "step": labels / steps, "sum": labels}
        if score not in factors:
            raise ValueError(f"score={score!r}: must be one of {', '.join(factors)}")
        self.samples, self._factors = samples, factors[score].float()

    def chosen(self, epoch: int) -> Tensor:
        """Return the ids of an epoch's utterances."""
        self.samples.set_epoch(epoch)
        return self.samples.kept.nonzero().squeeze(1)

    def count(self, epoch: int) -> int:
        """Return how many are planned for an epoch; where lengths are shared out, about so many."""
        return max(1, round(self.samples.shares(epoch) * len(self.samples)))

    def weights(self, ids: Tensor) -> Tensor:
        """Return what the losses of utterances are multiplied with."""
        return self.samples.weights(ids)

    def update(self, ids: Tensor, losses: Tensor) -> None:
        """Take in losses by label."""
        self._factors = self._factors.to(losses.device)
        self.samples.update(ids, losses * self._factors[ids])

    def finish(self) -> None:
        """Exchange with the other ranks what came in."""
        if rank_and_ranks()[1] > 1:
            self.samples.state_dict()

    @property
    def losses(self) -> Tensor:
        """The last score of each utterance; NaN: none has come in."""
        scores = self.samples.scores
        return torch.where(scores["seen"] > 0, scores["last"], math.nan)

    @property
    def seen(self) -> Tensor:
        """How many losses of each utterance came in."""
        return self.samples.scores["seen"].long()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the samples."""
        return self.samples.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        self.samples.load_state_dict(state)
