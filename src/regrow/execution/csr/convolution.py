"""The autograd function of a convolution over nonzeros, computed in C or through a dense weight."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from regrow.execution.csr import layout, memory
from regrow.execution.csr.dense import DenseConvolution
from regrow.execution.csr.dispatch import kernels
from regrow.execution.csr.index import Index
from regrow.execution.csr.layer import CsrLayer

if TYPE_CHECKING:  # it binds the C library when imported
    from regrow.execution.csr.kernelwise import KernelWise
    from regrow.execution.csr.shifted import Shifted

__all__ = ["Convolution", "ThroughDense", "before_activation", "forward"]


class Convolution(torch.autograd.Function):
    """A sparse convolution of images and its gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        values: Tensor,
        bias: Tensor | None,
        layer: CsrLayer,
        way: KernelWise | Shifted | ThroughDense,
    ) -> Tensor:
        """Compute the output the way that was chosen."""
        y, x, values = forward(way, x, values, bias, relu=layer.activation == "relu")
        ctx.save_for_backward(x, values, *([y] if layer.activation else []))
        ctx.layer, ctx.way = layer, way
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Compute the gradients of input, nonzeros and bias that are needed."""
        x, values, *output = ctx.saved_tensors
        kept, needs = (ctx.way, x, values, *output), ctx.needs_input_grad[:3]
        return *ctx.layer.gradients(grad, kept, needs, batch_major=False), None, None


def forward(
    way: KernelWise | Shifted | ThroughDense,
    x: Tensor,
    values: Tensor,
    bias: Tensor | None,
    *,
    relu: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the output one way; and input and values as the gradients read them."""
    x, values = way.ready(x), memory.plain(values)
    bias = None if bias is None else memory.plain(bias)
    return way.forward(x, values, bias, relu), x, values


def before_activation(grad: Tensor, output: list[Tensor], sums: Tensor | None) -> Tensor:
    """Return the gradient before a ReLU with this output, if there is one; sum it by channel.

    Args:
        grad: of the output.
        output: of the ReLU; empty where there is none.
        sums: is written; None: not wanted.
    """
    grad = layout.batch_last(grad)
    if not output and sums is None:
        return grad
    # Slices, and what was channels last, have the batch innermost, but not channel after channel.
    if not _is_dense(grad):
        grad = layout.empty_images(*_sizes(grad)).copy_(grad)
    masked = torch.empty_like(grad) if output else None
    output = [layout.batch_last(t) for t in output]
    flat = [_by_channel(t) for t in (grad, *output, masked) if t is not None]
    kernels().epilogue_backward(flat[0], *(flat[1:] if output else (None, None)), sums)
    return grad if masked is None else masked


def _sizes(x: Tensor) -> tuple[int, int, tuple[int, ...]]:
    return x.shape[0], x.shape[1], tuple(x.shape[2:])


def _is_dense(x: Tensor) -> bool:
    return x.stride() == layout.empty_images(*_sizes(x)).stride()


def _by_channel(x: Tensor) -> Tensor:
    """View images, batch innermost, as [positions * batch, channels], feature-major."""
    per_channel = x[:, 0].numel()
    return x.as_strided((per_channel, x.shape[1]), (1, per_channel))


class ThroughDense:
    """A convolution through a dense weight made for each call, where there is no C library."""

    def __init__(self, index: Index, dense: DenseConvolution) -> None:
        self.index, self.dense = index, dense

    def _weight(self, values: Tensor) -> Tensor:
        weight = values.new_zeros(math.prod(self.dense.shape))
        return weight.index_put_((self.index.positions,), values).view(self.dense.shape)

    def ready(self, x: Tensor) -> Tensor:
        """Return images with the batch innermost: themselves, or a copy."""
        return layout.batch_last(x)

    def forward(self, x: Tensor, values: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
        """Compute the output, batch innermost."""
        with torch.autocast("cpu", enabled=False):
            y = self.dense.forward(x, self._weight(values), bias)
        y = layout.empty_images(*_sizes(y)).copy_(y)
        return y.relu_() if relu else y

    def input_gradient(self, x: Tensor, grad: Tensor, values: Tensor) -> Tensor:
        """Compute the gradient of the input."""
        with torch.enable_grad(), torch.autocast("cpu", enabled=False):
            x = x.detach().requires_grad_()
            y = self.dense.forward(x, self._weight(values), None)
        return torch.autograd.grad(y, x, grad)[0]

    def weight_gradient(self, x: Tensor, grad: Tensor) -> Tensor:
        """Compute the gradient of the nonzeros."""
        with torch.autocast("cpu", enabled=False):
            gradient = self.dense.weight_gradient(x, grad, slice(None))
        return gradient.flatten()[self.index.positions]

    def index_tensors(self) -> list[Tensor]:
        """Return nothing: the index is all there is."""
        return []
