"""The registry of execution backends: ways to compute a sparse layer that are not a mask."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from regrow.engine.checks import check_choice
from regrow.engine.method import Method
from regrow.engine.planned import Plan
from regrow.engine.sparse_layer import SparseLayer

__all__ = ["MASKED", "Backend", "find_backend", "register"]

MASKED = "masked"  # dense weights times masks: the engine's own way, and no backend

_BACKENDS: dict[str, Backend] = {}


class Backend(ABC):
    """Replaces dense layers of a model by its own.

    The engine stands below every backend and imports none: :mod:`regrow` registers them.

    Args:
        name: what ``sparsify(execution=...)`` calls it.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def assign(
        self, model: nn.Module, optimizer: Optimizer, method: Method, plan: Plan, inputs: Any
    ) -> Plan:
        """Return the plan with how each layer is to be computed; here, all by this backend.

        Args:
            model: holds the dense layers.
            optimizer: holds their weights.
            method: whose topology the layers will follow.
            plan: which layers, how dense.
            inputs: an example batch, or None.
        """
        layers = (replace(layer, execution=self.name) for layer in plan.layers)
        return Plan(tuple(layers), plan.skipped)

    @abstractmethod
    def convert(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        method: Method,
        plan: Plan,
        seed: int,
        first: Mapping[str, Tensor],
        state: Mapping[str, Any] | None,
    ) -> Mapping[str, SparseLayer]:
        """Replace, in place, every layer that is not planned as masked; all of them or none.

        Args:
            model: holds the dense layers.
            optimizer: holds their weights; gets the new parameters in their place.
            method: whose topology the layers will follow.
            plan: as :meth:`assign` has returned it.
            seed: draws the first topology, as for masks.
            first: the first active units, where a start has chosen them.
            state: saved layers to resume from.

        Returns:
            The new layers, by the weight's name.

        Raises:
            ValueError: a layer, or the method, cannot run this way.
        """


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
