"""A convolution in C for images of one size: its nonzeros as offsets into scratch memory."""

from __future__ import annotations

import ctypes
import math
from functools import cached_property

import torch
from torch import Tensor

from regrow.execution.csr import layout, products
from regrow.execution.csr.compressed import Compressed
from regrow.execution.csr.geometry import OffsetPlan, Pass
from regrow.execution.csr.index import Index

__all__ = ["Shifted", "three_axes"]

_CHANNELS = 32  # a tile of so many channels is read from the first-level cache
_WORTH = 8  # nonzeros that a row should have there


def _offset(parts: list[int], extent: list[int]) -> int:
    return (parts[0] * extent[1] + parts[1]) * extent[2] + parts[2]


class Shifted:
    """A convolution by the C kernels, whose offsets are made once, of an index and a plan.

    Args:
        index: the nonzeros of the weight [out_channels, in_channels / groups * taps].
        plan: the geometry, of three axes.
        dimensions: of the images.
    """

    def __init__(self, index: Index, plan: OffsetPlan, dimensions: int) -> None:
        self.index, self.plan, self.dimensions = index, plan, dimensions
        scratch = math.prod(plan.forward.phases) * math.prod(plan.forward.extent)
        if scratch * max(plan.channels) >= 2**31:
            raise ValueError(
                f"images of {plan.out} output positions and {max(plan.channels)} channels are too "
                "large: their offsets do not fit 32 bits; cut them, or keep this layer masked"
            )

    @cached_property
    def _forward(self) -> tuple[Pass, Compressed]:
        """The pass from input to output and its matrix, by output channel."""
        plan, index = self.plan, self.index
        extent = list(plan.forward.extent)
        image = math.prod(plan.forward.phases) * math.prod(extent)
        table = [
            plan.phase_of(tap) * math.prod(extent) + _offset(plan.shift_of(tap), extent)
            for tap in plan.taps
        ]
        group_channels = plan.channels[0] // plan.groups
        by_column = self._by_column(table, image, group_channels)
        offsets = by_column[index.columns]
        if plan.groups > 1:
            rows = index.positions // index.shape[1]
            group = rows // (plan.channels[1] // plan.groups)
            offsets += (group * group_channels * image).int()
        columns = image * plan.channels[0]
        return plan.forward, Compressed(
            index.pointers, offsets, columns, None, self._width(plan.channels[0], image)
        )

    @cached_property
    def _backward(self) -> list[tuple[tuple[int, ...], Pass, Compressed]]:
        """The passes from output gradient to input gradient, one for every phase of the input."""
        plan, index = self.plan, self.index
        group_channels = plan.channels[0] // plan.groups
        phases = [plan.phase_of(tap) * plan.channels[0] for tap in plan.taps]
        pointers, rows, order = products.transpose(
            index.pointers,
            index.columns,
            self._by_column(phases, 1, group_channels),
            max(1, plan.channels[1] // plan.groups),
            group_channels,
            len(plan.phase_list) * plan.channels[0],
        )
        passes = [plan.backward(phase) for phase in plan.phase_list]
        extent = list(passes[0].extent)
        table = [
            _offset(
                [a - b for a, b in zip(plan.last_shifts, plan.shift_of(t), strict=True)], extent
            )
            for t in plan.taps
        ]
        image = math.prod(extent)
        offsets = rows * image + self._by_column(table, 0, group_channels)[index.columns[order]]
        step, columns = plan.channels[0], image * plan.channels[1]
        width = self._width(plan.channels[1], image)
        return [
            (phase, made, Compressed(pointers[k : k + step + 1], offsets, columns, order, width))
            for k, phase, made in zip(
                range(0, len(pointers) - 1, step), plan.phase_list, passes, strict=True
            )
        ]

    def index_tensors(self) -> list[Tensor]:
        """Return the tensors that say where the nonzeros are, as far as they were made."""
        made = [self._forward[1]] if "_forward" in self.__dict__ else []
        made += [matrix for _, _, matrix in self.__dict__.get("_backward", [])]
        return [tensor for matrix in made for tensor in matrix.tensors()]

    def _width(self, channels: int, image: int) -> int:
        """Choose the offsets read together: of some channels, if rows have enough there."""
        rows = sum(self.plan.channels) - channels
        per_channel = len(self.index) / max(1, rows * channels // self.plan.groups)
        return image * (_CHANNELS if per_channel * _CHANNELS >= _WORTH else channels)

    def _by_column(self, taps: list[int], channel: int, channels: int) -> Tensor:
        """Tabulate channel * (its number) + a value of the tap, for every column of the weight."""
        table = torch.arange(channels, dtype=torch.int32, device="cpu")[:, None] * channel
        return (table + torch.tensor(taps, dtype=torch.int32, device="cpu")).flatten()

    def ready(self, x: Tensor) -> Tensor:
        """Return images with the batch innermost: themselves, or a copy."""
        return layout.batch_last(x)

    def forward(self, x: Tensor, values: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
        """Compute the output, batch innermost."""
        size = self.plan.out[3 - self.dimensions :]
        y = layout.empty_images(len(x), self.plan.channels[1], size)
        made, matrix = self._forward
        images, out = three_axes(x), three_axes(y)
        products.convolve(_with_strides(made, images, out), matrix, values, images, out, bias, relu)
        return y

    def input_gradient(self, x: Tensor, grad: Tensor, values: Tensor) -> Tensor:
        """Compute the gradient of the input from that of the output."""
        wanted = layout.empty_images(x.shape[0], x.shape[1], tuple(x.shape[2:]))
        grad, out, axes = three_axes(grad), three_axes(wanted), self.plan.axes
        # Some pixels are read by no output: no pass writes their gradient, which is zero.
        if any(axis.phases < axis.stride for axis in axes):
            out.zero_()
        for phase, made, matrix in self._backward:
            if 0 in list(made.size):
                continue
            target = out
            for axis, (a, f) in enumerate(zip(axes, phase, strict=True), start=2):
                first = a.first(f) * a.stride + f - a.low
                target = target[(slice(None),) * axis + (slice(first, None, a.stride),)]
            made = _with_strides(made, grad, target)  # noqa: PLW2901
            products.convolve(made, matrix, values, grad, target, None, False)
        return wanted

    def weight_gradient(self, x: Tensor, grad: Tensor) -> Tensor:
        """Compute the gradient of the nonzeros."""
        made, matrix = self._forward
        x, grad = three_axes(x), three_axes(grad)
        return products.convolve_dot(_with_strides(made, x, grad), matrix, x, grad)


def three_axes(x: Tensor) -> Tensor:
    """View images of fewer axes with leading ones of size one."""
    while x.dim() < 5:
        x = x.unsqueeze(2)
    return x


def _with_strides(made: Pass, source: Tensor, target: Tensor) -> Pass:
    # A copy: one plan serves images of any strides.
    made = Pass.from_buffer_copy(made)
    made.source_channel, made.row_stride = source.stride(1), target.stride(1)
    made.source_stride = (ctypes.c_int64 * 3)(*source.stride()[2:])
    made.stride = (ctypes.c_int64 * 3)(*target.stride()[2:])
    return made
