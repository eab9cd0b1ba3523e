"""Handles weights alike whether or not they are sharded over ranks (FSDP2's DTensors)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["agree_on", "device_of", "laid_out_as", "like", "local", "whole"]


def whole(tensor: Tensor) -> Tensor:
    """Return the whole tensor, gathered from all ranks if it is sharded.

    Example:
        >>> whole(torch.ones(2)).tolist()
        [1.0, 1.0]
    """
    gather = getattr(tensor, "full_tensor", None)
    gathered: Tensor = tensor if gather is None else gather()
    return gathered


def local(tensor: Tensor) -> Tensor:
    """Return this rank's part of a tensor, sharing its memory.

    Example:
        >>> local(torch.ones(2)).tolist()
        [1.0, 1.0]
    """
    part: Tensor = getattr(tensor, "_local_tensor", tensor)
    return part


def like(tensor: Tensor, reference: Tensor) -> Tensor:
    """Shard a whole tensor as a reference is sharded; return it as it is if that is not.

    Every rank must hold the same whole tensor.

    Example:
        >>> like(torch.ones(2), torch.zeros(2)).tolist()
        [1.0, 1.0]
    """
    if not hasattr(reference, "full_tensor"):
        return tensor
    from torch.distributed.tensor import DTensor, distribute_tensor  # noqa: PLC0415  (slow)

    assert isinstance(reference, DTensor)
    sharded: Tensor = distribute_tensor(
        tensor.contiguous(), reference.device_mesh, reference.placements, src_data_rank=None
    )
    return sharded


def laid_out_as(reference: Tensor, tensor: Tensor) -> Tensor:
    """Return a tensor with the strides of another of its shape; the tensor itself if it has them.

    Example:
        >>> laid_out_as(torch.zeros(2, 3).t(), torch.ones(3, 2)).stride()
        (1, 3)
    """
    part, model = local(tensor), local(reference)
    if hasattr(tensor, "full_tensor") or part.stride() == model.stride():
        return tensor  # shards of parameters are contiguous, and so are those of masks
    strided = torch.empty_strided(
        model.size(), model.stride(), dtype=part.dtype, device=part.device
    )
    return strided.copy_(part)


def device_of(tensor: Tensor) -> torch.device:
    """Return the device a tensor's memory is on."""
    return local(tensor).device


def agree_on(tensors: Mapping[str, Tensor], flags: Mapping[str, Tensor]) -> list[str]:
    """Return the names whose flag is False, on any rank if tensors are sharded.

    Args:
        tensors: by name; the same names on every rank.
        flags: 0-dim bool tensors; a name without one (an empty part) counts as True.

    Example:
        >>> pair = {"a": torch.ones(1), "b": torch.ones(1)}
        >>> agree_on(pair, {"a": torch.tensor(True), "b": torch.tensor(False)})
        ['b']
    """
    first = next(iter(tensors.values()))
    true = torch.ones((), dtype=torch.bool, device=device_of(first))
    stacked = torch.stack([flags.get(name, true).to(true.device) for name in tensors])
    # A rank sees its own shard only. Were one to raise and the others go on, they would wait for it
    # for ever.
    if hasattr(first, "device_mesh"):
        agreed = stacked.int()
        for group in first.device_mesh.get_all_groups():
            torch.distributed.all_reduce(agreed, torch.distributed.ReduceOp.MIN, group=group)
        stacked = agreed.bool()
    return [name for name, good in zip(tensors, stacked.tolist(), strict=True) if not good]
