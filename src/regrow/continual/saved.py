"""Checks the saved state of a network before anything is changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from regrow.continual.views import View, own_tensors
from regrow.engine.saved import unpack
from regrow.engine.wrappers import unwrap

__all__ = ["VERSION", "check_state"]

VERSION = 1
Shapes = Mapping[str, tuple[int, ...] | None]

_PARTS = ("settings", "store", "fresh", "samples", "tasks", "active", "learning")
_TASK_PARTS = {"name", "classes", "masks", "own", "means", "spread"}


def check_state(state: Any, settings: Mapping[str, Any], view: View) -> None:
    """Raise ValueError unless a state fits a network.

    Args:
        state: what was saved.
        settings: of the network, which the saved ones have to equal.
        view: its model and store.
    """
    if not isinstance(state, Mapping) or state.get("version") != VERSION:
        raise ValueError(f"state: it is no state of a TaskNetwork of version {VERSION}")
    if missing := [part for part in _PARTS if part not in state]:
        raise ValueError(f"state: {', '.join(missing)} is missing: it is damaged")
    for key, value in settings.items():
        if (saved := state["settings"].get(key)) != value:
            raise ValueError(f"state: {key} was {saved!r}, but is {value!r} here: use the same")
    tasks, learning = state["tasks"], state["learning"]
    present = own_tensors(unwrap(view.model), view.shapes)
    own: Shapes = {name: tuple(t.shape) for name, t in present.items() if not view.of_head(name)}
    heads = [name for name in present if view.of_head(name)]
    _check_tensors("store", state["store"], view.shapes)
    _check_tensors("fresh", state["fresh"], own)
    _check_tensors("samples", state["samples"], dict.fromkeys([*view.shapes, *heads]))
    for number, task in enumerate(tasks):
        if not isinstance(task, Mapping) or task.keys() != _TASK_PARTS or not task["classes"]:
            raise ValueError(f"state: task {number} is damaged")
        of_task = {**own, **_head_shapes(heads, len(task["classes"]), view.head.in_features)}
        if number == len(tasks) - 1 and learning is not None:
            _check_tensors("learning", learning["values"], {**view.shapes, **of_task})
        else:
            _check_masks(number, task["masks"], view.shapes)
            _check_tensors(f"task {number}", task["own"], of_task)
    active = state["active"]
    if active is not None and not (isinstance(active, int) and 0 <= active < len(tasks)):
        raise ValueError(f"state: active is {active!r}, of {len(tasks)} tasks: it is damaged")


def _head_shapes(names: Iterable[str], classes: int, features: int) -> Shapes:
    return {n: (classes,) if n.endswith(".bias") else (classes, features) for n in names}


def _check_masks(number: int, masks: Any, shared: Mapping[str, tuple[int, ...]]) -> None:
    _check_names(f"masks of task {number}", masks, shared)
    for name, shape in shared.items():
        try:
            unpack(masks[name], shape)
        except ValueError as error:
            raise ValueError(f"state: mask {name} of task {number}: {error}") from None


def _check_tensors(what: str, tensors: Any, shapes: Shapes) -> None:
    _check_names(what, tensors, shapes)
    for name, shape in shapes.items():
        value = tensors[name]
        if not isinstance(value, Tensor) or (shape is not None and tuple(value.shape) != shape):
            given = tuple(value.shape) if isinstance(value, Tensor) else repr(value)
            raise ValueError(f"state: {what}: {name} is {given}, but {shape} is needed")


def _check_names(what: str, given: Any, needed: Iterable[str]) -> None:
    names = set(given) if isinstance(given, Mapping) else set()
    if odd := sorted(names ^ set(needed)):
        raise ValueError(f"state: {what} does not fit this model: see {', '.join(odd[:5])}")
