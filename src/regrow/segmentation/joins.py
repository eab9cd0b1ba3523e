"""Blocks whose output is computed by its readers, each of what it reads only, as they join it.

The output of a block is y = ReLU(a·z + b), z its convolution's. It need not be stored where all
read it through a join: of channels, moved along an axis, maybe pooled before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from regrow.segmentation.fused import last

__all__ = ["Pending", "Reading", "join", "leave", "norm_relu", "whole"]

_LAST = torch.channels_last_3d


class Reading(NamedTuple):
    """What one reader takes of a block's output.

    Args:
        moves: (start, stop, offset): channels in the order in which the reader has them, none of
            them twice, and by how many voxels they move.
        axis: 0, 1 or 2: along which.
        window: sides of the maximum pooling before they move.
    """

    moves: tuple[tuple[int, int, int], ...]
    axis: int
    window: tuple[int, int, int] = (1, 1, 1)


class Pending(NamedTuple):
    """A block's output that its readers compute.

    Args:
        z: of the convolution; shape (n, channels, d, h, w). No gradient goes through it.
        norm: mean, 1/deviation, a and b of each sample and channel; shape (n, 4, channels).
        slope: of the ReLU below 0.
        readings: by reader.
        carriers: by reader, of the shape of what it reads, without memory: what brings gradients
            back, of all readers to one place.
        whole: y, if it is also read whole.
    """

    z: Tensor
    norm: Tensor
    slope: float
    readings: Mapping[str, Reading]
    carriers: Mapping[str, Tensor]
    whole: Tensor | None


def leave(
    z: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    slope: float,
    readings: Mapping[str, Reading],
    *,
    whole: bool,
) -> Pending:
    """Return a block's output for its readers, without computing it unless someone reads it whole.

    Args:
        z: shape (n, channels, d, h, w).
        weight: of the norm, one number a channel.
        bias: likewise.
        eps: added to the variance.
        slope: of the ReLU below 0; 1 leaves it out.
        readings: by reader.
        whole: whether it is read whole, too.
    """
    moves: list[int] = []
    windows: list[int] = []
    axis = 0
    for number, reading in enumerate(readings.values()):
        column, axis = 0, reading.axis
        for start, stop, offset in reading.moves:
            moves += [number, start, stop, offset, column]
            column += stop - start
        windows += reading.window
    norm = torch.ops.regrow.norm_numbers(z.detach(), weight.detach(), bias.detach(), eps)
    found = _Leave.apply(z, weight, bias, norm, slope, whole, moves, windows, axis)  # type: ignore[no-untyped-call]
    y, carriers = (found[0], found[1:]) if whole else (None, found)
    return Pending(z.detach(), norm, slope, readings, dict(zip(readings, carriers, strict=True)), y)


def norm_relu(z: Tensor, weight: Tensor, bias: Tensor, eps: float, slope: float) -> Tensor:
    """Compute the leaky ReLU of the instance norm; arguments as of :func:`leave`."""
    y = leave(z, weight, bias, eps, slope, {}, whole=True).whole
    assert y is not None
    return y


def whole(source: Tensor | Pending) -> Tensor:
    """Return a block's output as one tensor."""
    if isinstance(source, Tensor):
        return source
    assert source.whole is not None, "the block was told that nobody reads its output whole"
    return source.whole


class _Leave(torch.autograd.Function):
    """Statistics and normalised values have one gradient, of all readers together."""

    @staticmethod
    def forward(
        ctx: Any,
        z: Tensor,
        weight: Tensor,
        bias: Tensor,
        norm: Tensor,
        slope: float,
        whole: bool,
        moves: list[int],
        windows: list[int],
        axis: int,
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(z, norm)
        ctx.slope, ctx.whole, ctx.dtypes = slope, whole, (weight.dtype, bias.dtype)
        ctx.moves, ctx.windows, ctx.axis = moves, windows, axis
        found = [torch.ops.regrow.norm_relu(z, norm, slope)] if whole else []
        for number in range(len(windows) // 3):
            count = sum(
                moves[i + 2] - moves[i + 1] for i in range(0, len(moves), 5) if moves[i] == number
            )
            window = windows[3 * number : 3 * number + 3]
            sides = [side // by for side, by in zip(z.shape[2:], window, strict=True)]
            found.append(z.new_empty(()).expand(len(z), count, *sides))
        return tuple(found)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        z, norm = ctx.saved_tensors
        parts = list(gradients[1:] if ctx.whole else gradients)
        dy = gradients[0] if ctx.whole else None
        if parts:
            dy = torch.ops.regrow.join_normed_gradient(
                parts, z, norm, dy, z.shape[1], ctx.moves, ctx.windows, ctx.axis, ctx.slope
            )
        assert dy is not None
        if last(z):
            dy = dy.contiguous(memory_format=_LAST)
        dz, sums = torch.ops.regrow.norm_relu_gradient(dy, z, norm, ctx.slope)
        dbias, dweight = sums.sum(0).unbind(0)
        return dz, dweight.to(ctx.dtypes[0]), dbias.to(ctx.dtypes[1]), *[None] * 6


def join(
    sources: Sequence[Tensor | Pending],
    segments: Sequence[tuple[int, int, int, int]],
    axis: int,
    reader: str = "",
) -> Tensor:
    """Concatenate sources along their channels and shift them, in one pass over each.

    Args:
        sources: shape (n, channels, d, h, w) each, equal but for the channels, once pooled.
        segments: (source, start, stop, offset), of ascending sources, in the order of the joined
            channels; of sources that are pending the reading says it instead.
        axis: 0, 1 or 2: along which channels move.
        reader: the name under which pending sources know what is read.
    """
    flat, starts, windows, place = [], [], [], 0
    for number, source in enumerate(sources):
        if isinstance(source, Tensor):
            moves = [move for of, *move in segments if of == number]
            windows += [1, 1, 1]
        else:
            moves = [list(move) for move in source.readings[reader].moves]
            windows += source.readings[reader].window
        starts.append(place)
        for start, stop, offset in moves:
            flat += [number, start, stop, offset]
            place += stop - start
    carriers = [s if isinstance(s, Tensor) else s.carriers[reader] for s in sources]
    values = [s.detach() if isinstance(s, Tensor) else s.z for s in sources]
    norms = [None if isinstance(s, Tensor) else s.norm for s in sources]
    slopes = [1.0 if isinstance(s, Tensor) else s.slope for s in sources]
    how = flat, starts, windows, axis, slopes
    joined: Tensor = _Join.apply(*how, *carriers, *values, *norms)  # type: ignore[no-untyped-call]
    return joined


class _Join(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        segments: list[int],
        starts: list[int],
        windows: list[int],
        axis: int,
        slopes: list[float],
        *tensors: Tensor | None,
    ) -> Any:
        count = len(starts)
        values = [value for value in tensors[count : 2 * count] if value is not None]
        norms = list(tensors[2 * count :])
        ctx.segments, ctx.starts, ctx.axis = segments, starts, axis
        ctx.channels = [
            value.shape[1] if norm is None else 0 for value, norm in zip(values, norms, strict=True)
        ]
        joined = torch.ops.regrow.join_normed(values, norms, segments, windows, axis, slopes)
        ctx.last = last(joined)
        return joined

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        if ctx.last:
            gradient = gradient.contiguous(memory_format=_LAST)
        parts: list[Tensor] = []
        ends = [*ctx.starts[1:], gradient.shape[1]]
        for number, (start, end) in enumerate(zip(ctx.starts, ends, strict=True)):
            if channels := ctx.channels[number]:
                parts.append(_moved_back(gradient, channels, ctx.segments, number, start, ctx.axis))
            else:
                parts.append(gradient.narrow(1, start, end - start))
        return *[None] * 5, *parts, *[None] * (2 * len(parts))


def _moved_back(
    gradient: Tensor, channels: int, segments: list[int], source: int, column: int, axis: int
) -> Tensor:
    """Return the gradient of a source that is a tensor."""
    moves = []
    for i in range(0, len(segments), 4):
        of, start, stop, offset = segments[i : i + 4]
        if of == source:
            moves += [0, start, stop, offset, column]
            column += stop - start
    back: Tensor = torch.ops.regrow.join_normed_gradient(
        [gradient], None, None, None, channels, moves, [1, 1, 1], axis, 1.0
    )
    return back
