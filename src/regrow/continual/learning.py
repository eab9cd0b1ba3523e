"""The state of the task being learnt, put aside while another task is active."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from regrow.continual.views import View
from regrow.engine.method import Method
from regrow.engine.sparsifier import Sparsifier

__all__ = ["Learning"]


@dataclass
class Learning:
    """The task that is being learnt.

    Args:
        task: its number.
        density: asked for, in place of the method's.
        method: with what this task may take.
        head: stays the same while other tasks are shown.
        sparse: once it is sparse.
        state: of the sparsifier to resume from.
        parked: all tensors of the model, while another task is shown.
        training: the model's mode, then.
    """

    task: int
    density: float | Mapping[str, float] | None
    method: Method
    head: nn.Linear
    sparse: Sparsifier | None = None
    state: Mapping[str, Any] | None = None
    parked: dict[str, Tensor] | None = None
    training: bool = True

    def topology(self) -> Sparsifier:
        """Return the sparsifier, or raise RuntimeError."""
        if self.sparse is None:
            raise RuntimeError(f"task {self.task} has no topology yet: call sparsify() first")
        return self.sparse

    def park(self, view: View) -> None:
        """Put aside what the model shows, for another task to be shown."""
        if self.parked is None:
            self.parked, self.training = view.everything(), view.model.training

    def unpark(self, view: View) -> None:
        """Show it again, in the same parameters, so that the optimizer goes on."""
        if self.parked is not None:
            view.show_values(self.parked, self.head)
            view.model.train(self.training)
            self.parked = None

    def state_dict(self, view: View) -> dict[str, Any]:
        """Return all that is needed to go on: tensors, numbers, lists and dicts."""
        return {
            "density": self.density,
            "values": dict(self.parked or view.everything()),
            "sparse": self.sparse.state_dict() if self.sparse else self.state,
        }
