"""Which weights a topology can be put on: of enough bits, with values, not sparse already."""

from __future__ import annotations

import gc
from collections.abc import Mapping

from torch import Tensor

from regrow.engine.gradients import LIVE

__all__ = ["check_dtypes", "check_not_sparse", "not_on_meta"]


def check_dtypes(weights: Mapping[str, Tensor]) -> None:
    """Raise ValueError if a weight has 8 bits: torch neither multiplies nor compares those."""
    small = {n: w.dtype for n, w in weights.items() if w.is_floating_point() and w.itemsize == 1}
    if small:
        listed = ", ".join(f"{name} ({dtype})" for name, dtype in small.items())
        raise ValueError(
            f"8-bit weights cannot be masked: {listed}. Train them in bfloat16 or float32 and "
            "convert the model afterwards, or exclude them"
        )


def check_not_sparse(weights: Mapping[str, Tensor]) -> None:
    """Raise ValueError if a sparsifier holds one of these weights already."""

    def taken() -> set[int]:
        return {id(p) for gradients in LIVE for p in gradients.topology.present()}

    again = [name for name, weight in weights.items() if id(weight) in taken()]
    if again:
        gc.collect()  # sparsifier and optimizer refer to each other
        again = [name for name, weight in weights.items() if id(weight) in taken()]
    if again:
        raise ValueError(
            f"model is sparse already ({', '.join(again)}): call remove() on its Sparsifier first"
        )


def not_on_meta(name: str, weight: Tensor) -> Tensor:
    """Return a weight; raise ValueError if it has no values."""
    if weight.is_meta:
        raise ValueError(
            f"{name} is on the meta device, and masks need values: give the model memory and "
            "weights first, by to_empty() and its own initialisation, or store active weights "
            "only, by execution='csr' or 'block'"
        )
    return weight
