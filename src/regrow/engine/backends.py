"""The registry of execution backends: ways to compute a sparse layer that are not a mask."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn
from torch.optim import Optimizer

from regrow.engine.checks import check_choice
from regrow.engine.method import Method
from regrow.engine.planned import Plan
from regrow.engine.sparse_layer import SparseLayer

__all__ = ["MASKED", "Assign", "Backend", "Convert", "find_backend", "register"]

MASKED = "masked"  # dense weights times masks: the engine's own way, and no backend

_BACKENDS: dict[str, Backend] = {}


class Convert(Protocol):
    """Replaces, in place, every layer that is not planned as masked; all of them or none."""

    def __call__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        method: Method,
        plan: Plan,
        seed: int,
        first: Mapping[str, Tensor],
        state: Mapping[str, Any] | None,
    ) -> Mapping[str, SparseLayer]:
        """Replace the layers.

        Args:
            model: holds the dense layers.
            optimizer: holds their weights; gets the new parameters in their place.
            method: whose topology the layers will follow.
            plan: how each layer is to be computed.
            seed: draws the first topology, as for masks.
            first: the first active units, where a start has chosen them.
            state: saved layers to resume from.

        Returns:
            The new layers, by the weight's name.

        Raises:
            ValueError: a layer, or the method, cannot run this way.
        """


Assign = Callable[[nn.Module, Optimizer, Method, Plan, Any], Plan]
"""Returns the plan with how each layer is to be computed.

It is given what :class:`Convert` is given first, and an example batch, or None.
"""


@dataclass(frozen=True)
class Backend:
    """Replaces dense layers of a model by its own.

    The engine stands below every backend and imports none: :mod:`regrow` registers them.

    Args:
        name: what ``sparsify(execution=...)`` calls it.
        convert: replaces the layers.
        assign: says how each is to be computed; None: all by this backend.
    """

    name: str
    convert: Convert
    assign: Assign | None = None


def register(*backends: Backend) -> None:
    """Make backends known by their names, in place of any of the same name.

    Raises:
        ValueError: a backend is called "masked".
    """
    for backend in backends:
        if backend.name == MASKED:
            raise ValueError(f"name={MASKED!r} is the engine's own way: give another")
        _BACKENDS[backend.name] = backend


def find_backend(name: str) -> Backend | None:
    """Return a backend by its name; None for "masked", which needs none.

    Raises:
        ValueError: there is none of this name.

    Example:
        >>> find_backend("masked") is None
        True
    """
    check_choice(name, (MASKED, *_BACKENDS), "execution")
    return _BACKENDS.get(name)
