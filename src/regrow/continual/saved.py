"""A network's saved state, checked before anything is changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from regrow.engine.saved import unpack

__all__ = ["VERSION", "check_state"]

VERSION = 1
Shape = tuple[int, ...]

_PARTS = ("settings", "store", "fresh", "samples", "tasks", "active", "learning")
_TASK_PARTS = {"name", "classes", "masks", "own", "means", "spread"}


def check_state(
    state: Any,
    settings: Mapping[str, Any],
    shared: Mapping[str, Shape],
    own: Mapping[str, Shape],
    head: Iterable[str],
    features: int,
) -> None:
    """Raise ValueError unless a state fits a network.

    Args:
        state: from ``TaskNetwork.state_dict()``.
        settings: of the network.
        shared: shapes of the weights under a mask.
        own: shapes of all that belongs to one task, but for the head.
        head: names of the head's parameters.
        features: the head's inputs.
    """
    if not isinstance(state, Mapping) or state.get("version") != VERSION:
        raise ValueError(f"state: it is no state of a TaskNetwork of version {VERSION}")
    if missing := [part for part in _PARTS if part not in state]:
        raise ValueError(f"state: {', '.join(missing)} is missing: it is damaged")
    for key, value in settings.items():
        if (saved := state["settings"].get(key)) != value:
            raise ValueError(f"state: {key} was {saved!r}, but is {value!r} here: use the same")
    _check_tensors("store", state["store"], shared)
    _check_tensors("fresh", state["fresh"], own)
    _check_tensors("samples", state["samples"], dict.fromkeys([*shared, *head]))
    tasks = state["tasks"]
    learning = state["learning"]
    for position, task in enumerate(tasks):
        if not isinstance(task, Mapping) or task.keys() != _TASK_PARTS or not task["classes"]:
            raise ValueError(f"state: task {position} is damaged")
        heads = {n: _head_shape(n, len(task["classes"]), features) for n in head}
        if position == len(tasks) - 1 and learning is not None:
            _check_tensors("learning", learning["values"], {**shared, **own, **heads})
            continue
        _check_masks(position, task["masks"], shared)
        _check_tensors(f"task {position}", task["own"], {**own, **heads})
    active = state["active"]
    if active is not None and not (isinstance(active, int) and 0 <= active < len(tasks)):
        raise ValueError(f"state: active is {active!r}, of {len(tasks)} tasks: it is damaged")


def _head_shape(name: str, classes: int, features: int) -> Shape:
    return (classes,) if name.endswith(".bias") else (classes, features)


def _check_masks(position: int, masks: Any, shared: Mapping[str, Shape]) -> None:
    _check_names(f"masks of task {position}", masks, shared)
    for name, shape in shared.items():
        try:
            unpack(masks[name], shape)
        except ValueError as error:
            raise ValueError(f"state: mask {name} of task {position}: {error}") from None


def _check_tensors(what: str, tensors: Any, shapes: Mapping[str, Shape | None]) -> None:
    _check_names(what, tensors, shapes)
    for name, shape in shapes.items():
        value = tensors[name]
        if not isinstance(value, Tensor) or (shape is not None and tuple(value.shape) != shape):
            found = tuple(value.shape) if isinstance(value, Tensor) else repr(value)
            raise ValueError(f"state: {what}: {name} is {found}, but {shape} is needed")


def _check_names(what: str, found: Any, needed: Iterable[str]) -> None:
    names = set(found) if isinstance(found, Mapping) else set()
    if names != set(needed):
        odd = sorted(names ^ set(needed))
        raise ValueError(f"state: {what} does not fit this model: see {', '.join(odd[:5])}")
