"""The restricted shift: channel groups move along one axis, so that flat kernels see across slices.

It has no parameters. Whatever leaves the volume is lost, and zeros come in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from regrow.segmentation.fused import fusable
from regrow.segmentation.joins import join

__all__ = ["group_sizes", "join_shifted", "shift_channels", "shift_segments"]

# Channels start..stop of a source, and by how many slices they move.
Segment = tuple[int, int, int, int]


def group_sizes(channels: int, shift: int, *, ragged: bool = False) -> tuple[int, ...]:
    """Return how many channels move by each offset.

    Args:
        channels: of one source.
        shift: the number of groups, an odd number; group k moves by k - shift // 2 slices.
        ragged: groups of ⌈channels / shift⌉ until none is left, as ``torch.chunk`` makes them; the
            last ones may be missing. Otherwise sizes differ by 1 at most.

    Example:
        >>> group_sizes(96, 3), group_sizes(320, 3), group_sizes(48, 5)
        ((32, 32, 32), (107, 107, 106), (10, 10, 10, 9, 9))
        >>> group_sizes(48, 5, ragged=True), group_sizes(1, 5, ragged=True)
        ((10, 10, 10, 10, 8), (1,))
    """
    if ragged:
        size = -(-channels // shift)
        return tuple(min(size, channels - start) for start in range(0, channels, size))
    return tuple(channels // shift + (k < channels % shift) for k in range(shift))


def shift_segments(
    sources: Sequence[int], shift: int, *, released: bool = False
) -> tuple[Segment, ...]:
    """Return which channels move by how many slices, over sources that are joined.

    Args:
        sources: channels of each source.
        shift: the number of groups, an odd number; 0 or 1 moves nothing.
        released: make the groups over all sources together, as E2ENet's public code does, so that
            a source sees some of the shifts only. Otherwise every source sees every shift.

    Returns:
        Tuples (source, start, stop, offset) in the order of the joined channels.

    Raises:
        ValueError: the shift is even or negative, or a source has fewer channels than groups.

    Source: E2ENet (arXiv 2312.04727), restricted depth shift.

    Differs from the released code: see ``released``.

    Example:
        >>> shift_segments((4, 3), 3)
        ((0, 0, 2, -1), (0, 2, 3, 0), (0, 3, 4, 1), (1, 0, 1, -1), (1, 1, 2, 0), (1, 2, 3, 1))
        >>> shift_segments((4, 3), 3, released=True)
        ((0, 0, 3, -1), (0, 3, 4, 0), (1, 0, 2, 0), (1, 2, 3, 1))
    """
    check_shift(shift)
    if shift < 2:
        return tuple((source, 0, channels, 0) for source, channels in enumerate(sources))
    if released:
        return _across(sources, shift)
    if min(sources) < shift:
        raise ValueError(
            f"shift={shift}: a source of {min(sources)} channels cannot see {shift} shifts; use at "
            f"least {shift} channels, or shift=0"
        )
    segments: list[Segment] = []
    for source, channels in enumerate(sources):
        start = 0
        for group, size in enumerate(group_sizes(channels, shift)):
            segments.append((source, start, start + size, group - shift // 2))
            start += size
    return tuple(segments)


def _across(sources: Sequence[int], shift: int) -> tuple[Segment, ...]:
    """Cut the groups of the joined channels where one source ends and the next begins."""
    segments: list[Segment] = []
    size, first = -(-sum(sources) // shift), 0
    for source, channels in enumerate(sources):
        start = 0
        while start < channels:
            group = (first + start) // size
            stop = min(channels, (group + 1) * size - first)
            segments.append((source, start, stop, group - shift // 2))
            start = stop
        first += channels
    return tuple(segments)


def check_shift(shift: int) -> None:
    """Raise TypeError or ValueError unless this is 0 or an odd number."""
    if isinstance(shift, bool) or not isinstance(shift, int):
        raise TypeError(f"shift={shift!r}: a whole number is needed, such as 3, or 0 for none")
    if shift < 0 or (shift and shift % 2 == 0):
        raise ValueError(f"shift={shift}: must be an odd number, such as 3, or 0 for none")


def shift_channels(x: Tensor, shift: int = 3, axis: int = 0) -> Tensor:
    """Shift the channel groups of one tensor: y[:, c, d] = x[:, c, d - s(c)], zeros from outside.

    Args:
        x: shape (batch, channels, *sides).
        shift: the number of groups; 3 moves by -1, 0, +1.
        axis: which side moves; 0 is the first, the depth of (depth, height, width).

    Example:
        >>> x = torch.tensor([[1.0, 2.0, 3.0]] * 3)[None, :, :, None, None]
        >>> shift_channels(x)[0, :, :, 0, 0].tolist()
        [[2.0, 3.0, 0.0], [1.0, 2.0, 3.0], [0.0, 1.0, 2.0]]
    """
    return join_shifted((x,), shift_segments((x.shape[1],), shift), axis)


def join_shifted(sources: Sequence[Tensor], segments: Sequence[Segment], axis: int = 0) -> Tensor:
    """Concatenate sources along their channels and shift them, in one pass over memory.

    Args:
        sources: shape (batch, channels, *sides) each, equal but for the channels.
        segments: of :func:`shift_segments`, or others: channels that none of them names are left
            out, and none may be named twice.
        axis: which side moves.
    """
    channels = sum(source.shape[1] for source in sources)
    whole = sum(stop - start for _, start, stop, _ in segments) == channels
    if whole and not any(offset for *_, offset in segments):
        return sources[0] if len(sources) == 1 else torch.cat(list(sources), 1)
    order = [source for source, *_ in segments]
    alike = all(source.dtype == sources[0].dtype for source in sources)
    if alike and order == sorted(order) and fusable(*sources):
        return join(sources, segments, axis)
    joined: Tensor = _Join.apply(tuple(segments), axis + 2, *sources)  # type: ignore[no-untyped-call]
    return joined


class _Join(torch.autograd.Function):
    """Write slices into one buffer, forth and back.

    Written under autograd, each slice would copy the whole gradient once.
    """

    @staticmethod
    def forward(segments: tuple[Segment, ...], dim: int, *sources: Tensor) -> Tensor:
        first = sources[0]
        dtype = first.dtype
        for source in sources[1:]:
            dtype = torch.promote_types(dtype, source.dtype)
        channels = sum(stop - start for _, start, stop, _ in segments)
        joined = _like(first, (len(first), channels, *first.shape[2:]), dtype)
        place = 0
        for of, start, stop, offset in segments:
            part = joined.narrow(1, place, stop - start)
            _move(part, sources[of].narrow(1, start, stop - start), offset, dim)
            place += stop - start
        return joined

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.segments, ctx.dim, *sources = inputs
        ctx.kinds = [(source.shape[1], source.dtype) for source in sources]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        parts = [
            _like(gradient, (len(gradient), channels, *gradient.shape[2:]), dtype)
            for channels, dtype in ctx.kinds
        ]
        if sum(stop - start for _, start, stop, _ in ctx.segments) < sum(c for c, _ in ctx.kinds):
            for part in parts:
                part.zero_()
        place = 0
        for of, start, stop, offset in ctx.segments:
            # What moved forth by s comes from there: the adjoint moves back by s.
            part = parts[of].narrow(1, start, stop - start)
            _move(part, gradient.narrow(1, place, stop - start), -offset, ctx.dim)
            place += stop - start
        return None, None, *parts


def _like(x: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Make an empty tensor of a shape, its channels last if those of x are."""
    last = x.ndim == 5 and x.is_contiguous(memory_format=torch.channels_last_3d)
    layout = torch.channels_last_3d if last and not x.is_contiguous() else torch.contiguous_format
    return torch.empty(shape, dtype=dtype, device=x.device, memory_format=layout)


def _move(target: Tensor, source: Tensor, offset: int, dim: int) -> None:
    """Write target[d] = source[d - offset], and zeros where nothing comes from."""
    side = target.shape[dim]
    gone = min(abs(offset), side)
    to, empty = (gone, 0) if offset > 0 else (0, side - gone)
    target.narrow(dim, empty, gone).zero_()
    moved = source.narrow(dim, gone - to, side - gone)
    target.narrow(dim, to, side - gone).copy_(moved)
