"""The record of a run: its updates and step count, and how they are read from a saved state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from regrow.engine.changes import LayerChange

__all__ = ["Progress", "Update", "read_progress"]

VERSION = 1


@dataclass(frozen=True)
class Update:
    """One update of the topology.

    Args:
        step: the optimizer step it fell on, counted from 1.
        layers: what happened in each layer, by name.
        read_gradients: whether it needed the gradients of inactive weights.
    """

    step: int
    layers: dict[str, LayerChange]
    read_gradients: bool


@dataclass(frozen=True)
class Progress:
    """How far a run has come.

    Args:
        steps: optimizer steps made.
        total_steps: the length of the run.
        seed: of all random choices.
        history: every update so far.
    """

    steps: int
    total_steps: int
    seed: int
    history: list[Update]

    def state_dict(self) -> dict[str, Any]:
        """Return it as numbers, lists and dicts."""
        return {
            "steps": self.steps,
            "total_steps": self.total_steps,
            "seed": self.seed,
            "history": [asdict(update) for update in self.history],
        }


def read_progress(state: Mapping[str, Any], method: str) -> Progress:
    """Read how far a saved run has come; the layers' part of the state is left to the layers.

    Args:
        state: from ``Sparsifier.state_dict()``.
        method: the name of the method it must be of.

    Raises:
        ValueError: a part is missing or damaged, or of another version or method.

    Example:
        >>> state = {"version": 1, "method": "SET", "layers": {}}
        >>> state |= Progress(steps=3, total_steps=9, seed=0, history=[]).state_dict()
        >>> read_progress(state, "SET").steps
        3
    """
    if not isinstance(state, Mapping):
        raise ValueError(f"state={state!r}: it is no state of a Sparsifier")
    for key in ("version", "method", "steps", "total_steps", "seed", "history", "layers"):
        if key not in state:
            raise ValueError(f"state: {key} is missing: it is no state of a Sparsifier")
    for key, needed in (("version", VERSION), ("method", method)):
        if state[key] != needed:
            raise ValueError(f"state: {key} is {state[key]!r}, but {needed!r} is needed")
    steps, total, seed = (_number(state, key) for key in ("steps", "total_steps", "seed"))
    if not isinstance(state["history"], list):
        raise ValueError(f"state: history is {state['history']!r}, but a list is needed")
    return Progress(steps, total, seed, [_read_update(one) for one in state["history"]])


def _number(state: Mapping[str, Any], key: str) -> int:
    value = state[key]
    # bool is an int in Python, and True would pass as a step count.
    if isinstance(value, bool) or not isinstance(value, int) or (key != "seed" and value < 0):
        raise ValueError(f"state: {key} is {value!r}, but a number is needed")
    return value


def _read_update(saved: Any) -> Update:
    try:
        # An unknown field means a newer version, and a missing one damage: neither is to be read as
        # far as it goes.
        _require_fields(saved, Update)
        layers = {name: _read_change(change) for name, change in saved["layers"].items()}
        return Update(_number(saved, "step"), layers, bool(saved["read_gradients"]))
    except (TypeError, AttributeError) as error:
        raise ValueError(f"state: history holds {saved!r}: it is damaged") from error


def _read_change(saved: Any) -> LayerChange:
    _require_fields(saved, LayerChange)
    return LayerChange(**{key: _number(saved, key) for key in saved})


def _require_fields(saved: Any, kind: type[Update] | type[LayerChange]) -> None:
    if {field.name for field in fields(kind)} != set(saved):
        raise TypeError(f"{saved!r} is no {kind.__name__}")
