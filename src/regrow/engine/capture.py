"""Steps that are captured in a CUDA graph: refused where the topology would stay behind."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from regrow.engine.checks import check_integer
from regrow.engine.clock import Clock
from regrow.engine.method import Method
from regrow.engine.topology import Topology

__all__ = ["check_advance", "check_capturable", "check_replayed", "must_launch", "refuse_capture"]


def refuse_capture(method: str, next_update: int | None) -> None:
    """Raise RuntimeError if a CUDA graph is being captured and an update lies ahead.

    A replay calls no Python, so no hook: the topology would stay as it is for ever, in silence.

    Args:
        method: its name, for the error.
        next_update: the step of the next update; None if there is none, and masks may be captured.

    Example:
        >>> refuse_capture("RigL", 100)  # nothing is being captured
    """
    # Whether CUDA is in use at all is the cheapest question, and builds without it have no other.
    if next_update is None or not torch.cuda.is_initialized():
        return
    if torch.cuda.is_current_stream_capturing():
        raise RuntimeError(
            f"{method} updates the topology at step {next_update}, but optimizer.step() is being "
            "captured in a CUDA graph, whose replays would never call it: capture the forward and "
            "backward pass only and call optimizer.step() outside the graph, or capture the whole "
            "step inside 'with sparse.captured():' and call sparse.advance_() after each replay, "
            "or capture it once the last update is made"
        )


def check_capturable(method: Method, topology: Topology) -> None:
    """Raise RuntimeError if replays of a step could not do what a method does at every step.

    Args:
        method: which may follow every step.
        topology: whose layers may be stored, with a number of weights that moves.
    """
    if method.observes is not None or topology.prepares:
        raise RuntimeError(
            f"{method.name} on these layers acts at every step, which replays of a CUDA graph "
            "would not call: capture the passes only, and step outside the graph"
        )
    stored = [layer for layer in topology.layers if layer.stored]
    if moving := [layer.name for layer in stored if layer.planned.initial != layer.planned.final]:
        raise RuntimeError(
            f"{method.name} changes how many weights {', '.join(moving)} stores, and replays of a "
            "CUDA graph would read memory that is gone: use execution='masked', a method of one "
            "density, or no graph"
        )


def must_launch(method: Method, topology: Topology, progress: float) -> bool:
    """Tell whether the next update reads what replays of its step would not gather.

    Stored layers gather what dense gradients are made of in launched passes only.

    Args:
        method: whose update it is.
        topology: that it moves.
        progress: of the update, from 0 to 1.
    """
    stored = any(layer.stored for layer in topology.layers)
    return stored and method.reads_inactive(topology.moves(method, progress).values())


def check_advance(steps: int, clock: Clock, method: Method, topology: Topology) -> bool:
    """Return whether an update is due after so many steps that were replayed.

    Raises:
        ValueError: they cannot be counted, see :func:`check_replayed`.
    """
    progress = clock.progress(clock.next)
    launched = partial(must_launch, method, topology, progress)
    check_replayed(steps, clock.steps, clock.next, launched=launched)
    return clock.steps + steps == clock.next


def check_replayed(
    steps: int, done: int, following: int | None, *, launched: Callable[[], bool] = lambda: False
) -> None:
    """Raise ValueError unless so many steps can be counted without passing an update over.

    Args:
        steps: that were replayed.
        done: steps before them.
        following: the step of the next update; None: there is none.
        launched: tells whether the step of that update has to be launched, not replayed; is asked
            where the steps reach it.

    Example:
        >>> check_replayed(5, 2, 6)
        Traceback (most recent call last):
        ValueError: steps=5: must be at least 1 and at most 4, up to the next update
    """
    check_integer(steps, "steps", 1)
    if following is None:
        return
    room = following - done
    if 1 <= steps < room:
        return
    apart = launched()
    room -= apart
    if 1 <= steps <= room:
        return
    if apart and steps == room + 1:
        raise ValueError(
            f"steps={steps}: step {following} is an update that grows stored weights by their "
            f"gradients, which replays gather nothing for: after {room} replays launch the passes "
            "and optimizer.step() once outside the graph, which counts the step itself"
        )
    raise ValueError(f"steps={steps}: must be at least 1 and at most {room}, up to the next update")
