"""Refuses a step that is captured in a CUDA graph while the topology still has to move."""

from __future__ import annotations

import torch

__all__ = ["refuse_capture"]


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
            "step once the last update is made"
        )
