"""Csr layers as operators: torch.compile sees them, and does not look inside.

``regrow::csr`` is any csr layer, linear or a convolution, and ``regrow::csr_backward`` its
gradients. Whether an update wants to keep what they read is asked inside.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from regrow.execution.csr import layout
from regrow.execution.csr.handles import layer_of

if TYPE_CHECKING:
    from regrow.execution.csr.layer import CsrLayer

__all__ = ["as_operator"]


def as_operator(layer: CsrLayer, x: Tensor, size: Sequence[int]) -> Tensor:
    """Compute a layer in a graph of torch.compile.

    Args:
        layer: linear, or a convolution.
        x: [batch, ...].
        size: of the output.
    """
    relu = layer.activation is not None
    y: Tensor = csr(x, layer.weight, layer.bias, layer.handle, list(size), relu)
    return y


def _strides(size: Sequence[int]) -> list[int]:
    """Return how a layer's activations lie: features, or channels, with the batch innermost."""
    batch, *rest = size
    if len(rest) == 1:
        return [1, layout.leading(batch)]
    return [1, *(batch * math.prod(rest[i + 1 :]) for i in range(len(rest)))]


def _lying(x: Tensor, strides: Sequence[int]) -> Tensor:
    """Return a tensor that lies so in memory: itself, or a copy."""
    if all(size == 1 or a == b for size, a, b in zip(x.shape, x.stride(), strides, strict=True)):
        return x
    return x.new_empty_strided(x.shape, strides).copy_(x)


@torch.library.custom_op("regrow::csr", mutates_args=())
def csr(
    x: Tensor, values: Tensor, bias: Tensor | None, handle: Tensor, size: Sequence[int], relu: bool
) -> Tensor:
    """Compute the output of a layer."""
    layer: CsrLayer = layer_of(handle)
    layer.checked_values()
    return _lying(layer.compute(x, values, bias)[0], _strides(size))


@torch.library.custom_op("regrow::csr_backward", mutates_args=())
def csr_backward(
    grad: Tensor,
    x: Tensor,
    values: Tensor,
    y: Tensor | None,
    handle: Tensor,
    needs: Sequence[bool],
    batch_major: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of input, nonzeros and bias; empty ones for what is not needed."""
    layer: CsrLayer = layer_of(handle)
    x = layer.ready(x)
    kept = (layer.way(x), x, values, *(() if y is None else (y,)))
    made = layer.gradients(grad, kept, tuple(needs), batch_major=batch_major, lent=True)
    grad_x, grad_values, sums = (x.new_empty(0) if one is None else one for one in made)
    if needs[0] and not batch_major:
        grad_x = _lying(grad_x, _strides(x.shape))
    return grad_x, grad_values, sums


@csr.register_fake
def _(
    x: Tensor, values: Tensor, bias: Tensor | None, handle: Tensor, size: Sequence[int], relu: bool
) -> Tensor:
    return x.new_empty_strided(tuple(size), _strides(size))


@csr_backward.register_fake
def _(
    grad: Tensor,
    x: Tensor,
    values: Tensor,
    y: Tensor | None,
    handle: Tensor,
    needs: Sequence[bool],
    batch_major: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    nothing = x.new_empty(0)
    strides = None if batch_major else _strides(x.shape)
    grad_x = x.new_empty(x.shape) if strides is None else x.new_empty_strided(x.shape, strides)
    return (
        grad_x if needs[0] else nothing,
        x.new_empty(values.shape) if needs[1] else x.new_empty(0),
        x.new_empty(grad.shape[1]) if needs[2] else x.new_empty(0),
    )


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, values, bias, handle, _, relu = inputs
    ctx.save_for_backward(x, values, handle, *([output] if relu else []))
    # Of images the gradient always has the batch innermost.
    ctx.batch_major, ctx.has_bias = x.ndim == 2 and x.stride(0) != 1, bias is not None


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, values, handle, *output = ctx.saved_tensors
    needs_x, needs_values, needs_bias = ctx.needs_input_grad[:3]
    needs = [needs_x, needs_values, ctx.has_bias and needs_bias]
    y = output[0] if output else None
    made = csr_backward(grad, x, values, y, handle, needs, ctx.batch_major)
    given = (one if needed else None for one, needed in zip(made, needs, strict=True))
    return *given, None, None, None


csr.register_autograd(_backward, setup_context=_keep)
