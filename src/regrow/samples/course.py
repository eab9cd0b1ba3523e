"""The course of training over epochs: which one is under way, of which samples, what is learnt."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor

from regrow.engine.checks import check_integer
from regrow.engine.selection import seeded_generator
from regrow.samples.arrivals import Arrivals, Arrived
from regrow.samples.chooser import Chooser, Selection
from regrow.samples.ids import Ids
from regrow.samples.merge import joined, merged
from regrow.samples.ranks import from_first
from regrow.samples.shares import MOST_EPOCHS
from regrow.samples.store import Store

__all__ = ["Course"]

Mask = npt.NDArray[np.bool_]

_TOGETHER = 1 << 13  # places far apart in memory are written to faster, many at a time


class Course:
    """Where training is: the epoch, its samples, and the losses that came in.

    Args:
        ids: of the samples.
        chooser: decides which samples an epoch has.
        store: of scores.

    Attributes:
        epoch: the number of the epoch that is under way or comes next.
        available: bool, by position: the samples that may be chosen.
        selection: the last one that was made.
        from_start: whether an epoch's samples come again though some were learnt.
        done: how many samples this rank has learnt in this epoch.
        planned: how many it has in all; 0 before the epoch begins.
        ever_under_way: whether any epoch has begun.
    """

    def __init__(self, ids: Ids, chooser: Chooser, store: Store) -> None:
        self.ids, self.chooser, self.store = ids, chooser, store
        self.available: Mask = np.ones(len(ids), dtype=np.bool_)
        self.selection: Selection | None = None
        self.ever_under_way = False
        self._order: npt.NDArray[Any] | None = None
        self._table: dict[torch.device, Tensor] = {}
        self.forget_arrivals()
        self.go_to(0)

    def forget_arrivals(self) -> None:
        """Forget losses that have not reached the store."""
        self._arrivals = Arrivals(self.ids)
        self._held: list[Arrived] = []  # by this rank, not yet told to the others
        self._waiting: list[Arrived] = []  # not yet in the store
        self._size = 0  # samples in it

    # ------------------------------------------------------------------ epochs

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next; see ``Samples.set_epoch``."""
        if (epoch := check_integer(epoch, "epoch")) < self.epoch:
            raise ValueError(
                f"epoch={epoch}: epoch {self.epoch} has begun, and scores cannot go back; for "
                "another training make new Samples; after a resume, give the number of the epoch "
                "(with Accelerate: loader.set_epoch(epoch))"
            )
        self._check_epoch(epoch)
        if epoch > self.epoch:
            self.go_to(epoch)
        self._told = True

    def next_epoch(self) -> None:
        """Go on to the next epoch, unless its number is told from outside."""
        if self._told:
            raise ValueError(
                f"epoch {self.epoch} is over, all its batches were learnt: set_epoch"
                f"({self.epoch + 1}) begins the next one"
            )
        self._check_epoch(self.epoch + 1)
        self.go_to(self.epoch + 1)

    def _check_epoch(self, epoch: int) -> None:
        epochs = self.chooser.shares.epochs
        if epochs is not None and epoch >= epochs:
            raise ValueError(f"epoch {epoch}: the run has epochs={epochs}; give Samples more")
        if epoch >= MOST_EPOCHS:
            raise ValueError(f"epoch {epoch}: {MOST_EPOCHS - 1} is the last that can be counted")

    def go_to(self, epoch: int) -> None:
        """Make an epoch the next one."""
        self.epoch = epoch
        self._told = self._under_way = self.from_start = False
        self.planned = self.done = 0

    def begin(self, samples: int, left: int) -> None:
        """Note that an epoch is under way: of so many samples of this rank, so many are left."""
        self._under_way = self.ever_under_way = True
        self.planned = samples
        if not self.from_start:
            self.done = samples - left

    # ------------------------------------------------------------------ samples of an epoch

    def current(self) -> Selection:
        """Return the samples of this epoch; they are chosen when they are first asked for."""
        if self.selection is None or self.selection.epoch != self.epoch:
            self.use(self._choose())
        assert self.selection is not None
        return self.selection

    def use(self, selection: Selection | None) -> None:
        """Make a selection the present one."""
        self.selection = selection
        self._order, self._table = None, {}

    def _choose(self) -> Selection:
        self._order, self._table = None, {}  # memory that is needed now
        self.merge()
        if self.chooser.criterion.scored and self.ever_under_way and not self.store.updates:
            raise ValueError(
                f"{self.chooser.criterion!r} chooses by losses, and an epoch has passed "
                "without any: call samples.update(ids, losses) in every training step"
            )
        if self.selection and self.chooser.shares.selects(self.epoch):
            self.selection = replace(self.selection, weights=None)
        how = self.store, self.available, self.epoch, self.selection
        selection, fields = self.chooser(*how)
        for name, values in fields.items():
            self.store.extra[name] = values.numpy()
        # Hosts may round sums in different ways.
        bits = from_first(np.packbits(selection.mask))
        selection.mask[:] = np.unpackbits(bits, count=len(self.ids))
        return selection

    def order(self) -> npt.NDArray[Any]:
        """Return the positions of this epoch's samples in the order in which they are learnt."""
        mask = self.current().mask
        if self._order is None:
            small = np.int32 if len(mask) < 1 << 31 else np.int64
            order = np.arange(len(mask), dtype=small)[mask]
            seed = self.generator("order").initial_seed() & (2**64 - 1)
            np.random.Generator(np.random.PCG64(seed)).shuffle(order)  # in place, unlike torch's
            self._order = order
        return self._order

    def learnt(self, positions: npt.NDArray[Any]) -> Mask:
        """Return which samples were learnt in this epoch."""
        self.arrive()
        learnt: Mask = self.store.epoch[positions] == self.epoch
        return learnt & (not self.from_start)

    def generator(self, name: str) -> torch.Generator:
        """Make a generator that depends on the seed, the epoch and a name."""
        return seeded_generator(self.chooser.seed, name, self.epoch)

    def weights(self, ids: Any) -> Tensor:
        """Return what losses are multiplied with; see ``Samples.weights``."""
        weights = self.current().weights
        device = ids.device if isinstance(ids, Tensor) else torch.device("cpu")
        if weights is None:
            return torch.ones(len(ids), device=device)
        if device.type != "cpu" and self.ids.are_positions:
            if device not in self._table:
                self._table[device] = torch.from_numpy(weights).to(device)
            return self._table[device][ids]
        return torch.from_numpy(weights[self.ids.positions(ids)]).to(device)

    # ------------------------------------------------------------------ losses

    def update(self, ids: Any, losses: Tensor, correct: Tensor | None) -> None:
        """Take in the losses of a batch; see ``Samples.update``."""
        stamp = self.epoch if self._under_way else -1
        arrived = self._arrivals.take(ids, losses, correct, stamp)
        if self._under_way:
            self.done += losses.shape[0]  # now, for learning rates go by it
        for one in arrived:
            self._take(one)

    def _take(self, arrived: Arrived) -> None:
        if arrived.again and arrived.epoch == self.epoch and self._under_way:
            self.done -= arrived.again
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            self._held.append(arrived)
        else:
            self._keep(arrived)

    def _keep(self, arrived: Arrived) -> None:
        self._waiting.append(arrived)
        self._size += len(arrived.at)
        if self.store.starting or self._size >= _TOGETHER:
            self._settle()

    def _settle(self) -> None:
        """Bring what waits into the store."""
        waiting, self._waiting, self._size = self._waiting, [], 0
        for one, batches in joined(waiting):
            self.store.update(one.at, one.losses, one.epoch, one.correct, batches)

    def arrive(self) -> None:
        """Take in losses that are on their way; those of a GPU are waited for."""
        for arrived in self._arrivals.arrived(wait=True):
            self._take(arrived)
        self._settle()

    def merge(self) -> None:
        """Take in what all ranks have learnt since the last time; each rank has to call it."""
        self.arrive()
        held, self._held = self._held, []
        for arrived in merged(held):
            self._keep(arrived)
        self._settle()
