"""Averages gradients and broadcasts choices among processes that train replicas of one model."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from regrow.engine.wrappers import peel

__all__ = ["ALONE", "Ranks", "around", "rank_and_ranks", "replicas"]

logger = logging.getLogger("regrow")


@dataclass(frozen=True)
class Ranks:
    """The processes that hold replicas of one model.

    Args:
        group: their process group; None: there is only this one.
    """

    group: Any = None

    def mean(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the mean of each tensor over the ranks, as DDP takes it of gradients.

        Example:
            >>> ALONE.mean([torch.ones(2)])
            (tensor([1., 1.]),)
        """
        if self.group is None:
            return tuple(tensor.detach() for tensor in tensors)
        sums = [tensor.detach().clone() for tensor in tensors]
        for tensor in sums:
            dist.all_reduce(tensor, group=self.group)
        return tuple(tensor / dist.get_world_size(self.group) for tensor in sums)

    def any(self, here: bool) -> bool:
        """Tell whether something is so on any of the ranks.

        Example:
            >>> ALONE.any(True), ALONE.any(False)
            (True, False)
        """
        if self.group is None:
            return here
        said = [False] * dist.get_world_size(self.group)
        dist.all_gather_object(said, here, group=self.group)
        return any(said)

    def as_first(self, units: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the first rank's bool tensors, whatever this one has chosen.

        Example:
            >>> ALONE.as_first({"w": torch.tensor([True])})
            {'w': tensor([True])}
        """
        if self.group is None:
            return dict(units)
        # Not every backend can send bools.
        as_bytes = {name: chosen.to(torch.uint8) for name, chosen in units.items()}
        for tensor in as_bytes.values():
            dist.broadcast(tensor, dist.get_global_rank(self.group, 0), group=self.group)
        return {name: tensor.bool() for name, tensor in as_bytes.items()}


ALONE = Ranks()


def rank_and_ranks() -> tuple[int, int]:
    """Return which process this is, and how many train together.

    Example:
        >>> rank_and_ranks()
        (0, 1)
    """
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def replicas(model: nn.Module, weights: Mapping[str, Tensor]) -> Ranks:
    """Find the ranks that train this model together.

    They are those of the DistributedDataParallel around it; without one, all ranks, if they hold
    the same weights: a trainer may have handed over the module inside, or wrap it later.

    Args:
        model: as the user gave it.
        weights: some of its weights, by name.

    Example:
        >>> replicas(nn.Linear(2, 2), {}) == ALONE
        True
    """
    if not (dist.is_available() and dist.is_initialized()):
        return ALONE
    wrappers = [m for m in peel(model) if isinstance(m, nn.parallel.DistributedDataParallel)]
    if wrappers:
        return Ranks(wrappers[0].process_group)
    if dist.get_world_size() == 1:
        return ALONE
    # Whoever wraps the module later, or handed over the module inside, still trains replicas: equal
    # weights are the sign of it.
    prints: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(prints, _fingerprint(weights))
    if all(other == prints[0] for other in prints):
        return Ranks(dist.group.WORLD)
    logger.warning(
        "the ranks hold different weights, so each chooses its first topology by itself: if they "
        "are to train one model, wrap it in DistributedDataParallel first"
    )
    return ALONE


_DDP = nn.parallel.DistributedDataParallel
# Those met so far: to look for one goes through all that Python holds.
_WRAPPERS: weakref.WeakSet[_DDP] = weakref.WeakSet()
_told: list[bool] = []


def around(weights: Sequence[Tensor]) -> list[Ranks]:
    """Find the ranks that train each weight, by the DistributedDataParallel that holds it now.

    For models that were wrapped after they were made sparse, of which nothing else tells.

    Example:
        >>> around([torch.zeros(1)]) == [ALONE]
        True
    """
    if rank_and_ranks()[1] == 1:
        return [ALONE] * len(weights)
    if not all(map(_wrapper_of, weights)):
        _WRAPPERS.update(one for one in gc.get_objects() if issubclass(type(one), _DDP))
    found = [_wrapper_of(weight) for weight in weights]
    if not all(found) and not _told:
        _told.append(True)
        logger.warning(
            "%d ranks run, and the model is in no DistributedDataParallel: what stored layers grow "
            "by is gathered from this rank's passes alone. If the ranks train one model, wrap it, "
            "or use execution='masked', whose gradients are read as they are in the parameters",
            dist.get_world_size(),
        )
    return [ALONE if one is None else Ranks(one.process_group) for one in found]


def _wrapper_of(weight: Tensor) -> _DDP | None:
    holding = (one for one in _WRAPPERS if any(p is weight for p in one.parameters()))
    return next(holding, None)


def _fingerprint(weights: Mapping[str, Tensor]) -> list[tuple[str, tuple[int, ...], float]]:
    return [
        (name, tuple(weight.shape), float(weight.detach().double().norm()))
        for name, weight in weights.items()
    ]
