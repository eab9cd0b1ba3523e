"""A linear layer that stores and computes its nonzeros only."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from regrow.execution.csr import layout, memory
from regrow.execution.csr.dispatch import kernels
from regrow.execution.csr.index import Index
from regrow.execution.csr.largest import highest_of_product
from regrow.execution.csr.layer import CsrLayer, checked, needs_graph
from regrow.execution.csr.operators import as_operator

__all__ = ["CsrLinear"]

_SHORT = 1024  # samples; of longer sums, the dense gradient of some rows is the faster way


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, values: Tensor, bias: Tensor | None, layer: CsrLinear
    ) -> Tensor:
        ctx.batch_major = layout.one_stride(x).stride(0) != 1
        y, x, values = layer.compute(x, values, bias)
        ctx.save_for_backward(x, values, *([y] if layer.activation else []))
        ctx.layer, ctx.index = layer, layer.index
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, values, *output = ctx.saved_tensors
        needs = ctx.needs_input_grad[:3]
        kept = (ctx.index, x, values, *output)
        return *ctx.layer.gradients(grad, kept, needs, batch_major=ctx.batch_major), None


class CsrLinear(CsrLayer):
    """y = x Wᵀ + b over the nonzeros of W, float32, on the CPU.

    The output is an ordinary tensor [..., out_features]; its memory is feature-major (strides
    (1, ≥ batch)), which elementwise operations keep and the next sparse layer reads as it is.

    Args:
        in_features: features of the input.
        out_features: features of the output.
        index: an `Index`, or the ascending flat positions of the nonzeros in the dense weight
            [out_features, in_features].
        values: the values of the nonzeros in that order.
        bias: dense bias (out_features,), or None.
        activation: None, or "relu" to compute max(y, 0) in the same pass.

    Raises:
        ValueError: index, values or bias do not fit.

    Example:
        >>> layer = CsrLinear(3, 2, torch.tensor([1, 3]), torch.tensor([2.0, -1.0]))
        >>> layer(torch.tensor([[1.0, 10.0, 100.0]]))
        tensor([[20., -1.]], grad_fn=<_LinearBackward>)
        >>> layer.dense_weight()
        tensor([[ 0.,  2.,  0.],
                [-1.,  0.,  0.]])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        index: Index | Tensor,
        values: Tensor,
        bias: Tensor | None = None,
        *,
        activation: str | None = None,
    ) -> None:
        super().__init__((out_features, in_features), index, values, bias, activation)
        self.in_features, self.out_features = in_features, out_features

    def forward(self, x: Tensor) -> Tensor:
        """Compute the layer for x [..., in_features], float32 on the CPU.

        Raises:
            TypeError: x has another dtype or device.
            ValueError: x has another number of features, or weight does not fit the index.
        """
        x = checked(x, self)
        features = self.index.shape[1]  # not `in_features`, which can be set: C would follow it
        if x.dim() == 0 or x.shape[-1] != features:
            raise ValueError(f"input has shape {tuple(x.shape)}; its last size must be {features}")
        flat = x if x.dim() == 2 else x.reshape(x.shape[:-1].numel(), features)
        if torch.compiler.is_compiling():
            y = as_operator(self, flat, (len(flat), self.index.shape[0]))
            return y if x.dim() == 2 else y.view(*x.shape[:-1], self.index.shape[0])
        weight, bias = self.checked_values()
        # Inference needs no graph, which for one sample takes as long as a small layer.
        if needs_graph(flat, weight, bias):
            y = _Linear.apply(flat, weight, bias, self)  # type: ignore[no-untyped-call]
        else:
            y, *_ = self.compute(flat, weight, bias)
        return y if x.dim() == 2 else y.view(*x.shape[:-1], self.index.shape[0])

    def compute(
        self, x: Tensor, values: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the output of x [batch, in_features]; and x and values as the gradients read."""
        index, relu = self.index, self.activation == "relu"
        x, values = layout.one_stride(x.resolve_neg()), memory.plain(values)
        bias = None if bias is None else memory.plain(bias)
        packed = layout.room_to_pack(x, len(index) / max(1, index.shape[1]))
        y = layout.empty(len(x), index.shape[0])
        kernels().linear(index.forward, values, x, packed, y, bias, relu)
        # The packed copy is what the backward pass reads: the original need not be kept alive.
        return y, x if packed is None else packed, values

    def ready(self, x: Tensor) -> Tensor:
        """Return an input as the gradients read it: feature by feature."""
        return layout.feature_major(x.resolve_neg(), len(self.index) / max(1, self.index.shape[1]))

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
        index, x, values, *output = kept
        needs_x, needs_values, needs_bias = needs
        grad = layout.one_stride(grad.resolve_neg())
        if output:
            masked = layout.empty(*grad.shape)
            major = [layout.feature_major(t) for t in (grad, *output)]
            kernels().epilogue_backward(*major, masked, None)
            grad = masked
        packed = layout.room_to_pack(grad, len(index) / max(1, index.shape[0]))
        sums = memory.empty(index.shape[0]) if needs_bias else None
        grad_values = memory.empty(len(index)) if needs_values else None
        grad_x = None
        if needs_x:  # in the layout of x: autograd would otherwise copy it into that, slowly
            grad_x = memory.empty(*x.shape) if batch_major else layout.empty(*x.shape)
        transposed = index.transposed if needs_x else None
        kernels().linear_backward(
            index.forward, transposed, values, x, grad, packed, grad_values, grad_x, sums
        )
        if self.captures and needs_values:
            self.capture(x, grad if packed is None else packed, lent=lent)
        return grad_x, grad_values, sums

    def gradient_rows(self, row: int, end: int) -> Tensor:
        """Sum the dense gradient of rows [row, end) over all captured passes."""
        (x, grad), *others = self.captured
        tile = torch.mm(grad.t()[row:end], x)
        for x, grad in others:
            tile.addmm_(grad.t()[row:end], x)
        return tile

    def highest_gradients(self, k: int, taken: Tensor) -> Tensor | None:
        """Return the k positions of the largest gradients among those not taken, ascending.

        None where there is no faster way than row by row.

        Raises:
            FloatingPointError: a gradient is NaN or infinite.
        """
        batch = sum(len(x) for x, _ in self.captured)
        if batch > _SHORT or math.prod(self.index.shape) >= 2**31:
            return None
        (x, grad), *others = self.captured
        if others:
            x = layout.feature_major(torch.cat([x, *(x for x, _ in others)]))
            grad = layout.feature_major(torch.cat([grad, *(grad for _, grad in others)]))
        return highest_of_product(grad, x, k, taken)

    def extra_repr(self) -> str:
        """Return what `print` shows of the layer."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"nonzeros={len(self.index)}, bias={self.bias is not None}"
            + (f", activation={self.activation!r}" if self.activation else "")
        )
