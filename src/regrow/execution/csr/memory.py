"""Memory that the C kernels write to: real, on the CPU, of a named type, whatever torch's defaults.

``torch.device("meta")``, ``set_default_device`` and ``set_default_dtype`` change what
``torch.empty`` makes; C would write to where there is no memory, or beyond its end.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from regrow.execution.stored_module import DENSE_WAY

__all__ = ["empty", "empty_strided", "plain"]


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Make an uninitialised tensor on the CPU.

    Args:
        shape: its sizes.
        dtype: float32, unless another is named.

    Raises:
        RuntimeError: tensors without memory are being made, as under FakeTensorMode.

    Example:
        >>> with torch.device("meta"):
        ...     empty(2, 3).device
        device(type='cpu')
    """
    return _real(torch.empty(shape, dtype=dtype, device="cpu"))


def empty_strided(shape: Sequence[int], strides: Sequence[int]) -> Tensor:
    """Make an uninitialised float32 tensor on the CPU with these strides, in numbers.

    Raises:
        RuntimeError: tensors without memory are being made, as under FakeTensorMode.
    """
    return _real(torch.empty_strided(shape, strides, dtype=torch.float32, device="cpu"))


def plain(x: Tensor) -> Tensor:
    """Return numbers that lie in memory one after the other, as they are; a copy if need be.

    Example:
        >>> plain(torch.arange(6.0)[::2]).stride()
        (1,)
    """
    # The imaginary part of a conjugate is a view whose memory holds the numbers' negatives.
    return x.resolve_neg().contiguous()


def _real(made: Tensor) -> Tensor:
    # A fake tensor says that it is on the CPU, too; only its class tells.
    if type(made) is not Tensor:
        raise RuntimeError(
            f"{type(made).__name__} has no memory: csr layers compute in C, on real numbers, so "
            f"that they cannot be traced, exported or run on fake tensors; {DENSE_WAY}"
        )
    return made
