"""The libraries behind PyTorch's semi-structured products: cuSPARSELt, and CUTLASS.

Both multiply a packed weight (out, in), of which every four consecutive inputs hold two nonzeros,
by dense activations. Triton has no product for sparse tensor cores.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

__all__ = ["Packed", "library", "pack", "product", "why_dense"]

# A packed weight: values and places in one tensor, or values, places (CUTLASS).
Packed = tuple[Tensor, ...]

_HALVES = (torch.bfloat16, torch.float16)
# The sizes of a weight must be multiples of these; rows of activations of eight.
_MULTIPLES = {"cuSPARSELt": (16, 16), "CUTLASS": (32, 64)}
_TOKENS = 8


@functools.cache
def library(device: torch.device) -> str | None:
    """Return what multiplies 2:4 weights on a device: "cuSPARSELt", "CUTLASS" or None.

    Example:
        >>> library(torch.device("cpu")) is None
        True
    """
    if device.type != "cuda" or torch.version.cuda is None:
        return None
    capability = torch.cuda.get_device_capability(device)
    if capability >= (8, 0) and torch.backends.cusparselt.is_available():
        return "cuSPARSELt"
    # Its kernels are those of the first tensor cores that were sparse.
    return "CUTLASS" if (8, 0) <= capability < (9, 0) else None


def why_dense(weight: Tensor, dtype: torch.dtype, found: str | None) -> str | None:
    """Return why a weight is multiplied as a dense one, or None if sparse tensor cores take it.

    Args:
        weight: (out, in).
        dtype: that is computed in.
        found: the :func:`library` of its device.

    Example:
        >>> why_dense(torch.zeros(64, 64), torch.bfloat16, None)
        'it is on cpu: sparse tensor cores are those of NVIDIA GPUs from compute capability 8.0'
        >>> why_dense(torch.zeros(64, 40), torch.bfloat16, "cuSPARSELt")
        'its shape is (64, 40): cuSPARSELt needs outputs by multiples of 16, inputs of 16'
    """
    if found is None:
        return (
            f"it is on {weight.device}: sparse tensor cores are those of NVIDIA GPUs from compute "
            "capability 8.0"
        )
    if dtype not in _HALVES:
        return f"it is computed in {dtype}: bfloat16 or float16 are needed, or autocast to them"
    rows, columns = _MULTIPLES[found]
    if (
        weight.ndim != 2
        or not weight.numel()
        or weight.shape[0] % rows
        or weight.shape[1] % columns
    ):
        return (
            f"its shape is {tuple(weight.shape)}: {found} needs outputs by multiples of {rows}, "
            f"inputs of {columns}"
        )
    return None


def pack(weight: Tensor) -> Packed:
    """Pack a 2:4 weight (out, in) for :func:`product`.

    Args:
        weight: contiguous, and such that :func:`why_dense` is None; of four inputs, two nonzeros
            at most. More would be lost.
    """
    if library(weight.device) == "cuSPARSELt":
        return (torch._cslt_compress(weight),)
    held: Any = torch.sparse.SparseSemiStructuredTensorCUTLASS.from_dense(weight)
    return held.packed, held.meta


def product(x: Tensor, packed: Packed, bias: Tensor | None, out_features: int) -> Tensor:
    """Compute Y = X·Wᵀ + bias with a packed W: (tokens, in) → (tokens, out), contiguous.

    Args:
        x: (tokens, in), of the dtype that was packed.
        packed: from :func:`pack`.
        bias: (out,) or None.
        out_features: out.
    """
    tokens = len(x)
    if not tokens:
        return x.new_empty(0, out_features)
    x = torch.nn.functional.pad(x, (0, 0, 0, -tokens % _TOKENS)).contiguous()
    y = _by_cusparselt(x, packed[0], bias) if len(packed) == 1 else _by_cutlass(x, packed, bias)
    return y[:tokens].contiguous()


def _by_cutlass(x: Tensor, packed: Packed, bias: Tensor | None) -> Tensor:
    kernels: Any = torch
    found: Tensor = (
        kernels._sparse_semi_structured_mm(*packed, x.t())
        if bias is None
        else kernels._sparse_semi_structured_addmm(bias, *packed, x.t())
    )
    return found.t()


def _by_cusparselt(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    # Transposed on its way out, so that what follows finds ordinary activations. The fastest
    # algorithm is not searched: of torch 2.11, on an H200, the search ends in an illegal
    # instruction, after which the process can compute nothing more.
    found: Tensor = torch._cslt_sparse_mm(
        packed,
        x.t(),
        bias=bias,
        transpose_result=True,
    )
    return found
