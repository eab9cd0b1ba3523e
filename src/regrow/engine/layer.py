"""The mask of one weight: applied, moved, saved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from regrow.engine.moments import OnGrow, first_moments
from regrow.engine.patterns import Pattern
from regrow.engine.planned import PlannedLayer
from regrow.engine.saved import check_running, check_tensor, pack, read_mask, unpack
from regrow.engine.scores import Role, Signals
from regrow.engine.sharding import device_of, laid_out_as, like, local, whole
from regrow.engine.sparse_layer import SparseLayer

__all__ = ["MaskedLayer", "free_units"]


class MaskedLayer(SparseLayer):
    """The mask of one weight.

    The mask is stored in the weight's dtype and memory format, 1 = kept: multiplying by such a mask
    takes PyTorch's fast path, by any other it does not. If the weight is sharded, so is the mask.

    Args:
        planned: the layer's row of the plan.
        pattern: what a unit is.
        weight: gives device, dtype and sharding.
        units: the first active units, bool tensor on the grid; None draws them at random.
        generator: draws the first topology.
        available: bool tensor of the weight's shape; where False, the weight is *held*: this
            topology neither drops, grows nor moves it. Units that contain a held weight are held
            whole, and a density of 1 means all that is available.

    Raises:
        ValueError: fewer units are available than are to be active.
    """

    def __init__(
        self,
        planned: PlannedLayer,
        pattern: Pattern,
        weight: Tensor,
        generator: torch.Generator,
        units: Tensor | None = None,
        available: Tensor | None = None,
    ) -> None:
        super().__init__(planned, pattern)
        free = torch.ones(pattern.grid(planned.shape), dtype=torch.bool, device=device_of(weight))
        if available is not None:
            free = free_units(pattern, available.to(free.device))
            self.free, self.n_free = free, int(free.sum())
            held = ~pattern.expand(free, planned.shape)
            self.held = weight.detach() * like(held, weight)
        # A count equal to all units means "dense", which with held weights means all that is free.
        for asked in (planned.initial, planned.final):
            if self.n_free < asked < planned.units:
                raise ValueError(
                    f"{planned.name}: {asked} units are to be active, but only {self.n_free} of "
                    f"{planned.units} are available: lower the density or free some units"
                )
        self.active = min(planned.initial, self.n_free)
        if units is None:
            units = pattern.draw(self.active, free, self.n_free, generator)
        # A float mask, not a bool one: foreach multiplies tensors of one dtype and layout in one
        # kernel, and falls back to a slow loop for any other.
        mask = pattern.expand(units & free, planned.shape).to(weight.dtype).contiguous()
        self.mask = laid_out_as(weight, like(mask, weight))
        self.fired = self.units()
        self._where: Tensor | None = None

    def freeze_(self, where: Tensor, weight: Tensor) -> None:
        """Keep weights at their present value whenever they are active.

        Unlike held weights they can be dropped, and come back with that value when they are grown.

        Args:
            where: bool tensor of the weight's shape.
            weight: gives the values.
        """
        self._where = like(where, weight) > 0
        self.frozen = weight.detach() * self._where

    @property
    def learns(self) -> Tensor:
        """The weights whose gradients the optimizer is to see, 1 = seen."""
        return self.mask if self._where is None else self.mask * ~self._where

    @property
    def full(self) -> bool:
        """Whether masking would change nothing."""
        return self.active == self.planned.units

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape that the model's parameter must have."""
        return tuple(self.planned.shape)

    def strays(self, weight: Tensor) -> Tensor | None:
        """Count this rank's weights outside the mask that are neither zero nor as held."""
        part, mask = local(weight), local(self.mask)
        # FSDP2 shows whole weights between a forward and a backward pass.
        if self.full or part.shape != mask.shape:
            return None
        if part.device != mask.device:
            self.follow_(weight)
            mask = local(self.mask)
        held = 0 if self.held is None else local(self.held)
        return ((mask == 0) & (part != held)).count_nonzero()

    def units(self) -> Tensor:
        """Return the active units; bool tensor on the grid, whole on every rank."""
        return (self.pattern.reduce(whole(self.mask)) > 0).contiguous()

    def kept(self) -> Tensor:
        """Return the weights that take part in the forward pass: active ones and held ones."""
        kept = whole(self.mask) > 0
        # A held weight takes part in the forward pass with its own value, unless that is zero.
        return kept if self.held is None else kept | (whole(self.held) != 0)

    def expanded(self, units: Tensor) -> Tensor:
        """Return the weights that units hold; bool tensor of the weight's shape."""
        return self.pattern.expand(units, self.planned.shape)

    def ever(self) -> Tensor:
        """Return the weights that are active or ever were."""
        return self.expanded(self.fired)

    # ------------------------------------------------------------------ every step

    def follow_(self, weight: Tensor) -> None:
        """Take the weight's device, dtype and memory format, should the model have been moved.

        Raises:
            RuntimeError: the weight has 8 bits now, which torch neither multiplies nor compares.
        """
        if weight.is_floating_point() and weight.itemsize == 1:
            raise RuntimeError(
                f"{self.name} was converted to {weight.dtype} since sparsify(), and 8-bit weights "
                "cannot be masked: convert a copy of the model, or call remove() on the Sparsifier "
                "first"
            )
        mask = self.mask.to(device=device_of(weight), dtype=weight.dtype)
        self.mask = laid_out_as(weight, mask)
        self.fired = self.fired.to(device_of(weight))
        if self.free is not None and self.held is not None:
            self.free = self.free.to(device_of(weight))
            self.held = self.held.to(device=device_of(weight), dtype=weight.dtype)
        if self.frozen is not None and self._where is not None:
            self.frozen = self.frozen.to(device=device_of(weight), dtype=weight.dtype)
            self._where = self._where.to(device_of(weight))

    def apply_(self, weight: Tensor, active: Tensor | None = None) -> None:
        """Set dropped weights to zero, held weights and active frozen ones to their own value.

        Args:
            weight: is written.
            active: this rank's part of the mask as a bool tensor; no memory is then needed.
        """
        part, mask = local(weight.detach()), local(self.mask)
        if self.frozen is not None and self._where is not None:
            # A copy, not an added difference: momentum, weight decay and rounding can do nothing to
            # a frozen weight.
            torch.where(local(self._where), local(self.frozen), part, out=part)
        if self.held is None:
            part.mul_(mask)
        else:
            # torch.where and not a multiply: NaN times zero is NaN, and a bad value outside the
            # mask would stay.
            active = mask > 0 if active is None else active
            torch.where(active, part, local(self.held), out=part)

    def topology_bytes(self) -> int:
        """Count the bytes of the mask, which has the weight's dtype."""
        return local(self.mask).nbytes

    def rescale_(self, weight: Tensor, factor: float) -> None:
        """Multiply the active weights."""
        # Frozen and held weights keep the value that an earlier task gave them.
        weight.mul_(1 + (factor - 1) * self.learns)

    # ------------------------------------------------------------------ an update

    def signals(self, seen: Signals, role: Role, kept: Tensor) -> Signals:
        """Return what a drop or grow score may look at, given the units kept so far."""
        return Signals(
            weight=whole(self.values(seen.weight)),
            pattern=self.pattern,
            mask=self.expanded(kept),
            fired=self.fired,
            progress=seen.progress,
            gradient=None if seen.gradient is None else whole(seen.gradient),
            momentum=None if seen.momentum is None else whole(seen.momentum),
            running=self.running.get(role),
        )

    def counts(self, before: Tensor, after: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Count the units of two topologies, and those they share; 0-d tensors on one device."""
        return before.count_nonzero(), after.count_nonzero(), (before & after).count_nonzero()

    def committing(
        self, units: Tensor, weight: Tensor, slots: dict[str, Tensor], on_grow: OnGrow
    ) -> Callable[[], None]:
        """Return a function that takes over new active units; changes nothing yet."""
        after = self.pattern.expand(units, self.planned.shape)
        before = whole(self.mask) > 0
        writes = bool(slots) and on_grow != "keep"
        # Compared with the mask as it is now: after an interruption it may be written already.
        write_moments_ = (
            first_moments(
                slots, like(after & ~before, weight), like(after & before, weight), on_grow
            )
            if writes
            else lambda: None
        )
        placed = like(after, weight)

        def commit() -> None:
            write_moments_()
            # In place: captured CUDA graphs and the topology's lists hold this tensor.
            local(self.mask).copy_(local(placed))
            self.fired |= units
            # An average over steps of the old topology says little about the new one.
            self.running = {}
            self.apply_(weight, local(placed))

        return commit

    # ------------------------------------------------------------------ save and restore

    def state_dict(self) -> dict[str, Any]:
        """Return all that moves, masks at one bit a weight."""
        return {
            "counts": [self.planned.initial, self.planned.final],
            "mask": pack(whole(self.mask) > 0),
            "fired": pack(self.fired),
            "running": dict(self.running),
            "free": None if self.free is None else pack(self.free),
            "held": None if self.held is None else whole(self.held),
            **self._frozen_state(),
        }

    def _frozen_state(self) -> dict[str, Any]:
        if self.frozen is None or self._where is None:
            return {}
        return {"frozen": whole(self.frozen), "where": pack(whole(self._where))}

    def check_state(self, state: dict[str, Any]) -> Tensor:
        """Return the mask of a saved state, or raise ValueError if the state does not fit."""
        mask = read_mask(self.planned, self.pattern, state, self.state_dict())
        check_running(self.name, state["running"], self.planned.shape)
        self._check_held(state, self.pattern.reduce(mask.float()) > 0)
        self._check_frozen(state)
        return mask

    def _check_frozen(self, state: dict[str, Any]) -> None:
        if self._where is None and "where" not in state:
            return
        if self._where is None or not torch.equal(
            unpack(state["where"], self.planned.shape), whole(self._where).cpu()
        ):
            raise ValueError(f"state: {self.name} had other weights frozen: pass the same")
        check_tensor(self.name, "frozen weights", state["frozen"], self.planned.shape)

    def _check_held(self, state: dict[str, Any], units: Tensor) -> None:
        if (self.free is None) != (state["free"] is None):
            raise ValueError(f"state: {self.name} had other weights available: pass the same")
        if self.free is None or self.held is None:
            return
        free = unpack(state["free"], tuple(self.free.shape))
        if not torch.equal(free, self.free.cpu()) or bool((units & ~free).any()):
            raise ValueError(f"state: {self.name} had other weights available: pass the same")
        check_tensor(self.name, "held weights", state["held"], self.planned.shape)

    def loading(self, state: dict[str, Any], mask: Tensor, weight: Tensor) -> Callable[[], None]:
        """Return a function that takes over a checked state; changes nothing yet."""
        device = device_of(weight)
        placed = local(like(mask.to(device), weight))
        active = int((self.pattern.reduce(mask.float()) > 0).sum())
        fired = unpack(state["fired"], self.pattern.grid(self.planned.shape)).to(device)
        running = {role: value.to(device) for role, value in state["running"].items()}
        values = [
            (local(ours), local(like(state[key].to(device), weight)))
            for key, ours in (("held", self.held), ("frozen", self.frozen))
            if ours is not None
        ]

        def load() -> None:
            local(self.mask).copy_(placed)
            self.active, self.fired, self.running = active, fired, dict(running)
            for ours, saved in values:
                ours.copy_(saved)
            self.apply_(weight, placed)

        return load


def free_units(pattern: Pattern, available: Tensor) -> Tensor:
    """Return the units of which every weight is available; bool tensor on the grid.

    Example:
        >>> from regrow.engine.patterns import Channel
        >>> free_units(Channel(), torch.tensor([[True, True], [True, False]])).tolist()
        [True, False]
    """
    return pattern.reduce((~available).float()) == 0
