"""Train neural networks on less: fewer weights, features, samples, pixels.

>>> import torch, regrow
>>> model = torch.nn.Linear(64, 10)
>>> optimizer = torch.optim.AdamW(model.parameters())
>>> sparse = regrow.sparsify(model, optimizer, regrow.RigL(density=0.1), total_steps=1000)

The training loop stays as it was: ``optimizer.step()`` drives the topology.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from regrow.engine.backends import Backend, register

if TYPE_CHECKING:
    from regrow.names import *  # noqa: F403
    from regrow.names import __all__ as __all__

try:
    __version__ = version("regrow")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    """Bring in a name of the library, or one of its packages, when it is first asked for.

    Importing torch takes a second, which neither ``regrow --help`` nor a script that only looks at
    ``regrow.__version__`` should wait for.
    """
    if name == "__all__" or (name.isidentifier() and not name.startswith("_")):
        if find_spec(f"regrow.{name}") is not None:
            return import_module(f"regrow.{name}")
        names = import_module("regrow.names")
        globals().update({one: getattr(names, one) for one in ("__all__", *names.__all__)})
        if name in globals():
            return globals()[name]
    raise AttributeError(f"module 'regrow' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__getattr__("__all__")})


def _later(where: str) -> Any:
    """Return a function that is imported when it is called."""

    def call(*layers: Any) -> Any:
        return resolve_name(where)(*layers)

    return call


_convert = _later("regrow.execution.convert:convert")
_leaves = _later("regrow.execution.convert:left_masked")
# The engine cannot import what stands above it.
register("csr", Backend(_convert, leaves=_leaves))
register("block", Backend(_convert, leaves=_leaves))
register("2:4", Backend(_convert, stores=False, leaves=_leaves))
register("auto", Backend(_convert, _later("regrow.execution.choose:choose"), stores=False))
