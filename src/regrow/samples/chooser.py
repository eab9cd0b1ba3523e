"""The choice of an epoch: full data, the last choice once more, or a new one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from regrow.engine.selection import seeded_generator
from regrow.samples.choose import choose, up_to_length
from regrow.samples.known import Choice, Criterion, Known
from regrow.samples.shares import Shares
from regrow.samples.store import Store

__all__ = ["Chooser", "Selection"]

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Selection:
    """The samples of an epoch.

    Args:
        epoch: its number.
        mask: bool, shape (n,): True = kept.
        weights: float32, shape (n,), of losses; None: 1.
        round: how many choices were made up to here.
        chosen: whether a criterion chose them; else they are all.
    """

    epoch: int
    mask: Mask
    weights: npt.NDArray[np.float32] | None = None
    round: int = 0
    chosen: bool = False


@dataclass(frozen=True)
class Chooser:
    """Decides which samples an epoch has.

    Args:
        criterion: chooses.
        shares: how much, and when.
        strata: labels, by name.
        lengths: of the samples.
        share_of: what is shared out: the number of samples, or their total length.
        seed: of random numbers.
    """

    criterion: Criterion
    shares: Shares
    strata: Mapping[str, Tensor]
    lengths: npt.NDArray[np.float64] | None
    share_of: Literal["samples", "length"]
    seed: int

    def with_seed(self, seed: int) -> Chooser:
        """Return the same with another seed."""
        return replace(self, seed=seed)

    def count(self, epoch: int, available: int) -> int | None:
        """Return how many samples an epoch keeps; None if that is known only when it is chosen.

        Raises:
            ValueError: the share is of no sample at all.
        """
        if self.shares.full(epoch):
            return available
        if self.shares.keep is None or self.share_of == "length":
            return None
        if not (k := round(self.shares(epoch) * available)):
            raise ValueError(
                f"keep={self.shares(epoch):g} of {available} samples keeps none: keep more"
            )
        return k

    def __call__(
        self, store: Store, available: Mask, epoch: int, last: Selection | None
    ) -> tuple[Selection, Mapping[str, Tensor]]:
        """Return the samples of an epoch, and new values of the criterion's fields.

        Args:
            store: what is known.
            available: bool, shape (n,): the samples that may be kept.
            epoch: its number.
            last: the selection before.
        """
        done = last.round if last else 0
        if self.shares.full(epoch):
            return Selection(epoch, available.copy(), round=done), {}
        if last is not None and last.chosen and not self.shares.selects(epoch):
            return Selection(epoch, last.mask & available, last.weights, done, chosen=True), {}
        choice = self._choose(store, available, epoch, done)
        weights = None if choice.weights is None else choice.weights.numpy()
        return Selection(epoch, choice.mask.numpy(), weights, done + 1, True), choice.fields

    def _choose(self, store: Store, available: Mask, epoch: int, done: int) -> Choice:
        def chosen(k: int | None) -> Choice:
            return choose(self.criterion, self._known(store, available, epoch, done), k)

        k = self.count(epoch, m := int(available.sum()))
        if k is None and self.shares.keep is not None and self.lengths is not None:
            own = self.lengths if available.all() else np.where(available, self.lengths, 0)
            lengths = torch.from_numpy(own)
            return up_to_length(chosen, lengths, self.shares(epoch) * float(lengths.sum()), m)
        return chosen(k)

    def _known(self, store: Store, available: Mask, epoch: int, done: int) -> Known:
        scores = store.tensors()
        return Known(
            allowed=torch.from_numpy(available),
            loss=scores["average"],
            last=scores["last"],
            seen=scores["seen"],
            start=store.start,
            round=done,
            progress=self.shares.progress(epoch),
            generator=seeded_generator(self.seed, "samples", epoch),
            kept={name: scores[name] for name in store.extra},
            strata=self.strata,
        )
