"""How much is kept in each epoch, and how many steps the epochs have."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from regrow.engine.checks import check_integer, check_number
from regrow.engine.schedules import in_steps

__all__ = ["MOST_EPOCHS", "Shares", "batches_of", "steps_of"]

MOST_EPOCHS = 1 << 15
"""Epochs that can be counted, whose numbers the store holds as int16."""


@dataclass(frozen=True)
class Shares:
    """The share of samples that each epoch keeps.

    Args:
        keep: the share, in (0, 1], or a schedule of it, a function of progress such as
            ``Linear(1.0, 0.5)``; None: the criterion decides.
        epochs: how many there will be; None: any number, if nothing depends on it.
        warmup: first epochs on full data: a number (int) or a share of the epochs (float).
        anneal: last epochs on full data, likewise.
        every: epochs from one selection to the next; None: one selection lasts.

    Raises:
        TypeError: an argument is of another type.
        ValueError: an argument is out of range, or needs ``epochs``.

    Example:
        >>> shares = Shares(0.5, epochs=8, warmup=1, anneal=0.125, every=2)
        >>> [shares(epoch) for epoch in range(8)]
        [1.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 1.0]
        >>> [shares.selects(epoch) for epoch in range(1, 7)]
        [True, False, True, False, True, False]
    """

    keep: float | Callable[[float], float] | None
    epochs: int | None = None
    warmup: int | float = 0
    anneal: int | float = 0
    every: int | None = 1

    def __post_init__(self) -> None:
        if self.epochs is not None and check_integer(self.epochs, "epochs", 1) > MOST_EPOCHS:
            raise ValueError(f"epochs={self.epochs}: must be at most {MOST_EPOCHS}")
        if self.keep is not None and not callable(self.keep):
            check_number(self.keep, "keep", "0.7, or a schedule")
        if self.every is not None:
            check_integer(self.every, "every", 1)
        needs = {
            "keep": callable(self.keep),
            "anneal": self.anneal != 0,
            "warmup": isinstance(self.warmup, float) and self.warmup != 0,
        }
        if self.epochs is None:
            for name, needed in needs.items():
                if needed:
                    value = getattr(self, name)
                    raise ValueError(f"{name}={value!r}: needs epochs=, the length of the run")
            _in_epochs(self.warmup, 1 << 40, "warmup")
        elif self.first > self.last:
            raise ValueError(
                f"warmup={self.warmup} and anneal={self.anneal}: together more than "
                f"epochs={self.epochs}"
            )
        for epoch in range(self.epochs or 1):
            if self.keep is None:
                continue
            try:
                share = self(epoch)
            except (TypeError, ValueError) as error:
                raise type(error)(
                    f"keep={self.keep!r}: it gives no number in epoch {epoch}: {error}"
                ) from error
            if not 0 < share <= 1:
                raise ValueError(f"keep={share} in epoch {epoch}: must be in (0, 1]")

    @property
    def first(self) -> int:
        """The first epoch in which samples are chosen."""
        return _in_epochs(self.warmup, self.epochs or 1 << 40, "warmup")

    @property
    def last(self) -> float:
        """The epoch before which choosing ends."""
        if self.epochs is None:
            return math.inf
        return self.epochs - _in_epochs(self.anneal, self.epochs, "anneal")

    @property
    def even(self) -> bool:
        """Whether all epochs keep the same share."""
        changes = self.keep is None or callable(self.keep) or self.warmup or self.anneal
        return self.keep == 1 or not changes

    def full(self, epoch: int) -> bool:
        """Whether an epoch is on all data, by warm-up or at the end."""
        return not self.first <= epoch < self.last

    def selects(self, epoch: int) -> bool:
        """Whether samples are chosen anew in this epoch, rather than kept from the last one."""
        return (epoch - self.first) % (self.every or 1 << 62) == 0

    def progress(self, epoch: int) -> float:
        """Return 0 in the first epoch with a choice, 1 in the last; 0 if epochs are not known."""
        if self.epochs is None:
            return 0.0
        span = max(int(self.last) - self.first - 1, 1)
        return min(max(epoch - self.first, 0) / span, 1.0)

    def __call__(self, epoch: int) -> float:
        """Return the share that an epoch keeps; 1 if the criterion decides."""
        if self.full(epoch) or self.keep is None:
            return 1.0
        # What was kept stays until the next selection.
        at = self.first + (epoch - self.first) // (self.every or 1 << 62) * (self.every or 0)
        return float(self.keep(self.progress(at)) if callable(self.keep) else self.keep)

    def sums(self) -> list[float]:
        """Return the sum of the shares before each epoch, and of all: epochs + 1 numbers."""
        assert self.epochs is not None
        return list(itertools.accumulate(map(self, range(self.epochs)), initial=0.0))


def _in_epochs(when: int | float, epochs: int, argument: str) -> int:
    """Return how many epochs a number (int) or a share of them (float) is."""
    try:
        return in_steps(when, epochs, argument)
    except (TypeError, ValueError) as error:  # which speaks of steps
        raise type(error)(
            f"{argument}={when!r}: must be a number of epochs (int), at least 0 and no more than "
            "the run has, or a share of the run (float), 0.0 to 1.0"
        ) from None


def batches_of(samples: int, size: int, ranks: int = 1, *, drop_last: bool = False) -> int:
    """Return how many batches each rank has in an epoch, equally many on all ranks.

    Args:
        samples: in the epoch, of all ranks.
        size: of a batch, of one rank.
        ranks: how many processes train one model.
        drop_last: leave out a last batch that is smaller.

    Example:
        >>> batches_of(10, 4), batches_of(10, 4, ranks=2), batches_of(10, 4, drop_last=True)
        (3, 2, 2)
    """
    whole, rest = divmod(samples, size * ranks)
    return whole + (not drop_last and rest >= ranks)


def steps_of(
    counts: Iterable[int | None], size: int, accumulate: int, *, drop_last: bool, ranks: int
) -> int:
    """Return the optimizer steps of epochs.

    Args:
        counts: samples of each epoch, of all ranks; None: not known before they are chosen.
        size: of a batch, of one rank.
        accumulate: batches a step; an epoch's last step may have fewer.
        drop_last: leave out a last batch that is smaller.
        ranks: how many processes train one model.

    Raises:
        ValueError: a count is not known.

    Example:
        >>> steps_of([10, 5], 2, 2, drop_last=False, ranks=1)
        5
    """
    steps = 0
    for count in counts:
        if count is None:
            raise ValueError(
                "steps: how many samples an epoch has is known only when they are chosen (keep="
                "None or share_of='length'); let the learning rate follow samples.progress"
            )
        steps += -(-batches_of(count, size, ranks, drop_last=drop_last) // accumulate)
    return steps
