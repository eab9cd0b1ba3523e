"""What others do to sparse weights is noticed and put right: steps of other optimizers, writes."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook

from regrow.engine.optimizers import (
    exchanges_weights,
    holds,
    inside,
    keeps_slow,
    weight_copies,
    wraps,
)
from regrow.engine.presence import require_held
from regrow.engine.topology import Topology

__all__ = ["Guard", "watch_others"]

logger = logging.getLogger("regrow")


class Watcher(Protocol):
    """Who is told of steps."""

    def after_other(self, other: Optimizer) -> None:
        """React to a step that an optimizer has just made."""


# By id: a reference to each watcher, the id of the optimizer it is not told of, and how it is told.
# Every step of every optimizer goes through them, and a WeakKeyDictionary takes ten times as long.
_WATCHERS: dict[int, tuple[weakref.ref[Watcher], int, Callable[[Watcher, Optimizer], None]]] = {}
_hooked: list[Any] = []


def watch_others(watcher: Watcher, driver: Optimizer) -> Watched:
    """Tell a watcher of every step of every optimizer but one; it is not kept alive by that.

    Args:
        watcher: whose ``after_other`` is called with the optimizer that has stepped.
        driver: the optimizer whose steps are left out.

    Returns:
        A handle with ``remove()``.
    """
    # One hook for all, never removed: a sparsifier may be forgotten while torch goes through its
    # hooks, and must not change them under way.
    if not _hooked:
        # Should the user compile optimizer.step, this is not to be traced. What it calls is kept
        # from it apart: to do both at once takes twice as long at every step.
        tell = torch.compiler.disable(_tell, recursive=False)
        _hooked.append(register_optimizer_step_post_hook(tell))
    key = id(watcher)
    reference = weakref.ref(watcher, lambda _: _WATCHERS.pop(key, None))
    untraced: Callable[..., None] = torch.compiler.disable(type(watcher).after_other)
    _WATCHERS[key] = reference, id(driver), untraced
    return Watched(watcher)


@dataclass(frozen=True, eq=False)
class Watched:
    """The handle of :func:`watch_others`."""

    watcher: Watcher

    def remove(self) -> None:
        """Tell the watcher no more."""
        _WATCHERS.pop(id(self.watcher), None)


def _tell(optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    # Every step of every optimizer comes here: a comparison of two numbers is all it costs.
    stepped = id(optimizer)
    for watching, driver, after_other in tuple(_WATCHERS.values()):
        if driver != stepped and (watcher := watching()) is not None:
            after_other(watcher, optimizer)


class Guard:
    """Masks weights that others have moved, and says so once a kind.

    Args:
        topology: whose weights they are.
        driver: the optimizer whose steps may move them.

    Attributes:
        stepping: whether the driver is in a step: optimizers inside it are part of it.
    """

    def __init__(self, topology: Topology, driver: Optimizer) -> None:
        self.topology, self.driver = topology, driver
        self.stepping = False
        # Asked once: what an optimizer is made of stays.
        self._exchanges, self._inside = exchanges_weights(driver), inside(driver)
        self._warned: set[str] = set()

    def after_other(self, other: Optimizer) -> None:
        """Mask weights that another optimizer has just moved; it runs after each of its steps."""
        # Two models may be trained in turn: every step of the one comes here for the other's.
        exchanged, ids = self.topology.seen.exchanged, self.topology.seen.ids
        if exchanged:
            ids = frozenset(map(id, self.topology.present()))
        if not holds(other, ids):
            return
        # What Top-KAST put together for a step must stay so to its end: Lookahead averages it then.
        if self.stepping and self.topology.prepares:
            return
        if exchanged:
            self.topology.collect_()
        self.topology.apply_()
        # One inside the driver, or around it (SAM), is part of the same step.
        if self.stepping or wraps(other, self.driver):
            return
        self._warn(
            f"another {type(other).__name__}",
            f"{type(other).__name__} steps {self.topology.layers[0].name} or other weights whose "
            f"topology another optimizer ({type(self.driver).__name__}) drives: they stay "
            "masked, but no update is made. If it was built anew, call sparse.remove() and sparse "
            "= regrow.sparsify(model, optimizer, method, total_steps=..., state="
            "sparse.state_dict()) with it",
        )

    def mend_(self) -> None:
        """Set weights to zero that others wrote outside the masks, and say so.

        Raises:
            RuntimeError: a weight is gone, hidden, or not the optimizer's any more.
        """
        strays = self.topology.strays()
        if self.topology.seen.touched:
            self.topology.collect_()
            weights = {layer.name: weight for layer, weight in self.topology.pairs()}
            require_held(self.driver, weights)
        if not strays:
            return
        self.topology.clear_(strays)
        self._warn(
            "strays",
            "; ".join(f"{name}: {n} weights outside its mask" for name, n in strays.items())
            + " were written since the last step by something else than the optimizer's step "
            "(a loaded state, an initialisation, a merge, an average, a replaced layer), and are "
            "set to zero again; passes in between have seen them. If it is a sparse run's "
            "checkpoint, call sparse.load_state_dict() with its topology; else call "
            "sparse.apply_to_(model) where they are written",
        )

    def mask_copies_(self) -> None:
        """Mask what the driver makes weights of: schedule-free's z, Lookahead's slow weights."""
        if self._exchanges or keeps_slow(self._inside):
            self.topology.mask_copies_(lambda weight: weight_copies(self.driver, weight))

    def _warn(self, kind: str, message: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            logger.warning(message)
