"""How many weights a task may choose, and how many are left for those to come."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from regrow.continual.task import count
from regrow.engine.allocation import Allocation
from regrow.engine.layouts import turned
from regrow.engine.method import Method
from regrow.engine.planned import PlannedLayer

__all__ = [
    "Capacity",
    "CapacityError",
    "Remaining",
    "Reuse",
    "Share",
    "WhenFull",
    "fit",
    "for_task",
]

Reuse = Literal["chosen", "all", "none"]
Share = Literal["fixed", "free"]
WhenFull = Literal["error", "reuse"]
Shape = tuple[int, ...]


class CapacityError(ValueError):
    """The network has too few free weights for another task; nothing was changed."""


@dataclass(frozen=True)
class Capacity:
    """What the tasks of one network have taken of its shared weights.

    Args:
        layers: by name, how many weights a layer has and how many of them no task has learnt.
        sizes: by task, how many weights take part in its forward pass.
        learnt: by task, how many of these it learnt itself; the others are earlier tasks'.

    Example:
        >>> capacity = Capacity({"fc.weight": (100, 60)}, sizes=(20, 30), learnt=(20, 20))
        >>> capacity.free, capacity.used, capacity.reused
        (0.6, 0.4, (0, 10))
    """

    layers: dict[str, tuple[int, int]]
    sizes: tuple[int, ...]
    learnt: tuple[int, ...]

    @property
    def weights(self) -> int:
        """How many shared weights there are."""
        return sum(count for count, _ in self.layers.values())

    @property
    def free(self) -> float:
        """The fraction of shared weights that no task has learnt."""
        return sum(free for _, free in self.layers.values()) / self.weights

    @property
    def used(self) -> float:
        """The fraction of shared weights that some task has learnt."""
        return 1 - self.free

    @property
    def reused(self) -> tuple[int, ...]:
        """By task, how many weights of earlier tasks take part in its forward pass."""
        return tuple(size - new for size, new in zip(self.sizes, self.learnt, strict=True))


def measure(sizes: Mapping[str, int], masks: Sequence[Mapping[str, Tensor]]) -> Capacity:
    """Count what tasks have taken.

    Args:
        sizes: how many weights each layer has.
        masks: packed, of each task in turn.

    Example:
        >>> first, second = (torch.tensor([bits], dtype=torch.uint8) for bits in (3, 6))
        >>> measure({"w": 8}, [{"w": first}, {"w": second}])
        Capacity(layers={'w': (8, 5)}, sizes=(2, 2), learnt=(2, 1))
    """
    used = {name: torch.zeros(-(-size // 8), dtype=torch.uint8) for name, size in sizes.items()}
    learnt, before = [], 0
    for one in masks:
        used = {name: used[name] | one[name] for name in sizes}
        after = sum(map(count, used.values()))
        learnt.append(after - before)
        before = after
    layers = {name: (size, size - count(used[name])) for name, size in sizes.items()}
    taken = tuple(sum(count(mask) for mask in one.values()) for one in masks)
    return Capacity(layers, taken, tuple(learnt))


def fit(
    wanted: Mapping[str, float], room: Mapping[str, float], sizes: Mapping[str, int], budget: float
) -> dict[str, float]:
    """Scale densities so that their sum is a budget and no layer exceeds its room.

    Solves Σ_l min(room_l, ε·wanted_l)·N_l = budget for ε: layers without enough room take all they
    have, and the others what these are short of.

    Args:
        wanted: densities in (0, 1] by layer; only their proportions count.
        room: the fraction of each layer that may be taken, from 0 to 1.
        sizes: N_l.
        budget: how many weights to take; more than there is room for takes all.

    Returns:
        Densities in (0, 1] by layer. A layer without any room has 1, which to the engine means all
        that is available.

    Example:
        >>> sizes = {"a": 100, "b": 100}
        >>> fit({"a": 0.5, "b": 0.25}, {"a": 0.25, "b": 1.0}, sizes, budget=75)
        {'a': 0.25, 'b': 0.5}
    """
    full: set[str] = set()
    while open_ := [name for name in wanted if name not in full]:
        left = budget - sum(room[name] * sizes[name] for name in full)
        factor = left / sum(wanted[name] * sizes[name] for name in open_)
        over = {name for name in open_ if wanted[name] * factor >= room[name]}
        if not over:
            break
        full |= over
    return {name: (room[name] or 1.0) if name in full else wanted[name] * factor for name in wanted}


@dataclass(frozen=True, kw_only=True)
class Remaining(Allocation):
    """Share a density as another allocation does, among the weights that are left.

    Args:
        base: such as ``ERK()``.
        room: the fraction of each layer that may be taken.
        share: what every density is multiplied by.

    Example:
        >>> from regrow.engine.allocation import Uniform
        >>> left = Remaining(base=Uniform(), room={"a": 0.25, "b": 1.0})
        >>> left({"a": (10, 10), "b": (10, 10)}, 0.5)
        {'a': 0.25, 'b': 0.75}
    """

    base: Allocation
    room: Mapping[str, float] = field(hash=False)
    share: float = 1.0

    def raw(self, shape: Shape) -> float:
        """Return the base's raw density."""
        return self.base.raw(shape)

    def __call__(self, shapes: Mapping[str, Shape], density: float) -> dict[str, float]:
        """Return each layer's density."""
        sizes = {name: math.prod(shape) for name, shape in shapes.items()}
        budget = density * self.share * sum(sizes.values())
        return fit(self.base(shapes, density), self.room, sizes, budget)


def for_task(
    method: Method,
    layers: Sequence[PlannedLayer],
    free: Mapping[str, int],
    *,
    reuse: Reuse,
    share: Share,
    when_full: WhenFull,
    earlier: int,
) -> Method:
    """Return a method that asks for no more than one task may have.

    Args:
        method: of the whole network.
        layers: its planned layers.
        free: by layer, the units that no task has learnt.
        reuse: "chosen": a task chooses among all weights; else among the free ones.
        share: "fixed": its density is of all weights; "free": of those that are free.
        when_full: "error", or "reuse" to make do with what is left, be it nothing.
        earlier: how many tasks were learnt. Each may have taken half a unit a layer too many by
            rounding; falling short by that much is no error.

    Raises:
        CapacityError: too little is free.
    """
    units = {layer.name: layer.units for layer in layers}
    left = {name: free[name] / units[name] for name in units}
    share_of_all = sum(free.values()) / sum(units.values())
    room = dict.fromkeys(units, 1.0) if reuse == "chosen" else left
    if reuse == "none" and (empty := [name for name in free if not free[name]]):
        raise CapacityError(
            f"reuse='none': nothing is free in {', '.join(empty)}, and without earlier tasks' "
            "weights nothing would pass; use reuse='all' or 'chosen', or Uniform() allocation"
        )
    if when_full == "error" and not any(free.values()):
        raise CapacityError(
            f"none of {sum(units.values()):,} units is free: every weight belongs to one of "
            f"{earlier} tasks; use when_full='reuse' to learn head and norms only, or a lower "
            "density from the first task on"
        )
    if when_full == "error" and share == "fixed" and reuse != "chosen":
        _check_wanted(method, layers, free, earlier)
    if reuse == "chosen" and share == "fixed":
        return method
    if isinstance(method.density, Mapping):
        scale = left if share == "free" else dict.fromkeys(units, 1.0)
        wanted = method.densities(_sizes(layers))
        limited = {n: min(wanted[n] * scale[n], room[n]) or 1.0 for n in wanted}
        return replace(method, density=limited)
    factor = share_of_all if share == "free" else 1.0
    return replace(method, allocation=Remaining(base=method.allocation, room=room, share=factor))


def _sizes(layers: Sequence[PlannedLayer]) -> dict[str, Shape]:
    return {layer.name: layer.layout.ordered(layer.shape) for layer in layers}


def _check_wanted(
    method: Method, layers: Sequence[PlannedLayer], free: Mapping[str, int], earlier: int
) -> None:
    densities = method.densities(_sizes(layers))
    wanted = {
        layer.name: turned(method.pattern, layer.layout).kept(densities[layer.name], layer.shape)
        for layer in layers
    }
    slack = (earlier + 1) / 2
    together = not isinstance(method.density, Mapping)
    groups = [list(wanted)] if together else [[name] for name in wanted]
    for names in groups:
        want, have = (sum(counts[name] for name in names) for counts in (wanted, free))
        if want - have > slack * len(names):
            where = "the network" if together else names[0]
            raise CapacityError(
                f"density={method.density}: {want:,} units of {where} are wanted for the task, and "
                f"the {earlier} before have left {have:,} free: use when_full='reuse' to make do "
                "with these, share='free', or a lower density"
            )
