"""Reads and writes the optimizer's state (momentum, second moments) of grown weights.

A floating tensor of the weight's shape in the optimizer's state is a slot: momentum buffers, first
and second moments, amsgrad's maxima, Adagrad's sums. A grown unit starts its life at weight 0; what
it finds in the slots is the policy. Slots held in 8 or fewer bits are read and written through
:mod:`regrow.engine.quantised`, or refused; flags and counts are left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from regrow.engine import quantised
from regrow.engine.optimizers import divides_by_state, reader, state_of
from regrow.engine.sharding import local, whole

__all__ = [
    "FIRST",
    "SQUARES",
    "OnGrow",
    "check_slots",
    "first_codes",
    "first_moments",
    "momentum",
    "of_shape",
    "plain_slots",
    "remembers",
    "restarting",
    "slots",
]

OnGrow = Literal["zero", "keep", "mean"]

# Slots that hold squares, by their names in torch.optim: Adam(W), amsgrad, RMSprop and Adadelta,
# Adagrad, Adamax; and, in bitsandbytes, the second of two.
SQUARES = frozenset({"exp_avg_sq", "max_exp_avg_sq", "square_avg", "sum", "exp_inf", "state2"})

_SECOND = frozenset({"exp_avg_sq", "exp_inf"})

# Slots that a new weight does not find at zero, and the option of its group it finds there: Rprop's
# step sizes and Adagrad's sums. Once they are not zero, no step makes them so.
FIRST = {"step_size": "lr", "sum": "initial_accumulator_value"}


def slots(optimizer: torch.optim.Optimizer, weight: Tensor) -> dict[str, Tensor]:
    """Return the optimizer's moments that have one entry a weight, by name.

    Plain ones are the optimizer's own tensors. Of those in fewer bits a float copy is returned;
    those that cannot be read are left out (:func:`check_slots` refuses them).

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(2, 2))
        >>> optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
        >>> weight.sum().backward(); optimizer.step()
        >>> list(slots(optimizer, weight))
        ['momentum_buffer']
    """
    return plain_slots(optimizer, weight) | _decoded(optimizer, weight)


def plain_slots(optimizer: torch.optim.Optimizer, weight: Tensor) -> dict[str, Tensor]:
    """Return those of the :func:`slots` that are the optimizer's own tensors."""
    own = of_shape(state_of(optimizer, weight), weight)
    return {name: slot for name, slot in own.items() if quantised.is_plain(slot)}


def _decoded(optimizer: torch.optim.Optimizer, weight: Tensor) -> dict[str, Tensor]:
    """Return copies of the :func:`slots` that are held in fewer bits."""
    state = state_of(optimizer, weight)
    found: dict[str, Tensor] = {}
    for name, slot in of_shape(state, weight).items():
        if not quantised.is_plain(slot) and quantised.is_codes(state, name):
            values = quantised.read(state, name)
            if values is not None:
                found[name] = values
    return found


def first_codes(
    optimizer: torch.optim.Optimizer,
    weight: Tensor,
    changed: Callable[[], tuple[Tensor, Tensor]],
    policy: OnGrow,
) -> list[Callable[[], None]]:
    """Return functions that give grown weights their first state in slots of fewer bits.

    As :func:`first_moments` does in plain ones; they take no memory, and may be called again.

    Args:
        optimizer: holds the state of the weight.
        weight: any.
        changed: returns the weights grown, and those that were active and stay so; asked only if
            there are such slots.
        policy: what a grown weight finds.
    """
    decoded = {} if policy == "keep" else _decoded(optimizer, weight)
    if not decoded:
        return []
    first_moments(decoded, *changed(), policy)()
    state = state_of(optimizer, weight)
    return [quantised.writing(state, name, values) for name, values in decoded.items()]


def check_slots(
    optimizer: torch.optim.Optimizer,
    weights: Iterable[tuple[str, Tensor, bool]],
    policy: OnGrow,
) -> None:
    """Raise ValueError unless every moment of these weights can be given a first value.

    Args:
        optimizer: weights without a state yet pass.
        weights: name, weight, and whether the entries of its slots change places with the topology
            (stored layers), which a slot that is not plain cannot.
        policy: with "keep" nothing is written, so that any slot will do.
    """
    if policy != "keep" and divides_by_state(optimizer):
        raise ValueError(
            f"on_grow={policy!r}: {type(optimizer).__name__} divides by what it keeps of a weight, "
            "and a grown one would find zero there: pass on_grow='keep' to the method"
        )
    state_of_weight = reader(optimizer)
    for name, weight, moving in weights:
        state = state_of_weight(weight)
        own = of_shape(state, weight)
        squares, other = SQUARES & own.keys(), _elsewhere(state, weight)
        if policy != "keep" and squares and other:
            raise ValueError(
                f"on_grow={policy!r}: beside {min(squares)!r} of {name}, {type(optimizer).__name__}"
                f" keeps {other!r}, so that squares set alone would let grown weights move without "
                "bound: pass on_grow='keep' to the method"
            )
        for key, slot in own.items():
            if quantised.is_plain(slot) or (policy == "keep" and not moving):
                continue
            if moving or (quantised.is_codes(state, key) and not quantised.writable(state, key)):
                raise ValueError(_refusal(optimizer, name, key, slot, policy, moving=moving))


def _elsewhere(state: Mapping[str, Any], weight: Tensor) -> str | None:
    """Return the name of moments that are no slots, or of a rotation of those that are.

    Moments in one stack (AdEMAMix of bitsandbytes), a queue of gradients (AdaShift), the bases of
    SOAP and Conda: if squares are set and what is divided by their root is not, moves explode.
    """
    for name, value in state.items():
        if isinstance(value, Tensor):
            if value.ndim > weight.ndim and value.shape[1:] == weight.shape:
                return name
        elif value is not None and not isinstance(value, int | float | str):
            return name
    return None


def _refusal(
    optimizer: Any, name: str, key: str, slot: Tensor, policy: OnGrow, *, moving: bool
) -> str:
    part = local(slot)
    what = f"{type(part).__name__} of {part.dtype}".replace("Tensor of ", "")
    way_out = "use execution='masked'" if moving else "pass on_grow='keep' to the method"
    return (
        f"on_grow={policy!r}: the state {key!r} that {type(optimizer).__name__} keeps of {name} is "
        f"{what} ({part.layout}), and grown weights cannot be given a first value in it: "
        f"{way_out}, or use an optimizer whose state is floating point"
    )


def of_shape(state: Any, weight: Tensor) -> dict[str, Tensor]:
    """Return the tensors of a weight's state that have one entry a weight."""
    return {
        name: slot
        for name, slot in state.items()
        if isinstance(slot, Tensor) and slot.shape == weight.shape
    }


def first_moments(
    slots_of_weight: dict[str, Tensor], grown: Tensor, survivors: Tensor, policy: OnGrow
) -> Callable[[], None]:
    """Return a function that gives grown weights their first optimizer state, in place.

    What it needs is computed here: it takes no memory, and may be called again.

    ``"zero"``
        As if the weight were new. Under Adam the shared step count is large, so bias correction
        does not act, and the first move of a grown weight is up to (1-β₁)/√(1-β₂) = 3.2 learning
        rates.
    ``"keep"``
        Whatever the slot holds: the moments of the gradients of a weight that was masked.
    ``"mean"``
        Squares start at the mean over the layer's surviving weights, all else at zero: the first
        move is as small as the survivors' moves.

    Args:
        slots_of_weight: see :func:`slots`.
        grown: bool tensor of the weight's shape: the weights that were inactive and now are active.
        survivors: bool tensor of the weight's shape: active before and after.
        policy: one of the three above.

    Example:
        >>> slot = {"exp_avg_sq": torch.tensor([4.0, 9.0])}
        >>> new, old = torch.tensor([False, True]), torch.tensor([True, False])
        >>> first_moments(slot, new, old, "mean")()
        >>> slot["exp_avg_sq"].tolist()
        [4.0, 4.0]
    """
    fills: list[Callable[[], object]] = []
    for name, slot in slots_of_weight.items() if policy != "keep" else ():
        if slot.device != grown.device:  # offloaded optimizers keep their state on the host
            grown, survivors = grown.to(slot.device), survivors.to(slot.device)
        value: Tensor | float = 0.0
        if policy == "mean" and name in SQUARES:
            total = torch.where(survivors, slot, 0).sum()
            value = whole(total / survivors.sum().clamp(min=1)).to(slot.dtype)
        fills.append(partial(local(slot).masked_fill_, local(grown), value))

    def write() -> None:
        for fill in fills:
            fill()

    return write


@torch.no_grad()
def restarting(
    optimizer: torch.optim.Optimizer, weight: Tensor, length: int | None = None
) -> Callable[[], None]:
    """Return a function that gives slots that start above zero their first value where they are 0.

    It takes no memory, and may be called again.

    Args:
        optimizer: holds the state of the weight.
        weight: any.
        length: of the slots when it is called; None: as now.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(2))
        >>> optimizer = torch.optim.Rprop([weight], lr=0.1)
        >>> weight.sum().backward(); optimizer.step()
        >>> slot = slots(optimizer, weight)["step_size"]
        >>> _ = slot[0].zero_(); restarting(optimizer, weight)()
        >>> round(float(slot[0]), 4)
        0.1
    """
    state = of_shape(state_of(optimizer, weight), weight)
    restarts: list[tuple[Tensor, Tensor, float]] = []
    for name in FIRST.keys() & state.keys():
        if not quantised.is_plain(state[name]):
            continue
        group = next(g for g in optimizer.param_groups if any(p is weight for p in g["params"]))
        # Rprop multiplies its step sizes, so that a zero would stay zero; Adagrad's sums start
        # where the user has said.
        if first := float(group[FIRST[name]]):
            slot = local(state[name])
            shape = slot.shape if length is None else (length, *slot.shape[1:])
            zero = torch.empty(shape, dtype=torch.bool, device=slot.device)
            restarts.append((slot, zero, first))

    @torch.no_grad()
    def restart() -> None:
        for slot, zero, first in restarts:
            slot.masked_fill_(torch.eq(slot, 0, out=zero), first)

    return restart


def check_policy(policy: str) -> None:
    """Raise ValueError unless the policy is one of OnGrow."""
    if policy not in get_args(OnGrow):
        raise ValueError(f"on_grow={policy!r}: must be one of {', '.join(get_args(OnGrow))}")


def remembers(optimizer: torch.optim.Optimizer, weight: Tensor) -> bool:
    """Tell whether the optimizer keeps what :func:`momentum` reads, of this weight.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(2))
        >>> remembers(torch.optim.Adam([weight]), weight)  # it has not made a step
        False
    """
    state = state_of(optimizer, weight)
    names = of_shape(state, weight).keys()
    return (
        "momentum_buffer" in names
        or bool("exp_avg" in names and names & _SECOND)
        or {"state1", "state2"} <= names
    )


def momentum(optimizer: torch.optim.Optimizer, weight: Tensor) -> Tensor:
    """Return the optimizer's direction of movement: the momentum buffer, or m₁/(√m₂ + 10⁻⁸).

    For Adamax, whose second slot holds a maximum instead of squares, it is m₁/(u + 10⁻⁸).

    Raises:
        RuntimeError: the optimizer keeps no such state.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(2))
        >>> optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
        >>> weight.sum().backward(); optimizer.step()
        >>> momentum(optimizer, weight).tolist()
        [1.0, 1.0]
    """
    if not remembers(optimizer, weight):
        raise RuntimeError(
            f"the method reads momentum, but {type(optimizer).__name__} keeps none of a sparse "
            "weight: use SGD with momentum, or Adam, and let it step once before an update"
        )
    # Paged and offloaded state lies on the host.
    state = {name: s.to(weight.device) for name, s in slots(optimizer, weight).items()}
    if "momentum_buffer" in state:
        return state["momentum_buffer"]
    if "state2" in state:  # bitsandbytes
        return state["state1"] / (state["state2"].sqrt() + 1e-8)
    size = state["exp_inf"] if "exp_inf" in state else state["exp_avg_sq"].sqrt()
    return state["exp_avg"] / (size + 1e-8)
