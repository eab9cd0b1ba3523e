"""Operations on ascending lists of positions: locate, merge, write as bits.

Everything takes time linear in the number of positions. Short lists do not need the C library.
"""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from regrow.execution.csr import dispatch, fallback

__all__ = ["locate", "mark", "merge", "narrow"]

_FEW = 1 << 14


def narrow(positions: Tensor, n: int) -> Tensor:
    """Return positions below n in half the bytes, if n allows it.

    Example:
        >>> narrow(torch.tensor([3]), 10).dtype
        torch.int32
    """
    return positions.to(torch.int32) if n < 2**31 else positions


def locate(before: Tensor, after: Tensor) -> tuple[Tensor, int]:
    """Find each number of one ascending list in another; also count those that are there.

    Returns:
        For every number of ``after`` its place in ``before``, -1 where it has none; and the count.

    Example:
        >>> locate(torch.tensor([1, 4]), torch.tensor([0, 4]))
        (tensor([-1,  1]), 1)
    """
    places: tuple[Tensor, int] = _kernels(before, after).locate(before, after)
    return places


def merge(a: Tensor, b: Tensor) -> Tensor:
    """Merge two ascending lists of one dtype.

    Example:
        >>> merge(torch.tensor([1, 4]), torch.tensor([2])).tolist()
        [1, 2, 4]
    """
    merged: Tensor = _kernels(a, b).merge(a, b)
    return merged


def mark(bits: Tensor, positions: Tensor) -> None:
    """Set bits in place, given bytes; bit p of byte q stands for position 8 q + p.

    Example:
        >>> bits = torch.zeros(2, dtype=torch.uint8)
        >>> mark(bits, torch.tensor([0, 9]))
        >>> bits.tolist()
        [1, 2]
    """
    _kernels(positions).mark(bits, positions)


def _kernels(*lists: Tensor) -> ModuleType:
    # Below this a call into C costs more than NumPy does; and the C code reads int32 only.
    few = sum(len(positions) for positions in lists) < _FEW
    wide = any(positions.dtype != torch.int32 for positions in lists)
    return fallback if few or wide else dispatch.kernels()
