"""What callbacks of trainers have in common: a training begins, perhaps not for the first time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from regrow.engine.method import Method
from regrow.engine.sharding import local
from regrow.engine.sparsifier import Sparsifier
from regrow.engine.sparsify import sparsify

__all__ = ["Adapter"]


class Adapter:
    """Makes a model sparse when its training begins, and lets go of it at the end.

    Another training of the same model starts from the topology at hand: the weights outside it are
    zero, and a new random one would throw away most of what was learned.

    Args:
        method: such as ``regrow.RigL(density=0.1)``.
        **options: passed on to :func:`regrow.sparsify`, such as ``exclude``.

    Attributes:
        sparse: the sparsifier, from the start of training on; detached at its end.
        loaded: its state in the checkpoint that the next training goes on from, if there is one.
        averages: averages of the model's weights, such as an ``AveragedModel``: append yours, and
            they are kept as sparse as the weights.

    Example:
        >>> import torch, regrow
        >>> model, adapter = nn.Linear(8, 4), Adapter(regrow.SET(density=0.25))
        >>> adapter.begin(model, torch.optim.SGD(model.parameters(), lr=0.1), 0, 1000)
        >>> first = adapter.sparse.masks["weight"]
        >>> adapter.begin(model, torch.optim.SGD(model.parameters(), lr=0.1), 0, 1000)
        >>> adapter.sparse.masks["weight"].equal(first)
        True
    """

    sparse: Sparsifier | None = None
    loaded: Mapping[str, Any] | None = None

    def __init__(self, method: Method, **options: Any) -> None:
        self.method = method
        self.options = options
        self.averages: list[nn.Module] = []
        self._averaged = -1  # updates of the topology that averages have followed

    def begin(
        self, model: nn.Module, optimizer: Optimizer, global_step: int, total_steps: float
    ) -> None:
        """Make the model sparse.

        Args:
            model: what is trained, on its device.
            optimizer: what drives the topology.
            global_step: the trainer's steps so far; 0 is a new run, whose schedules begin again.
            total_steps: of the whole run, unless the options say otherwise.

        Raises:
            ValueError: the run has no end, the weights are not those of the topology that the last
                training ended with, or sparsify refuses something.
        """
        if "total_steps" not in self.options and not 0 < total_steps < float("inf"):
            raise ValueError(
                f"total_steps={total_steps}: schedules need a run with an end; set the trainer's "
                "max_epochs or max_steps, or pass total_steps"
            )
        state, self.loaded = self.loaded, None
        if self.sparse is not None:
            self.sparse.remove()
            state = state or _state_of(self.sparse, model, global_step)
        options = {"total_steps": total_steps, "state": state} | self.options
        self.sparse = sparsify(model, optimizer, self.method, **options)
        self._averaged = -1

    def mask_averages_(self, *more: nn.Module, always: bool = False) -> None:
        """Set the dropped weights of averages to zero.

        Args:
            *more: averages beside ``averages``.
            always: also if the topology has not moved since the last call.
        """
        if self.sparse is None or not (always or self._averaged != len(self.sparse.history)):
            return
        self._averaged = len(self.sparse.history)
        for average in (*self.averages, *more):
            self.sparse.apply_to_(average)

    def end(self) -> None:
        """Detach from the optimizer."""
        if self.sparse is not None:
            self.sparse.remove()


def _state_of(sparse: Sparsifier, model: nn.Module, global_step: int) -> dict[str, Any] | None:
    """Return what a training of the same model goes on from; None if the model is another."""
    if not {id(w) for w in sparse.weights()} <= {id(p) for p in model.parameters()}:
        return None
    # Compared by content: the model may be the same and its weights those of another checkpoint.
    masks = sparse.masks
    if strays := {n: k for n, mask in masks.items() if (k := _outside(model, n, mask))}:
        counted = ", ".join(f"{n}: {k} weights outside its mask" for n, k in strays.items())
        raise ValueError(
            f"the model's weights are not those of the topology that the last training ended with "
            f"({counted}): if they are of a checkpoint, give its topology too, callback.loaded = "
            "its saved state of the Sparsifier; to keep the last masks, callback.sparse."
            "apply_to_(model); to begin with a new topology, callback.sparse = None"
        )
    state = sparse.state_dict()
    return state if global_step else state | {"steps": 0, "history": []}


def _outside(model: nn.Module, name: str, mask: Tensor) -> int:
    weight = local(model.get_parameter(name).detach())
    # A stored layer holds nothing outside; a sharded one its own part.
    if weight.shape != mask.shape:
        return 0
    return int((weight[~mask.to(weight.device)] != 0).sum())
