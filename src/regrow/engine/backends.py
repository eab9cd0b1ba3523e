"""The registry of execution backends: ways to compute a sparse layer that are not a mask."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from regrow.engine.checks import check_choice

if TYPE_CHECKING:  # torch is slow to import, and regrow registers backends without it
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from regrow.engine.method import Method
    from regrow.engine.planned import Plan
    from regrow.engine.sparse_layer import SparseLayer

__all__ = ["MASKED", "Assign", "Backend", "Convert", "Leaves", "find_backend", "register", "stores"]

MASKED = "masked"  # dense weights times masks: the engine's own way, and no backend

Convert: TypeAlias = Callable[
    [
        "nn.Module",
        "Optimizer",
        "Method",
        "Plan",
        int,
        "Mapping[str, Tensor]",
        "Mapping[str, Any] | None",
    ],
    "Mapping[str, SparseLayer]",
]
"""Replaces every layer of a model that is not planned as masked, and returns the new ones by name.

Called with model, optimizer, method, plan, seed, the first active units where a start has chosen
them, and saved layers to resume from. All layers are replaced, in place, or none: it raises
ValueError if a layer, or the method, cannot run this way.
"""

Assign: TypeAlias = Callable[["nn.Module", "Optimizer", "Method", "Plan", Any], "Plan"]
"""Returns the plan with how each layer is to be computed.

Called with model, optimizer, method, plan, and an example batch or None; changes nothing.
"""


Leaves: TypeAlias = Callable[["nn.Module", "Plan"], Mapping[str, str]]
"""Returns why layers of a plan stay under a mask, by name: those that no backend can replace."""


class Backend(NamedTuple):
    """A way to compute sparse layers.

    Args:
        convert: replaces dense layers by its own.
        assign: chooses which; None: all.
        stores: whether its layers store something else than the dense weight.
        leaves: names those that stay masked where all others are replaced; None: none.
    """

    convert: Convert
    assign: Assign | None = None
    stores: bool = True
    leaves: Leaves | None = None


_BACKENDS: dict[str, Backend] = {}


def register(name: str, backend: Backend) -> None:
    """Let ``sparsify(execution=name)`` find a backend, in place of any other of this name.

    The engine stands below every backend and imports none: :mod:`regrow` registers them.

    Raises:
        ValueError: the name is "masked".
    """
    if name == MASKED:
        raise ValueError(f"name={MASKED!r} is the engine's own way: give another")
    _BACKENDS[name] = backend


def stores(name: str) -> bool:
    """Tell whether layers computed this way store something else than the dense weight.

    Example:
        >>> stores("masked")
        False
    """
    backend = _BACKENDS.get(name)
    return backend is not None and backend.stores


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
