"""What a GPU can do for a block-sparse layer: in which arithmetic, and how tiles are fetched."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from regrow.execution.block import kernels
from regrow.execution.block.tiles import KERNEL_BLOCKS, precision

__all__ = ["KEPT", "arithmetic", "dot", "even", "has_tma", "processors", "tma"]

# What was chosen is kept, as a step of training asks the same again: so many choices, where the
# number of tokens never repeats.
KEPT = 4096


def arithmetic(x: Tensor, block: int) -> str:
    """Name the arithmetic of products with x, see :func:`precision`.

    Raises:
        ImportError: there is no Triton.
        ValueError: there are no kernels for blocks of this side.
    """
    if not kernels.available:
        raise ImportError(
            "block-sparse layers on a GPU need Triton, which torch's CUDA builds for Linux bring "
            "along; where it is missing: pip install triton"
        )
    if block not in KERNEL_BLOCKS:
        raise ValueError(f"block={block}: on a GPU it must be one of {KERNEL_BLOCKS}")
    return precision(x.dtype)


def even(n_tokens: int, tokens: int, shape: tuple[int, int], block: int) -> bool:
    """Say whether no tile reaches beyond the activations, so that masks can be left out."""
    return not (n_tokens % tokens or shape[0] % block or shape[1] % block)


def dot(arithmetic: str) -> str:
    """Name what Triton calls the arithmetic of a product of tiles."""
    return "ieee" if arithmetic == "ieee" else "tf32"


@functools.cache
def processors(device: torch.device) -> int:
    """Count the multiprocessors of a GPU."""
    if device.type != "cuda":  # the interpreter
        return 132
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


@functools.cache
def has_tma(device: torch.device) -> bool:
    """Say whether a GPU has an engine that copies tiles: from compute capability 9.0 on."""
    if device.type != "cuda" or torch.version.hip:
        return False
    return torch.cuda.get_device_capability(device) >= (9, 0)


def tma(arithmetic: str, *matrices: Tensor) -> bool:
    """Say whether the GPU's copy engine can fetch tiles: rows and start must lie on 16 bytes."""
    if arithmetic == "ieee" or not has_tma(matrices[0].device):
        return False
    for matrix in matrices:
        if matrix.data_ptr() % 16 or matrix.shape[-1] * matrix.itemsize % 16:
            return False
    return True
