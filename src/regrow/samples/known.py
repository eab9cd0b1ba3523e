"""What a criterion is told of the samples, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

__all__ = ["Choice", "Criterion", "Known"]


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is known of all n samples when some are to be chosen. Tensors are on the CPU.

    Args:
        allowed: bool, shape (n,): the samples that may be chosen. All of them have been seen, if
            the criterion reads losses.
        loss: float32, shape (n,): the running average of each sample's losses; 0 if never seen.
        last: float32, shape (n,): its last loss; 0 if never seen.
        seen: int16, shape (n,): how many losses of it have come in.
        start: the mean loss of the first three updates, that of the untrained model.
        round: how many selections were made before this one.
        progress: of the epochs in which samples are chosen: 0 in the first, 1 in the last.
        generator: of random numbers: a function of seed and epoch.
        kept: what fields of its own the criterion has kept, by name; see :class:`Criterion`.
        strata: integer labels, shape (n,), by name: classes, bins of length.
        at: int64, shape (n,): the positions of these samples among all, where they are some of
            them, as inside a stratum; None: they are all. A criterion that has values of its own a
            sample looks them up here.
    """

    allowed: Tensor
    loss: Tensor
    last: Tensor
    seen: Tensor
    start: float
    round: int
    progress: float
    generator: torch.Generator
    kept: Mapping[str, Tensor] = field(default_factory=dict)
    strata: Mapping[str, Tensor] = field(default_factory=dict)
    at: Tensor | None = None

    def __len__(self) -> int:
        return len(self.allowed)

    def some(self, at: Tensor) -> Known:
        """Return what is known of some of the samples.

        Args:
            at: int64: their positions among these, ascending, so that ties fall as among all.
        """

        def here(values: Tensor) -> Tensor:
            return values.index_select(0, at)

        return replace(
            self,
            allowed=here(self.allowed),
            loss=here(self.loss),
            last=here(self.last),
            seen=here(self.seen),
            kept={name: here(values) for name, values in self.kept.items()},
            strata={name: here(labels) for name, labels in self.strata.items()},
            at=at if self.at is None else here(self.at),
        )


@dataclass(frozen=True)
class Choice:
    """The samples that are chosen for an epoch.

    Args:
        mask: bool, shape (n,): True = kept.
        weights: float32, shape (n,): what the losses of the kept are multiplied with; None: 1.
        fields: new values of the criterion's own fields, by name.
    """

    mask: Tensor
    weights: Tensor | None = None
    fields: Mapping[str, Tensor] = field(default_factory=dict)


class Criterion:
    """Chooses samples. A subclass is a frozen dataclass with one pure function, ``__call__``.

    Attributes:
        scored: whether it reads losses; samples that were never seen are then taken first.
        fields: float32 values a sample that it keeps from one choice to the next, by name; 0 at
            first. ``forgotten`` and ``learnt`` are kept for it by the store.
        curriculum: whether it changes with the progress of the run, which must then be known.
        sizes_itself: whether it may decide itself how many it keeps (``keep=None``).

    Example:
        >>> class First(Criterion):
        ...     scored = False
        ...
        ...     def __call__(self, known: Known, k: int | None) -> Choice:
        ...         return Choice(torch.arange(len(known)) < k)
        >>> import regrow.samples
        >>> regrow.samples.Samples(4, First(), keep=0.5).kept.tolist()
        [True, True, False, False]
    """

    scored: ClassVar[bool] = True
    fields: ClassVar[tuple[str, ...]] = ()
    curriculum: ClassVar[bool] = False
    sizes_itself: ClassVar[bool] = False

    def __call__(self, known: Known, k: int | None) -> Choice:
        """Choose samples.

        Args:
            known: of the samples.
            k: how many: from 1 to the number allowed. None: the criterion decides.
        """
        raise NotImplementedError

    def check(self, n: int, strata: Mapping[str, Tensor]) -> None:
        """Refuse samples that the criterion cannot choose among.

        Args:
            n: how many samples there are.
            strata: their labels, by name.

        Raises:
            ValueError: something that it needs is missing or does not fit.
        """
