"""Gives freed memory back to the operating system."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from regrow.engine.sparse_layer import SparseLayer

__all__ = ["give_back"]

_MANY = 1 << 20  # active units whose bookkeeping is worth returning to the system


def give_back(layers: Sequence[SparseLayer] | None = None) -> None:
    """Return what was freed to the operating system, where the C library has a call for it.

    glibc keeps freed arrays of up to 32 MiB for itself. An update goes through a few copies of a
    topology: without this it would hold as much memory as the network.

    Args:
        layers: unless those that are stored hold many units nothing is done, which would take
            longer than the memory is worth; None: it is done in any case.

    Example:
        >>> give_back()
    """
    if layers is not None and sum(one.active for one in layers if one.stored) < _MANY:
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
