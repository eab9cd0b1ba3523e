"""Batches of utterances of about equal length and equal computation."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, distributed

from regrow.engine.ranks import rank_and_ranks
from regrow.engine.selection import seeded_generator
from regrow.speech.conformer import steps_of
from regrow.speech.ctc import needed_steps
from regrow.speech.features import HOP, Features
from regrow.speech.granularity import TimePruning
from regrow.training.batch import Batch, Memory

__all__ = ["All", "Chosen", "Told", "UtteranceBatches", "grouped"]

_JITTER = 0.1  # lengths are sorted as if they were up to so much longer


class Chosen(Memory, Protocol):
    """Decides which utterances an epoch has, and remembers their losses."""

    @property
    def losses(self) -> Tensor:
        """The last loss of each utterance, float32, shape (n,); NaN: none has come in."""

    @property
    def seen(self) -> Tensor:
        """How many losses of each utterance came in, int64, shape (n,)."""

    def chosen(self, epoch: int) -> Tensor:
        """Return the ids of an epoch's utterances, int64; the same on all ranks."""

    def count(self, epoch: int) -> int:
        """Return how many will be chosen in an epoch, known before the run."""

    def finish(self) -> None:
        """Share with the other ranks what came in; is called on all of them after an epoch."""


class All:
    """Trains on all utterances in every epoch, and remembers their last losses.

    Args:
        n: how many there are.
    """

    def __init__(self, n: int) -> None:
        self.losses = torch.full((n,), math.nan)
        self.seen = torch.zeros(n, dtype=torch.int64)
        self._new = torch.zeros(2, n, dtype=torch.float64)  # sums of this epoch's losses; how many

    def chosen(self, epoch: int) -> Tensor:
        """Return all ids."""
        return torch.arange(len(self.losses))

    def count(self, epoch: int) -> int:
        """Return how many there are."""
        return len(self.losses)

    def weights(self, ids: Tensor) -> None:
        """Return None: all count alike."""

    def update(self, ids: Tensor, losses: Tensor) -> None:
        """Remember losses, where they are: a GPU is not waited for."""
        self._new = self._new.to(losses.device)
        values = losses.detach().double()
        both = torch.stack([values, torch.ones_like(values)])
        self._new.index_add_(1, ids.to(losses.device), both)

    def finish(self) -> None:
        """Share the epoch's losses with all ranks."""
        if rank_and_ranks()[1] > 1:
            distributed.all_reduce(self._new)
        total, count = self._new.cpu()
        self.losses = torch.where(count > 0, total / count, self.losses.double()).float()
        self.seen += count.long()
        self._new.zero_()

    def state_dict(self) -> dict[str, Any]:
        """Return the losses."""
        return {"losses": self.losses, "seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the losses again."""
        self.losses, self.seen = state["losses"].cpu(), state["seen"].cpu()


def grouped(
    ids: Tensor, lengths: Tensor, number: int, generator: torch.Generator, ranks: int = 1
) -> list[Tensor]:
    """Share utterances out over a number of batches, each of about as many frames.

    Utterances of about equal length come together, so that little is padding; which of them exactly
    is drawn, and so is the order of the batches.

    Args:
        ids: int64, which utterances.
        lengths: int64, of each of them.
        number: of batches; fewer where there are not ``ranks`` utterances for each.
        generator: of random numbers.
        ranks: every batch is a multiple of it; up to ranks - 1 utterances are left out.

    Returns:
        The ids of each batch.

    Raises:
        ValueError: there are fewer utterances than ranks.

    Example:
        >>> lengths = torch.tensor([1, 1, 1, 1, 4])
        >>> batches = grouped(torch.arange(5), lengths, 2, torch.Generator().manual_seed(0))
        >>> sorted(sorted(batch.tolist()) for batch in batches)
        [[0, 1, 2, 3], [4]]
    """
    units = len(ids) // ranks
    if not units:
        raise ValueError(f"{len(ids)} utterances for {ranks} ranks: train on fewer ranks")
    number = min(number, units)
    jitter = 1 + _JITTER * torch.rand(len(ids), generator=generator)
    order = (lengths * jitter).argsort(stable=True)
    if spare := len(ids) - units * ranks:
        left = torch.randperm(len(ids), generator=generator)[:spare]
        order = order[~torch.isin(order, left)]
    frames = lengths[order].reshape(units, ranks).sum(1).cumsum(0).double()
    share = torch.arange(1, number) * (frames[-1] / number)
    cuts = torch.searchsorted(frames, share).tolist()
    edges = [0]
    for place, cut in enumerate(cuts, 1):  # no batch may be empty, whatever the lengths
        edges.append(min(max(cut + 1, edges[-1] + 1), units - number + place))
    edges.append(units)
    shuffled = torch.randperm(number, generator=generator).tolist()
    return [ids[order[edges[i] * ranks : edges[i + 1] * ranks]] for i in shuffled]


@dataclass(frozen=True)
class Told:
    """What an epoch had.

    Args:
        ids: of the utterances that were kept, over all ranks.
        hours: of audio that went through the network, over all ranks.
        whole_hours: of all utterances there are.
        seconds: that it took, up to now.
    """

    ids: Tensor
    hours: float
    whole_hours: float
    seconds: float


class UtteranceBatches:
    """Batches of utterances, for :class:`regrow.training.Trainer`.

    An epoch of k utterances has ⌈k / batch⌉ batches of about equally many frames. Everything drawn
    follows from seed and epoch.

    Args:
        features: of all utterances; gathered where they lie.
        labels: int64, shape (utterances, longest), filled up with 0.
        label_lengths: int64, shape (utterances,).
        batch: utterances in a batch, on average, over all ranks.
        seed: of all that is drawn.
        chosen: which utterances an epoch has.
        pruning: removes parts of utterances; None: nothing does.
        labelled: whether inputs hold the labels, too, for an attention decoder.
        device: where batches are wanted.
        rank: which process this is.
        ranks: how many train together.

    Attributes:
        told: what the last epoch had.
    """

    def __init__(
        self,
        features: Features,
        labels: Tensor,
        label_lengths: Tensor,
        *,
        batch: int,
        seed: int,
        chosen: Chosen,
        pruning: TimePruning | None = None,
        labelled: bool = False,
        device: torch.device | str = "cpu",
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self.features, self.labels, self.label_lengths = features, labels, label_lengths
        self.batch, self.seed, self.chosen, self.pruning = batch, seed, chosen, pruning
        self.labelled, self.device = labelled, torch.device(device)
        self.rank, self.ranks = rank, ranks
        self.needed = needed_steps(labels, label_lengths)
        self.told: Told | None = None

    def __len__(self) -> int:
        return self._number(len(self.features))

    def total(self, epochs: int) -> int:
        """Return how many batches so many epochs have."""
        return sum(self._number(self.chosen.count(epoch)) for epoch in range(epochs))

    def _number(self, utterances: int) -> int:
        most = max(1, utterances // self.ranks)
        return min(most, max(1, math.ceil(utterances / self.batch)))

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield this rank's batches of an epoch, on the device."""
        began = time.perf_counter()
        ids = self.chosen.chosen(number)
        draw = seeded_generator(self.seed, "utterances", number)
        wanted = self._number(self.chosen.count(number))
        batches = grouped(ids, self.features.lengths[ids], wanted, draw, self.ranks)
        key = int(torch.randint(2**62, (), generator=draw))
        hours = self._hours(ids)
        whole = self.features.seconds / 3600
        for batch in batches:
            yield self._made(batch[self.rank :: self.ranks], key)
            self.told = Told(ids, hours, whole, time.perf_counter() - began)
        self.chosen.finish()

    def _made(self, ids: Tensor, key: int) -> Batch:
        frames, lengths = self.features.padded(ids, self.device)
        label_lengths = self.label_lengths[ids]
        labels = self.labels[ids, : int(label_lengths.max())].to(self.device)
        label_lengths = label_lengths.to(self.device)
        if self.pruning is not None:
            needed, numbers = self.needed[ids].to(self.device), ids.to(self.device)
            frames, lengths = self.pruning(frames, lengths, needed, numbers, key)
        inputs = (frames, lengths, labels) if self.labelled else (frames, lengths)
        return Batch(inputs, (labels, label_lengths), ids)

    def _hours(self, ids: Tensor) -> float:
        """Return how much audio an epoch of these utterances has, in steps that stay."""
        frames = self.features.lengths[ids]
        if self.pruning is None:
            return float(frames.sum()) * HOP / 3600
        kept = self.pruning.steps_kept(steps_of(frames, self.pruning.stride), self.needed[ids])
        return float(torch.minimum(kept * self.pruning.stride, frames).sum()) * HOP / 3600
