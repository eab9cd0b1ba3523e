"""Convolutions in C by whole 3×3 kernels, one for each pair of output and input that is active."""

from __future__ import annotations

import ctypes
from functools import cached_property

import torch
from torch import Tensor

from regrow.execution.csr import layout, memory, products
from regrow.execution.csr.compressed import Compressed
from regrow.execution.csr.geometry import Axis, Planes
from regrow.execution.csr.index import Index
from regrow.execution.csr.shifted import Shifted, three_axes

__all__ = ["KernelWise", "by_kernel"]

_TAPS = 9
_CHANNELS = 16  # whose rows, read by one tile, fit a first-level cache


def by_kernel(index: Index, axes: tuple[Axis, Axis, Axis], groups: int) -> bool:
    """Tell whether a convolution is one of whole kernels that :class:`KernelWise` can compute.

    Args:
        index: of its weight.
        axes: depth, height, width: kernels of 1 × 3 × 3, any stride of depth, 1 or 2 in a plane.
        groups: 1.
    """
    depth, height, width = axes
    flat = (depth.kernel, height.kernel, width.kernel) == (1, 3, 3)
    even = height.dilation == width.dilation == 1 and height.stride == width.stride in (1, 2)
    if groups != 1 or not flat or not even or len(index) % _TAPS:
        return False
    # Rows ascend: if every nine nonzeros are one kernel's, each row holds whole kernels, too.
    kernels = index.columns.view(-1, _TAPS)
    taps = torch.arange(_TAPS, dtype=torch.int32, device="cpu")
    return bool(
        (kernels == kernels[:, :1] + taps).all()
        and (kernels[:, 0] % _TAPS == 0).all()
        and (index.pointers % _TAPS == 0).all()
    )


class KernelWise:
    """A convolution :func:`by_kernel`: images of any strides in, contiguous ones out.

    Whatever the number of samples; gradients are computed as for other sparse convolutions, which
    take sixteen samples for one.

    Args:
        index: the nonzeros of the weight.
        shifted: the same convolution in the other way.
    """

    def __init__(self, index: Index, shifted: Shifted) -> None:
        self.index, self.shifted = index, shifted

    @cached_property
    def _matrix(self) -> Compressed:
        """Which inputs each output reads: one nonzero a kernel."""
        index = self.index
        pointers = index.pointers.div(_TAPS, rounding_mode="floor")
        channels = index.columns[::_TAPS].div(_TAPS, rounding_mode="floor")
        return Compressed(pointers, channels, index.shape[1] // _TAPS, None, _CHANNELS)

    def index_tensors(self) -> list[Tensor]:
        """Return the tensors that say where the nonzeros are, as far as they were made."""
        made = self._matrix.tensors() if "_matrix" in self.__dict__ else []
        return made + self.shifted.index_tensors()

    def ready(self, x: Tensor) -> Tensor:
        """Return images whose columns lie side by side: themselves, or a copy."""
        x = x.resolve_neg()
        return x if x.stride(-1) == 1 else x.contiguous()

    def forward(self, x: Tensor, values: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
        """Compute the output, contiguous."""
        plan = self.shifted.plan
        y = memory.empty(len(x), plan.channels[1], *plan.out[3 - self.shifted.dimensions :])
        images, (depth, height, width) = three_axes(x), plan.axes
        made = Planes(
            samples=len(x),
            channels=plan.channels[0],
            width=_CHANNELS,
            source_size=(ctypes.c_int64 * 3)(*images.shape[2:]),
            source_stride=(ctypes.c_int64 * 4)(*images.stride()[:4]),
            step_depth=depth.stride,
            step=height.stride,
            low=(ctypes.c_int64 * 3)(*(axis.low for axis in plan.axes)),
            high=width.high,
            size=(ctypes.c_int64 * 3)(*plan.out),
        )
        products.convolve_planes(made, self._matrix, values, images, y, bias, relu)
        return y

    def input_gradient(self, x: Tensor, grad: Tensor, values: Tensor) -> Tensor:
        """Compute the gradient of the input from that of the output."""
        return self.shifted.input_gradient(x, grad, values)

    def weight_gradient(self, x: Tensor, grad: Tensor) -> Tensor:
        """Compute the gradient of the nonzeros."""
        return self.shifted.weight_gradient(layout.batch_last(x), grad)
