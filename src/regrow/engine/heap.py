"""Gives freed memory back to the operating system."""

from __future__ import annotations

import ctypes
import sys

__all__ = ["give_back"]


def give_back() -> None:
    """Return what was freed to the operating system, where the C library has a call for it.

    glibc keeps freed arrays of up to 32 MiB for itself. After an update that has gone through a
    few copies of a topology, it would hold as much memory as the network.

    Example:
        >>> give_back()
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
