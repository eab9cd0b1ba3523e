"""Chooses what computes csr layers: the C kernels for one instruction set, or torch."""

from __future__ import annotations

import functools
from types import ModuleType

from regrow.execution.csr import fallback
from regrow.execution.csr.native import SETS, library

__all__ = ["available", "in_use", "kernels", "tile", "use"]


def available() -> list[str]:
    """Return what this machine can compute with, the fastest first; the last is always "torch"."""
    loaded = library()
    sets = [loaded.regrow_set(number) for number in reversed(range(SETS))] if loaded else []
    return [name.decode() for name in sets if name] + ["torch"]


_chosen: str | None = None


def in_use() -> str:
    """Return what computes now: "avx512bf16", "avx512", "avx2", "neon", "portable" or "torch"."""
    return _chosen or available()[0]


def tile() -> tuple[int, int]:
    """Return the floats in a vector of the instruction set in use, and the vectors in its tile."""
    loaded = library()
    return (loaded.regrow_lanes(), loaded.regrow_largest()) if loaded else (1, 1)


def use(name: str) -> None:
    """Compute with `name` from now on; tests and benchmarks ask for what is not the fastest.

    Raises:
        ValueError: this machine does not have it.
    """
    global _chosen  # noqa: PLW0603
    names = available()
    if name not in names:
        raise ValueError(f"name={name!r} is not available here; allowed are {names}")
    loaded = library()
    for number in range(SETS):
        if loaded and (loaded.regrow_set(number) or b"").decode() == name:
            loaded.regrow_use(number)
    _chosen = name
    kernels.cache_clear()


@functools.cache
def kernels() -> ModuleType:
    """Return the module that computes: `products` over the C library, or `fallback`."""
    if in_use() == "torch":
        return fallback
    from regrow.execution.csr import products  # noqa: PLC0415 it binds the library when imported

    return products
