"""Gathers arrays of different lengths from all ranks, bit for bit, and broadcasts the first's."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist

__all__ = ["from_first", "gather", "several"]

Array = npt.NDArray[Any]


def gather(values: Array) -> list[Array]:
    """Return the arrays of all ranks, in order of rank; each rank has to call it.

    They travel as bytes, so that no id is ever cast.

    Args:
        values: one dimension; of one dtype on all ranks, of any length.

    Example:
        >>> [one.tolist() for one in gather(np.array([2**60 + 1]))]
        [[1152921504606846977]]
    """
    if not several():
        return [values]
    own = _bytes(values)
    sizes = [torch.zeros(1, dtype=torch.int64, device=own.device) for _ in range(_ranks())]
    dist.all_gather(sizes, torch.tensor([own.numel()], device=own.device))
    longest = max(int(size) for size in sizes)
    padded = torch.zeros(longest, dtype=torch.uint8, device=own.device)
    padded[: own.numel()] = own
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded)
    cut = [part[: int(size)].cpu().numpy() for part, size in zip(parts, sizes, strict=True)]
    return [part.view(values.dtype) for part in cut]


def from_first(values: Array) -> Array:
    """Return the first rank's array, of the same length and dtype on all; each rank has to call it.

    Example:
        >>> from_first(np.array([1, 2])).tolist()
        [1, 2]
    """
    if not several():
        return values
    sent = _bytes(values)
    dist.broadcast(sent, 0)
    return sent.cpu().numpy().view(values.dtype)


def several() -> bool:
    """Return whether several processes train together.

    Example:
        >>> several()
        False
    """
    return dist.is_available() and dist.is_initialized() and _ranks() > 1


def _ranks() -> int:
    return dist.get_world_size()


def _bytes(values: Array) -> torch.Tensor:
    flat = np.ascontiguousarray(values).copy().view(np.uint8)
    # Everything but NCCL and its kin can send what lies on the host.
    backend = str(dist.get_backend())
    if backend in ("nccl", "xccl", "hccl"):
        return torch.from_numpy(flat).to(torch.accelerator.current_accelerator() or "cpu")
    return torch.from_numpy(flat)
