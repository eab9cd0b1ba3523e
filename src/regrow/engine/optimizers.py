"""What is known of optimizers: which weights they hold, step inside others, keep copies of."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Set
from functools import partial
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

__all__ = [
    "divides_by_state",
    "exchanges_weights",
    "holds",
    "inside",
    "keeps_slow",
    "minds_no_gradients",
    "reader",
    "state_of",
    "steps_in_backward",
    "weight_copies",
    "wraps",
]

# By these names Lookahead (pytorch_optimizer, timm, Ranger) keeps slow copies of the weights.
_SLOW = frozenset({"slow_params", "slow_buffer", "lookahead_params", "lookahead_slow_buff"})
# TRAC keeps the weights it started from, by weight, in one dictionary under this key of its state.
_STARTS = "trac"
# And by these what eval() makes weights of: schedule-free optimizers z and x, SPlus an average.
_EXCHANGED = frozenset({"z", "x", "ema"})

# Of pytorch_optimizer: they average over all gradients, and raise if there is none.
_MIND_NO_GRADIENTS = frozenset({"Adai", "AdamS", "Ranger21"})
# Of the same: they divide by sums and estimates that do not start at zero.
_DIVIDE_BY_STATE = frozenset({"DAdaptAdaGrad", "DAdaptAdan", "VSGD"})


def holds(optimizer: Optimizer, ids: Set[int]) -> bool:
    """Tell whether an optimizer holds any parameter of these ids.

    Example:
        >>> import torch
        >>> weight = torch.nn.Parameter(torch.ones(2))
        >>> holds(torch.optim.SGD([weight], lr=0.1), {id(weight)})
        True
    """
    return any(not ids.isdisjoint(map(id, group["params"])) for group in optimizer.param_groups)


def wraps(outer: object, inner: Optimizer) -> bool:
    """Tell whether one optimizer holds another as an attribute, as SAM holds its base optimizer."""
    return any(value is inner for value in vars(outer).values())


def inside(optimizer: Optimizer) -> list[Optimizer]:
    """Return an optimizer and those that it steps itself, such as Lookahead's, outermost first.

    Example:
        >>> import torch
        >>> len(inside(torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1)))
        1
    """
    found = [optimizer]
    for name in ("optimizer", "base_optimizer"):
        inner = getattr(optimizer, name, None)
        if isinstance(inner, Optimizer):
            found += inside(inner)
    return found


def state_of(optimizer: Optimizer, weight: Tensor) -> Mapping[str, Any]:
    """Return what an optimizer, and those inside it, keep of a weight; not to be written to."""
    states = [one.state.get(weight, {}) for one in reversed(inside(optimizer))]
    return states[0] if len(states) == 1 else {k: v for s in states for k, v in s.items()}


def reader(optimizer: Optimizer) -> Callable[[Tensor], Mapping[str, Any]]:
    """Return :func:`state_of` of one optimizer, to be asked of many weights.

    Example:
        >>> import torch
        >>> reader(torch.optim.SGD([torch.ones(1)], lr=0.1))(torch.ones(1))
        {}
    """
    if len(inside(optimizer)) > 1:
        return partial(state_of, optimizer)
    nothing: dict[str, Any] = {}
    return lambda weight: optimizer.state.get(weight, nothing)


def steps_in_backward(optimizer: Optimizer) -> str | None:
    """Return what moves the weights inside ``backward()`` in the place of a step; None if nothing.

    LOMO (Lv et al. 2023) has no ``step()`` of its own, and layer-wise optimizers are many, each of
    one weight, behind one whose ``step()`` does nothing.

    Example:
        >>> import torch
        >>> steps_in_backward(torch.optim.SGD([torch.ones(2)], lr=0.1)) is None
        True
    """
    kind = type(optimizer)
    # torch wraps the step() of a class when the first of its optimizers is built.
    if inspect.unwrap(kind.step) is inspect.unwrap(Optimizer.step):
        return f"{kind.__name__} has no step() of its own"
    for held in vars(optimizer).values():
        inside = held.items() if isinstance(held, Mapping) else ()
        if any(isinstance(of, Tensor) and isinstance(one, Optimizer) for of, one in inside):
            return f"{kind.__name__} leaves the steps to an optimizer for each weight"
    return None


def exchanges_weights(optimizer: Optimizer) -> bool:
    """Tell whether an optimizer exchanges weights by ``eval()`` and ``train()``.

    Schedule-free optimizers (Defazio et al. 2024) do: with their state z they compute the averaged
    weights from those at hand.
    """
    return all(callable(getattr(optimizer, name, None)) for name in ("eval", "train"))


def keeps_slow(optimizers: Iterable[Optimizer]) -> bool:
    """Tell whether any of these keeps slow or first weights; asked at every step, so cheap.

    Example:
        >>> import torch
        >>> keeps_slow([torch.optim.SGD([torch.ones(2)], lr=0.1)])
        False
    """
    for optimizer in optimizers:
        if _STARTS in optimizer.state:
            return True
        for state in optimizer.state.values():
            if isinstance(state, dict) and not _SLOW.isdisjoint(state):
                return True
            break  # one weight's state tells it: all have the same
    return False


def minds_no_gradients(optimizer: Optimizer) -> bool:
    """Tell whether an optimizer is known to raise in a step for which no weight has a gradient."""
    return any(type(one).__name__ in _MIND_NO_GRADIENTS for one in inside(optimizer))


def divides_by_state(optimizer: Optimizer) -> bool:
    """Tell whether an optimizer is known to divide by state, which must not be set to zero then."""
    return any(type(one).__name__ in _DIVIDE_BY_STATE for one in inside(optimizer))


def weight_copies(optimizer: Optimizer, weight: Tensor) -> list[Tensor]:
    """Return what an optimizer keeps in its state of the weights themselves: z, slow, first ones.

    Example:
        >>> import torch
        >>> weight = torch.nn.Parameter(torch.ones(2))
        >>> optimizer = torch.optim.SGD([weight], lr=0.1)
        >>> optimizer.state[weight]["slow_params"] = torch.ones(2)
        >>> weight_copies(optimizer, weight)
        [tensor([1., 1.])]
    """
    state = state_of(optimizer, weight)
    # Without eval(), z is something else: FTRL's weights are a function of one.
    names = _SLOW | _EXCHANGED if exchanges_weights(optimizer) else _SLOW
    kept = [state.get(name) for name in names]
    states: list[Mapping[Any, Any]] = [one.state for one in inside(optimizer)]
    kept += [of_all[_STARTS].get(weight) for of_all in states if _STARTS in of_all]
    return [c for c in kept if isinstance(c, Tensor) and c.shape == weight.shape]
