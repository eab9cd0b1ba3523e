"""Feature-major activations: tensors [batch, features] whose batch lies contiguous in memory."""

from __future__ import annotations

from torch import Tensor

from regrow.execution.csr import memory
from regrow.execution.csr.dispatch import kernels

__all__ = [
    "batch_last",
    "empty",
    "empty_images",
    "feature_major",
    "images_like",
    "leading",
    "one_stride",
    "room_to_pack",
]

_LINE = 16  # floats in a cache line
_SMALL = 192


def leading(batch: int) -> int:
    """Return the distance of two features: a batch, padded where it would alias cache sets.

    Example:
        >>> leading(128), leading(512)
        (128, 528)
    """
    # With a distance of a multiple of 128 bytes, the same samples of many features fall into few
    # cache sets and push one another out.
    if batch < _SMALL or batch % (2 * _LINE):
        return batch
    return batch + _LINE


def empty(batch: int, features: int) -> Tensor:
    """Make an uninitialised float32 tensor [batch, features], stored feature-major."""
    return memory.empty_strided((batch, features), (1, leading(batch)))


def room_to_pack(x: Tensor, reuse: float = 0) -> Tensor | None:
    """Return memory for x [batch, features] stored feature-major; None if it is stored so.

    Args:
        x: any strides, more than one sample.
        reuse: how often each feature will be read; a layout that aliases cache sets is copied
            when that pays.
    """
    batch = x.shape[0]
    good = x.stride(0) == 1 and x.stride(1) >= batch
    if good and (reuse < _LINE or batch < _SMALL or x.stride(1) % (2 * _LINE)):
        return None
    return empty(*x.shape)


def feature_major(x: Tensor, reuse: float = 0) -> Tensor:
    """Return x [batch, features] stored feature-major: itself if it is, else a packed copy."""
    x = one_stride(x)
    packed = room_to_pack(x, reuse)
    return x if packed is None else kernels().pack(x, packed)


def one_stride(x: Tensor) -> Tensor:
    """Return x with definite strides, where a size of one leaves them arbitrary."""
    if 1 not in x.shape:
        return x
    batch = x.shape[0]
    strides = (1, x.stride(1)) if batch == 1 else (x.stride(0), batch * x.stride(0))
    return x.as_strided(x.shape, strides)


def empty_images(batch: int, channels: int, size: tuple[int, ...]) -> Tensor:
    """Make an uninitialised float32 tensor [batch, channels, *size] with the batch innermost."""
    strides = [batch]
    for extent in reversed((channels, *size)[1:]):
        strides.insert(0, strides[0] * extent)
    return memory.empty_strided((batch, channels, *size), (1, *strides))


def images_like(x: Tensor) -> Tensor:
    """Make uninitialised images of the shape of others, with the batch innermost."""
    return empty_images(x.shape[0], x.shape[1], tuple(x.shape[2:]))


def batch_last(x: Tensor) -> Tensor:
    """Return images x [batch, channels, ...] with the batch innermost: itself, or a packed copy."""
    x = x.resolve_neg()
    if x.stride(0) == 1 and min(x.stride()[1:]) >= len(x):
        return x
    order = [1, *range(2, x.dim())]
    if x.dim() > 3 and x.stride(1) == 1:  # channels last
        order = [*order[1:], 1]
    flat = x.permute(0, *order).flatten(1)
    packed = memory.empty_strided(flat.shape, (1, len(x)))
    kernels().pack(flat, packed)
    images = packed.view(len(x), *(x.shape[axis] for axis in order))
    return images.permute(0, *(order.index(axis) + 1 for axis in range(1, x.dim())))
