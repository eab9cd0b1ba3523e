"""The topology of a layer that stores active weights only, and how an update moves it.

Positions on the grid of units take the place of masks. Nothing as large as the dense weight is
ever held: growth by gradient sees the dense gradient a tile at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from regrow.engine.moments import SQUARES, OnGrow
from regrow.engine.patterns import Block, Element, Pattern
from regrow.engine.planned import PlannedLayer
from regrow.engine.ranks import ALONE, Ranks
from regrow.engine.resize import resize_
from regrow.engine.saved import check_running, pack, read_mask, unpack
from regrow.engine.scores import Gradient, Role, Score, Signals
from regrow.engine.selection import nth_allowed, sample
from regrow.engine.sparse_layer import Exchange, SparseLayer
from regrow.engine.whole import finish
from regrow.execution.growth import highest
from regrow.execution.positions import locate, mark, merge, narrow
from regrow.execution.stored_module import StoredModule, left_behind_, on_its_own_

__all__ = ["StoredExchange", "StoredLayer"]


class StoredExchange(Exchange):
    """The units of a stored layer while an update goes on: ascending positions on the grid."""

    layer: StoredLayer

    def worth(self, score: Score) -> tuple[Tensor, Tensor]:
        """Return what the units kept so far are worth to a drop score, and that all are there."""
        worth = score(self.signals("drop", self.kept))
        worth = worth.flatten(1).sum(1) if worth.ndim > 1 else worth
        return worth.cpu(), torch.ones(len(worth), dtype=torch.bool, device="cpu")

    def drop(self, score: Score, k: int, generator: torch.Generator) -> int:
        """Drop the k lowest units; return how many went, should the score be inexact."""
        if k == 0:
            return 0
        worth, among = self.worth(score)
        chosen = score.lowest(worth, k, among, self.n, generator)
        gone = k if score.exact else int(torch.count_nonzero(chosen))
        self.strike(chosen, gone)
        return gone

    def strike(self, chosen: Tensor, k: int) -> None:
        """Drop k units chosen among those kept so far."""
        self.kept = torch.from_numpy(self.kept.numpy()[~chosen.numpy()])
        self.n -= k

    def grow(
        self, score: Score, k: int, generator: torch.Generator, *, regrow_dropped: bool
    ) -> None:
        """Grow k units: at random, or those with the largest dense gradients."""
        if k == 0:
            return
        taken = (self.kept if regrow_dropped else self.active).numpy()
        if score.ranks:
            grown = self.layer.highest(score, k, taken)
        else:
            room = self.room(regrow_dropped=regrow_dropped)
            grown = nth_allowed(sample(room, k, generator), taken)
        self.kept = merge(self.kept, narrow(grown, self.layer.planned.units))
        self.n += k

    def strength(self, signal: Literal["momentum", "gradient"]) -> Tensor:
        """Return the mean magnitude of a signal over the weights active before; 0-d tensor."""
        signals = self.signals("grow", self.active)
        values = signals.momentum if signal == "momentum" else signals.gradient
        assert values is not None
        return values.abs().sum() / max(self.layer.n_kept(), 1)


class StoredLayer(SparseLayer):
    """One weight of which only the active units are stored.

    Args:
        planned: the layer's row of the plan.
        pattern: Element() or a Block.
        module: holds the values of the active units, in ascending order of position.
    """

    exchange = StoredExchange
    stored = True

    def __init__(self, planned: PlannedLayer, pattern: Pattern, module: StoredModule) -> None:
        super().__init__(planned, pattern)
        self.module = module
        self._loads = module.loads
        positions = self.units()
        self._ever = torch.zeros(-(-planned.units // 8), dtype=torch.uint8, device="cpu")
        mark(self._ever, positions)
        # How often the weight was written when it was made of a dense one, and when a saved
        # topology took the place of that first one: values it wants may be gone with the dense
        # weight.
        self._made: int | None = module.weight._version
        self._moved: int | None = None
        self._ranks = ALONE

    def __getstate__(self) -> dict[str, Any]:
        """Leave behind which ranks train the weight: those of a copy are found anew."""
        return self.__dict__ | {"_ranks": ALONE}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        on_its_own_(self.module)

    # ------------------------------------------------------------------ what it tells

    def units(self) -> Tensor:
        """Return the flat positions of the active units, ascending, on the CPU."""
        return narrow(self.module.positions.cpu(), self.planned.units)

    def expanded(self, units: Tensor) -> Tensor:
        """Return the weights that units hold; bool tensor of the dense shape."""
        grid = torch.zeros(self.planned.units, dtype=torch.bool, device="cpu")
        grid[units] = True
        shape = self.planned.shape
        return self.pattern.expand(grid.reshape(self.pattern.grid(shape)), shape)

    @property
    def active(self) -> int:
        """How many units are active: as many as have values."""
        return len(self.module.weight) if hasattr(self, "module") else self.planned.initial

    @active.setter
    def active(self, n: int) -> None:
        """Take note of nothing: values are counted, also those that a model's state brought."""

    def ever(self) -> Tensor:
        """Return the weights that are active or ever were."""
        self._notice_()
        shape = self.planned.shape
        units = unpack(self._ever, self.pattern.grid(shape))
        return self.pattern.expand(units, shape)

    def n_kept(self) -> int:
        """Count the active weights."""
        return self.active if isinstance(self.pattern, Element) else super().n_kept()

    def counts(self, before: Tensor, after: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Count the units of two topologies, and those they share."""
        shared = locate(before, after)[1]
        before_after_shared = torch.tensor([len(before), len(after), shared], device="cpu")
        return before_after_shared[0], before_after_shared[1], before_after_shared[2]

    @property
    def kernels(self) -> str:
        """What computes the layer."""
        return self.module.computed_by()

    # ------------------------------------------------------------------ an update

    def expect_(self, *, dense_gradients: bool) -> None:
        """Let the next backward passes keep what dense gradients are made of, or forget it."""
        # Inputs and output gradients are kept only in the steps before an update: they are as large
        # as the activations.
        self.module.captures = dense_gradients
        self.module.release()

    def join_(self, ranks: Ranks) -> None:
        """Learn which ranks train the weight: each gathers of its own batches only."""
        self._ranks = ranks

    def signals(self, seen: Signals, role: Role, kept: Tensor) -> Signals:
        """Return what a score may look at: the stored weights alone."""
        self._notice_()
        signals = replace(seen, pattern=self.pattern, running=self.running.get(role))
        # Nothing was dropped yet: no position has to be looked up.
        if len(kept) == self.active:
            return signals
        return signals.rows(locate(self.units(), kept)[0].to(seen.weight.device))

    def highest(self, score: Score, k: int, taken: npt.NDArray[np.integer[Any]]) -> Tensor:
        """Return the k positions worth most to a grow score among those not taken, ascending.

        Raises:
            RuntimeError: no backward pass was captured.
            FloatingPointError: the dense gradient is NaN or infinite.
        """
        try:
            return self._highest(score, k, taken)
        except FloatingPointError as error:
            raise FloatingPointError(f"layer {self.name}: {error}") from error

    def _highest(self, score: Score, k: int, taken: npt.NDArray[np.integer[Any]]) -> Tensor:
        shape = self.planned.shape
        side = self.pattern.size if isinstance(self.pattern, Block) else 1
        columns = self.pattern.units((side, *shape[1:]))

        # A rank whose batch has not come through this layer still takes part in the mean.
        captured = bool(self.module.captured)
        if not self._ranks.any(captured):
            raise RuntimeError(
                f"topology update: no dense gradient of {self.name} was gathered: stored layers "
                "gather it in the backward passes before a scheduled update only, so that "
                "update_() between two of them cannot grow by gradient; and in launched passes "
                "only: where passes are replayed from a CUDA graph, launch them in the step of an "
                "update, sparse.method.next_update(sparse.steps, sparse.total_steps)"
            )

        if isinstance(score, Gradient) and self._ranks == ALONE:
            positions = self.module.highest_gradients(k, torch.from_numpy(taken))
            if positions is not None:
                return positions

        def worth(first: int, end: int) -> npt.NDArray[np.float32]:
            # A tile of rows at a time: the whole dense gradient is what stored layers are there to
            # avoid.
            first, end = first * side, min(end * side, shape[0])
            if captured:
                rows = self.module.gradient_rows(first, end)
            else:
                rows = self.module.weight.new_zeros(end - first, math.prod(shape[1:]))
            (rows,) = self._ranks.mean([rows])
            values = score(Signals(weight=rows, pattern=self.pattern, gradient=rows))
            units = self.pattern.reduce(values) if side > 1 else values
            return units.float().cpu().numpy()

        return highest(worth, (self.planned.units // columns, columns), k, taken, side * side)

    def committing(
        self, units: Tensor, weight: Tensor, slots: dict[str, Tensor], on_grow: OnGrow
    ) -> Callable[[], None]:
        """Return a function that takes over new active units; changes nothing yet.

        Values and optimizer slots move along; those of grown units are zero.
        """
        if self.module.graphed and len(units) != self.active:
            raise RuntimeError(
                f"{self.name} was captured in a CUDA graph, and an update would store {len(units)} "
                f"units for {self.active}: replays would read memory that is gone. Use a method "
                "that keeps the number of each layer, execution='masked', or no graph"
            )
        if self._ranks != ALONE and len(units) != self.active:
            raise RuntimeError(
                f"{self.name} is in a DistributedDataParallel, which sends as many numbers as it "
                f"was made for, and an update would store {len(units)} units for {self.active}: "
                "use a method that keeps the number of each layer, or execution='masked'"
            )
        self.module.forget_orders()
        # Positions are looked up once and used for the weight and every slot of the optimizer.
        move = _moving(self.units(), units)
        moved = [(weight, move(weight.detach(), 0.0))]
        for name, slot in slots.items():
            survivors = on_grow == "mean" and name in SQUARES
            moved.append((slot, move(slot, None if survivors else 0.0)))
        gradient = weight.grad
        # Moved along and not dropped: graphs that are replayed write to where it is.
        if gradient is not None and len(units) == len(gradient) == self.active:
            moved.append((gradient, move(gradient, 0.0)))
        else:
            gradient = None
        index = self.module.index_of(units)

        def commit() -> None:
            self._put_(moved, index)
            self.module.weight.grad = gradient
            self.running = {}
            self.module.release()
            mark(self._ever, units)
            left_behind_(self.module)

        return commit

    @torch.no_grad()
    def _put_(self, moved: list[tuple[Tensor, Tensor]], index: Any) -> None:
        """Write values that were moved, and where they are now."""
        for tensor, values in moved:
            _write_(tensor, values)
        self.module.set_topology_(index)

    def apply_to_(self, module: nn.Module, weight: Tensor) -> None:
        """Move the weights of a copy of the layer to where they are here; zeros where it had none.

        Args:
            module: a copy from before an update, such as an average; or the same layer, dense.
            weight: its weight.
        """
        if not isinstance(module, StoredModule):
            super().apply_to_(module, weight)
            return
        before, after = narrow(module.positions.cpu(), self.planned.units), self.units()
        if torch.equal(before, after):
            return
        if len(before) != len(weight):
            raise ValueError(
                f"{self.name}: the copy has {len(weight)} weights at {len(before)} positions; "
                "averages of stored layers must be moved by apply_to_() after every update"
            )
        moved = _moving(before, after)(weight.detach(), 0.0)
        index = module.index_of(after)
        module.stale = None
        finish([lambda: _write_(weight, moved), lambda: module.set_topology_(index)])

    # ------------------------------------------------------------------ positions that were loaded

    def _notice_(self) -> None:
        """Drop what belongs to other positions, should a state of the model have brought new ones.

        The model's own ``load_state_dict`` tells nobody.
        """
        if self._loads != self.module.loads:
            self._loads = self.module.loads
            self.running = {}
            mark(self._ever, self.units())

    @property
    def displaced(self) -> bool:
        """Whether a loaded state has put weights elsewhere, and their optimizer state not yet."""
        return self.module.came_from is not None

    @torch.no_grad()
    def settle_(self, state: dict[str, Any] | None) -> None:
        """Let optimizer state follow weights that a loaded state has put elsewhere.

        Values of weights that were there before stay with them, as in an update.

        Args:
            state: of the weight; None: it was loaded as well, and belongs to them already.
        """
        self._notice_()
        before, moved = self.module.came_from, []
        if state and before is not None:
            move = _moving(narrow(before.cpu(), self.planned.units), self.units())
            old = (len(before), *self.module.weight.shape[1:])
            slots = [v for v in state.values() if isinstance(v, Tensor) and v.shape == old]
            moved = [partial(_write_, slot, move(slot, 0.0)) for slot in slots]
        finish([*moved, partial(setattr, self.module, "came_from", None)])

    def topology_bytes(self) -> int:
        """Count the bytes of the index, and of the record of what was ever active."""
        return self.module.topology_bytes() + self._ever.nbytes

    def rescale_(self, weight: Tensor, factor: float) -> None:
        """Multiply the active weights."""
        weight.mul_(factor)
        self._made = weight._version

    # ------------------------------------------------------------------ save and restore

    def state_dict(self) -> dict[str, Any]:
        """Return what a mask would return, so that either can go on where the other stopped."""
        self._notice_()
        bits = torch.zeros_like(self._ever)
        mark(bits, self.units())
        plain = isinstance(self.pattern, Element)
        return {
            "counts": [self.planned.initial, self.planned.final],
            "mask": bits if plain else pack(self.kept()),
            "fired": self._ever.clone(),
            "running": dict(self.running),
            "free": None,
            "held": None,
        }

    def check_state(self, state: dict[str, Any]) -> Tensor:
        """Return the positions of a saved state, or raise ValueError if it does not fit."""
        return positions_of(self.planned, self.pattern, state)

    def check_loaded(self, weight: Tensor) -> None:
        """Raise RuntimeError if values that a saved topology wants went with the dense weight."""
        if self._moved is not None and weight._version == self._moved:
            raise RuntimeError(
                f"{self.name} was stored by a first topology of sparsify(), and the saved one that "
                "was loaded wants other weights, which are gone: call model.load_state_dict() "
                "after sparsify(), or pass the topology on: sparsify(..., state=state)"
            )
        self._moved = None

    def loading(self, state: dict[str, Any], mask: Tensor, weight: Tensor) -> Callable[[], None]:
        """Return a function that takes over a checked state: weights that stay keep their values.

        Optimizer state follows at the next step, unless it is loaded, too.
        """
        before = self.units()
        moves = not torch.equal(mask, before)
        moved = [(weight, _moving(before, mask)(weight.detach(), 0.0))] if moves else []
        index = self.module.index_of(mask) if moves else None
        ever = state["fired"].cpu().clone()
        running = {role: value.to(weight.device) for role, value in state["running"].items()}

        fresh = weight._version == self._made

        def load() -> None:
            if moves:
                self._put_(moved, index)
                self.module.displaced_(before)
                self._moved = self.module.weight._version if fresh else None
            self._loads = self.module.loads
            self._ever, self.running = ever, dict(running)

        return load


def positions_of(planned: PlannedLayer, pattern: Pattern, state: dict[str, Any]) -> Tensor:
    """Return the active units of a layer's saved state, as ascending positions on the grid.

    Raises:
        ValueError: the state is incomplete, or of another layer, density or pattern.
    """
    mask = read_mask(planned, pattern, state)
    if state["held"] is not None:
        raise ValueError(f"state: {planned.name} holds weights, which only masks can")
    units = mask if isinstance(pattern, Element) else pattern.reduce(mask.float()) > 0
    side = (pattern.size,) * 2 if isinstance(pattern, Block) else ()
    check_running(planned.name, state["running"], (int(units.sum()), *side))
    return narrow(torch.from_numpy(np.flatnonzero(units.numpy())), planned.units)


def _moving(before: Tensor, after: Tensor) -> Callable[[Tensor, float | None], Tensor]:
    """Return a function that moves values from one topology to another.

    The second argument is what grown units get; None: the mean over those that stay.
    """
    source, shared = locate(before, after)
    grown = (source < 0).nonzero().squeeze(1)
    # Grown units have no source: they read place 0 and are overwritten below.
    source.clamp_(min=0)

    def move(values: Tensor, fill: float | None) -> Tensor:
        # There is no value to read, and no mean of those that stay.
        if not shared:
            return values.new_full((len(after), *values.shape[1:]), fill or 0.0)
        moved = values.index_select(0, source.to(values.device))
        if fill is None:
            fill = float(moved.sum() - moved[grown.to(values.device)].sum()) / (
                moved[:1].numel() * shared
            )
        return moved.index_fill_(0, grown.to(values.device), fill)

    return move


def _write_(tensor: Tensor, values: Tensor) -> None:
    """Write values into a tensor in place; give it their memory where the length differs."""
    if tensor.shape == values.shape:
        tensor.copy_(values)
    else:
        resize_(tensor, values)
