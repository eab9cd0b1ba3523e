"""Batches of utterances of about equal length and equal computation."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, distributed

from regrow.engine.ranks import rank_and_ranks
from regrow.engine.selection import seeded_generator
from regrow.speech.conformer import STRIDE, steps_of
from regrow.speech.ctc import needed_steps
from regrow.speech.features import HOP, Features, sent
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
    """Batches of utterances, for :class:`regrow.training.trainer.Trainer`.

    An epoch of k utterances has ⌈k / batch⌉ batches of about equally many frames. Everything drawn
    follows from seed and epoch.

    Args:
        features: of all utterances.
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
        others: features of the same utterances at other speeds: in every epoch one is drawn for
            each, the first among them.
        stride: frames of a step of the recogniser.

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
        others: Sequence[Features] = (),
        stride: int = STRIDE,
    ) -> None:
        self.features, self.label_lengths = features, label_lengths
        self.batch, self.seed, self.chosen, self.pruning = batch, seed, chosen, pruning
        self.labelled, self.device = labelled, torch.device(device)
        self.rank, self.ranks = rank, ranks
        self.needed = needed_steps(labels, label_lengths)
        self.told: Told | None = None
        # All that is gathered lies where batches are wanted: a GPU is never waited for.
        self.labels = labels.to(self.device)
        self._frames = Features.joined([features, *others]).to(self.device)
        self._rows = _rows([features, *others], self.needed, stride)

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
        rows = self._drawn_rows(number)
        draw = seeded_generator(self.seed, "utterances", number)
        wanted = self._number(self.chosen.count(number))
        batches = grouped(ids, self._frames.lengths[rows[ids]], wanted, draw, self.ranks)
        key = int(torch.randint(2**62, (), generator=draw))
        hours = self._hours(ids, rows[ids])
        whole = self.features.seconds / 3600
        for batch in batches:
            own = batch[self.rank :: self.ranks]
            yield self._made(own, rows[own], key)
            self.told = Told(ids, hours, whole, time.perf_counter() - began)
        self.chosen.finish()

    def _drawn_rows(self, number: int) -> Tensor:
        """Draw the speed of each utterance in an epoch: where its frames are."""
        speeds, n = self._rows.shape
        draw = seeded_generator(self.seed, "speeds", number)
        which = torch.randint(speeds, (n,), generator=draw)
        return self._rows[which, torch.arange(n)]

    def _made(self, ids: Tensor, rows: Tensor, key: int) -> Batch:
        frames, lengths = self._frames.padded(rows, self.device)
        numbers, label_lengths = sent(ids, self.device), self.label_lengths[ids]
        labels = self.labels[numbers, : int(label_lengths.max())]
        label_lengths = sent(label_lengths, self.device)
        if self.pruning is not None:
            needed = self.needed[ids]
            most = int(self.pruning.frames_kept(self._frames.lengths[rows], needed).max())
            needed = sent(needed, self.device)
            frames, lengths = self.pruning(frames, lengths, needed, numbers, key, most)
        inputs = (frames, lengths, labels) if self.labelled else (frames, lengths)
        return Batch(inputs, (labels, label_lengths), numbers)

    def _hours(self, ids: Tensor, rows: Tensor) -> float:
        """Return how much audio an epoch of these utterances has, in frames that stay."""
        frames = self._frames.lengths[rows]
        if self.pruning is not None:
            frames = self.pruning.frames_kept(frames, self.needed[ids])
        return float(frames.sum()) * HOP / 3600

    def hours_of(self, seen: Tensor) -> float:
        """Return how much audio it is to see each utterance so often, in hours that stay.

        Args:
            seen: int64, shape (utterances,), how often each is, at speed 1.
        """
        frames = self.features.lengths
        if self.pruning is not None:
            frames = self.pruning.frames_kept(frames, self.needed)
        return float((frames * seen).sum()) * HOP / 3600


def _rows(versions: Sequence[Features], needed: Tensor, stride: int) -> Tensor:
    """Return the places of utterances at each speed among the features of all speeds.

    Where one is too short at a speed to be aligned with its labels, the first takes its place.
    """
    n = len(needed)
    own = torch.arange(n)
    fits = (steps_of(one.lengths, stride) >= needed for one in versions[1:])
    places = (torch.where(fit, own + n * v, own) for v, fit in enumerate(fits, 1))
    return torch.stack([own, *places])
