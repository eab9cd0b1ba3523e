"""Convolutions that store and compute their nonzeros only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from regrow.execution.csr import dispatch, memory
from regrow.execution.csr.convolution import (
    Convolution,
    ThroughDense,
    before_activation,
    forward,
)
from regrow.execution.csr.dense import DenseConvolution
from regrow.execution.csr.geometry import Axis, OffsetPlan
from regrow.execution.csr.index import Index
from regrow.execution.csr.layer import CsrLayer, checked
from regrow.execution.csr.operators import as_operator

if TYPE_CHECKING:  # it binds the C library when imported
    from regrow.execution.csr.kernelwise import KernelWise
    from regrow.execution.csr.shifted import Shifted

__all__ = ["CsrConv", "CsrConv1d", "CsrConv2d", "CsrConv3d"]

_Size = int | tuple[int, ...]
_KEPT = 2  # input sizes whose offsets are remembered: usual batches, and the last of an epoch


class CsrConv(CsrLayer):
    """A convolution over the nonzeros of its weight, float32, on the CPU.

    The output is an ordinary tensor [batch, out_channels, ...]; its memory has the batch innermost,
    which elementwise operations keep and the next sparse layer reads as it is. A layer of whole
    kernels, 3 × 3 or 1 × 3 × 3, puts out contiguous images and is fast for single samples, too.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: one number, or one an axis.
        index: an `Index`, or the ascending flat positions of the nonzeros in the dense weight
            [out_channels, in_channels / groups, *kernel_size].
        values: the values of the nonzeros in that order.
        bias: dense bias (out_channels,), or None.
        stride: as in `torch.nn`.
        padding: as in `torch.nn`, "same" and "valid" included.
        dilation: as in `torch.nn`.
        groups: as in `torch.nn`.
        padding_mode: "zeros" only.
        activation: None, or "relu" to compute max(y, 0) in the same pass.

    Raises:
        ValueError: the geometry is not possible, or index, values or bias do not fit.
    """

    dimensions: ClassVar[int]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _Size,
        index: Index | Tensor,
        values: Tensor,
        bias: Tensor | None = None,
        *,
        stride: _Size = 1,
        padding: _Size | str = 0,
        dilation: _Size = 1,
        groups: int = 1,
        padding_mode: str = "zeros",
        activation: str | None = None,
    ) -> None:
        if padding_mode != "zeros":
            raise ValueError(
                f"padding_mode={padding_mode!r} is not supported; allowed is 'zeros'. Pad the "
                "input before the layer, or keep this layer masked"
            )
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(
                f"groups={groups} must divide in_channels={in_channels} and "
                f"out_channels={out_channels}"
            )
        kernel = self._per_axis("kernel_size", kernel_size, 1)
        shape = (out_channels, in_channels // groups, *kernel)
        super().__init__(shape, index, values, bias, activation)
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size, self.padding_mode = kernel, padding_mode
        self.stride = self._per_axis("stride", stride, 1)
        self.dilation = self._per_axis("dilation", dilation, 1)
        self.padding = (
            padding if isinstance(padding, str) else self._per_axis("padding", padding, 0)
        )
        self.pads = self._pads()

    def _per_axis(self, name: str, value: _Size, least: int) -> tuple[int, ...]:
        sizes = (value,) * self.dimensions if isinstance(value, int) else tuple(value)
        if len(sizes) != self.dimensions or min(sizes) < least:
            raise ValueError(
                f"{name}={value} must be one number or {self.dimensions}, each at least {least}"
            )
        return sizes

    def _pads(self) -> tuple[tuple[int, int], ...]:
        """Zeros before and after each axis."""
        if not isinstance(self.padding, str):
            return tuple((p, p) for p in self.padding)
        if self.padding == "valid":
            return ((0, 0),) * self.dimensions
        if self.padding != "same" or set(self.stride) != {1}:
            raise ValueError(
                f"padding={self.padding!r} with stride={self.stride} is not possible; allowed are "
                "numbers, 'valid', and 'same' with stride 1"
            )
        total = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]
        return tuple((t // 2, t - t // 2) for t in total)

    def set_topology_(self, positions: Index | Tensor) -> None:
        """Put the nonzeros elsewhere; the caller writes `weight`, whose length must fit.

        Args:
            positions: an `Index`, or ascending flat positions in the dense weight.

        Raises:
            ValueError: positions do not ascend, or do not fit the dense weight.
        """
        super().set_topology_(positions)
        self._ways: dict[Any, KernelWise | Shifted | ThroughDense] = {}

    def forget_orders(self) -> None:
        """Give back offsets and orders, which a new topology makes anew in any case."""
        super().forget_orders()
        self._ways = {}

    def index_tensors(self) -> list[Tensor]:
        """Return the tensors that say where the nonzeros are, for all sizes of images met."""
        ways = [tensor for way in self._ways.values() for tensor in way.index_tensors()]
        return super().index_tensors() + ways

    def __getstate__(self) -> dict[str, Any]:
        # Offsets are found again from the index; they hold C structures, which cannot be pickled.
        return self.__dict__ | {"_ways": {}}

    def forward(self, x: Tensor) -> Tensor:
        """Compute the layer for x [batch, in_channels, ...] or [in_channels, ...], float32, CPU.

        Raises:
            TypeError: x has another dtype or device.
            ValueError: x has another shape, or weight does not fit the index.
        """
        x = checked(x, self)
        batched = x.dim() == self.dimensions + 2
        if (not batched and x.dim() != self.dimensions + 1) or x.shape[batched] != self.in_channels:
            raise ValueError(
                f"input has shape {tuple(x.shape)}; it must be [batch, {self.in_channels}, "
                f"{self.dimensions} spatial sizes]"
            )
        x = x if batched else x.unsqueeze(0)
        if torch.compiler.is_compiling():
            out = (axis.out for axis in self._axes(x)[3 - self.dimensions :])
            y = as_operator(self, x, (len(x), self.dense_shape[0], *out))
        else:
            y = Convolution.apply(x, *self.checked_values(), self, self.way(x))  # type: ignore[no-untyped-call]
        return y if batched else y.squeeze(0)

    def compute(
        self, x: Tensor, values: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the output of images; and images and values as the gradients read them."""
        return forward(self.way(x), x, values, bias, relu=self.activation == "relu")

    def ready(self, x: Tensor) -> Tensor:
        """Return images as the gradients read them."""
        return self.way(x).ready(x)

    def gradients(
        self,
        grad: Tensor,
        kept: tuple[Any, ...],
        needs: tuple[bool, ...],
        *,
        batch_major: bool,
        lent: bool = False,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Compute those gradients of input, nonzeros and bias that are needed."""
        way, x, values, *output = kept
        needs_x, needs_values, needs_bias = needs
        sums = memory.empty(grad.shape[1]) if needs_bias else None
        grad = before_activation(grad, output, sums)
        if self.captures and needs_values:
            self.capture(x, grad, lent=lent)
        return (
            way.input_gradient(x, grad, values) if needs_x else None,
            way.weight_gradient(x, grad) if needs_values else None,
            sums,
        )

    def way(self, x: Tensor) -> KernelWise | Shifted | ThroughDense:
        """Return how images like x are computed; the offsets it holds are made once."""
        name = dispatch.in_use()
        # Offsets depend on the vector width of the instruction set as well.
        key = (name, *x.shape)
        made = self._ways.get(key)
        if made is None:
            axes = self._axes(x)
            # The oldest goes: a model that meets many image sizes would otherwise gather offsets
            # for all of them.
            ways = dict(self._ways)
            if len(ways) >= _KEPT:
                ways.pop(next(iter(ways)))
            if name == "torch":
                made = ThroughDense(self.index, self._dense())
            else:
                # They bind the library.
                from regrow.execution.csr.kernelwise import KernelWise, by_kernel  # noqa: PLC0415
                from regrow.execution.csr.shifted import Shifted  # noqa: PLC0415

                channels = (self.in_channels, self.out_channels)
                vectors = dispatch.tile()
                plan = OffsetPlan(axes, len(x), channels, self.groups, *vectors)
                made = Shifted(self.index, plan, self.dimensions)
                if by_kernel(self.index, axes, self.groups):
                    made = KernelWise(self.index, made)
            # A new dict: other threads may be looking into this one.
            self._ways = ways | {key: made}
        return made

    def _dense(self) -> DenseConvolution:
        return DenseConvolution(
            self.dense_shape, self.stride, self.pads, self.dilation, self.groups
        )

    def _axes(self, x: Tensor) -> tuple[Axis, Axis, Axis]:
        made = [
            Axis(size, kernel, stride, dilation, low, high)
            for size, kernel, stride, dilation, (low, high) in zip(
                x.shape[2:], self.kernel_size, self.stride, self.dilation, self.pads, strict=True
            )
        ]
        if min(axis.out for axis in made) < 1:
            raise ValueError(
                f"input has shape {tuple(x.shape)}: too small for kernel_size={self.kernel_size}, "
                f"dilation={self.dilation}, padding={self.padding}"
            )
        one, two, three = [Axis(1)] * (3 - self.dimensions) + made
        return one, two, three

    def gradient_rows(self, row: int, end: int) -> Tensor:
        """Sum the dense gradient of rows [row, end) over all captured passes."""
        dense = self._dense()
        total, *others = (
            dense.weight_gradient(x, grad, slice(row, end)) for x, grad in self.captured
        )
        for other in others:
            total = total + other
        return total.flatten(1)

    def extra_repr(self) -> str:
        """Return what `print` shows of the layer."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}, padding={self.padding}, dilation={self.dilation}, "
            f"groups={self.groups}, nonzeros={len(self.index)}, bias={self.bias is not None}"
            + (f", activation={self.activation!r}" if self.activation else "")
        )


class CsrConv1d(CsrConv):
    """`torch.nn.Conv1d` over the nonzeros of its weight; arguments and errors as in `CsrConv`."""

    dimensions = 1


class CsrConv2d(CsrConv):
    """`torch.nn.Conv2d` over the nonzeros of its weight; arguments and errors as in `CsrConv`."""

    dimensions = 2


class CsrConv3d(CsrConv):
    """`torch.nn.Conv3d` over the nonzeros of its weight; arguments and errors as in `CsrConv`."""

    dimensions = 3
