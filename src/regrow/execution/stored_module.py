"""The base of modules that store active weights only: what an update of the topology asks."""

from __future__ import annotations

import copy
import logging
import weakref
from abc import abstractmethod
from typing import Any

from torch import Tensor, nn

from regrow.execution.kept_passes import KeptPasses

__all__ = ["DENSE_WAY", "StoredModule", "left_behind_", "on_its_own_"]

logger = logging.getLogger("regrow")

DENSE_WAY = (
    "give the dense model the weights and export that: "
    "dense.load_state_dict(regrow.execution.export.dense_state_dict(model))"
)


class StoredModule(nn.Module):
    """A module that stores the active weights of one dense weight.

    Attributes:
        weight: the values of the active units, in ascending order of position.
        captures: whether backward passes keep what dense weight gradients are made of.
        gathers: whether they ever may: CUDA graphs that torch.compile makes then leave the gradient
            of the weight out, for what is replayed keeps nothing.
        loads: how often a loaded state has put the weights elsewhere.
        came_from: the positions that optimizer state belongs to which has not followed since; None
            where it belongs to the present ones.
        stale: of a copy whose original has moved since: how often its weight was then written.
        graphed: whether a CUDA graph has captured it, whose replays read the memory it has now.
    """

    weight: nn.Parameter
    bias: nn.Parameter | None
    stale: int | None = None
    graphed: bool = False
    gathers: bool = True

    def __init__(self) -> None:
        super().__init__()
        self.captures = False
        self.loads = 0
        self.came_from: Tensor | None = None
        self._passes = KeptPasses()

    def __deepcopy__(self, memo: dict[int, Any]) -> StoredModule:
        """Copy the module, and remember the copy: it may become an average of weights."""
        twin = self.__class__.__new__(self.__class__)
        memo[id(self)] = twin
        twin.__setstate__(copy.deepcopy(self.__reduce_ex__(4)[2], memo))  # type: ignore[no-untyped-call]
        twin.stale, twin.graphed = None, False
        _COPIES.setdefault(self, weakref.WeakSet()).add(twin)
        return twin

    def _load_from_state_dict(self, *args: Any) -> None:
        self.stale = None  # values come with their positions
        super()._load_from_state_dict(*args)

    @property
    @abstractmethod
    def positions(self) -> Tensor:
        """Flat positions of the active units on the grid, ascending, int64."""

    @abstractmethod
    def index_of(self, positions: Tensor) -> Any:
        """Return what :meth:`set_topology_` takes as well, made beforehand: nothing then fails.

        Args:
            positions: of the active units, ascending.

        Raises:
            ValueError: positions do not ascend, or do not fit the dense weight.
        """

    @abstractmethod
    def set_topology_(self, positions: Any) -> None:
        """Put the weights elsewhere; the caller writes ``weight``, whose length must fit.

        Args:
            positions: of the active units, ascending; or what :meth:`index_of` returned.

        Raises:
            ValueError: positions do not ascend, or do not fit the dense weight.
        """

    def displaced_(self, before: Tensor) -> None:
        """Note that a loaded state has put the weights elsewhere, without their optimizer state.

        Args:
            before: where they were.
        """
        self.loads += 1
        self.came_from = before if self.came_from is None else self.came_from
        self.weight.grad = None  # it belongs to the weights as they were
        self.release()

    @property
    def captured(self) -> list[tuple[Tensor, Tensor]]:
        """Inputs and output gradients of the passes that the weight's gradient is the sum of."""
        return self._passes.counted

    @abstractmethod
    def gradient_rows(self, first: int, end: int) -> Tensor:
        """Sum rows first..end-1 of the dense gradient over all captured passes."""

    def highest_gradients(self, k: int, taken: Tensor) -> Tensor | None:
        """Return the k positions of the largest gradients among those not taken, ascending.

        None where there is no faster way than row by row.
        """
        return None

    def forget_orders(self) -> None:
        """Give back memory that the next pass fills again: an update is about to need some."""

    def keep(self, x: Tensor, gradient: Tensor) -> None:
        """Keep the input and output gradient of the backward pass that is going on."""
        self._passes.keep(self.weight, x, gradient)

    def release(self) -> None:
        """Forget what was captured."""
        self._passes.release()

    @abstractmethod
    def topology_bytes(self) -> int:
        """Count the bytes that say where the weights are."""

    @abstractmethod
    def computed_by(self) -> str:
        """Name the kernels in use."""


# Living copies of each module, as averages of weights are.
_COPIES: weakref.WeakKeyDictionary[StoredModule, weakref.WeakSet[StoredModule]] = (
    weakref.WeakKeyDictionary()
)


def left_behind_(module: StoredModule) -> None:
    """Note that a module has moved, and that its copies have not: should one be averaged on."""
    for twin in _COPIES.get(module, ()):
        if twin.stale is None:
            twin.stale = twin.weight._version
            twin._forward_pre_hooks.setdefault(_KEY, _look)


def on_its_own_(module: StoredModule) -> None:
    """Note that a copy has a topology of its own, that moves it."""
    for twins in _COPIES.values():
        twins.discard(module)


_KEY = -1  # of our hook among a module's, whose keys count from 0; so it is there once


def _look(module: StoredModule, _: Any) -> None:
    """Warn once if a copy was written after its original had moved."""
    if module.stale is not None and module.weight._version != module.stale:
        module.stale = None
        logger.warning(
            "a copy of a stored layer (%s) was written after the topology of its original had "
            "moved: if it is an average, it mixes weights of other positions; call "
            "sparse.apply_to_(average) after every update, before more is averaged, or use "
            "execution='masked'",
            type(module).__name__,
        )
