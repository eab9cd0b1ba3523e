"""Block-sparse products, differentiable; torch.compile sees them as operators.

Operators are ``regrow::block_linear`` and its two gradients; each runs the Triton kernels on a
GPU and the plain torch reference elsewhere (and for float64).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from regrow.execution.block import reference
from regrow.execution.block.collect import collect, note_capture_
from regrow.execution.block.index import BlockIndex

__all__ = ["block_linear"]


def _backend(x: Tensor) -> ModuleType:
    return _launch() if x.is_cuda and x.dtype != torch.float64 else reference


@functools.cache
def _launch() -> ModuleType:
    from regrow.execution.block import launch  # noqa: PLC0415 (imports Triton)

    return launch


def _forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, layout: Tensor, out_features: int
) -> Tensor:
    """Compute :func:`block_linear` of a matrix."""
    n_blocks, block, _ = weight.shape
    index = BlockIndex(layout, n_blocks, (out_features, x.shape[1]), block)
    note_capture_(layout)
    y: Tensor = _backend(x).forward(x.contiguous(), weight.contiguous(), bias, index)
    return y.contiguous()


def _checked_forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    layout: Tensor,
    out_features: int,
    kept: bool = False,
) -> Tensor:
    """Compute :func:`block_linear` in a graph, which has not looked whether the weight fits."""
    BlockIndex(layout, len(weight), (out_features, x.shape[1]), weight.shape[1]).check()
    return _forward(x, weight, bias, layout, out_features)


def _input_gradient(gradient: Tensor, weight: Tensor, layout: Tensor, in_features: int) -> Tensor:
    """Compute dX = dY·W with a block-sparse W."""
    index = BlockIndex(layout, len(weight), (gradient.shape[1], in_features), weight.shape[1])
    backend = _backend(gradient)
    dx: Tensor = backend.input_gradient(gradient.contiguous(), weight.contiguous(), index)
    return dx.contiguous()


def _weight_gradient(
    gradient: Tensor, x: Tensor, layout: Tensor, n_blocks: int, block: int
) -> Tensor:
    """Compute dW = dYᵀ·X at the active blocks of W; what lies beyond the edges of W is zero."""
    index = BlockIndex(layout, n_blocks, (gradient.shape[1], x.shape[1]), block)
    dw: Tensor = _backend(x).weight_gradient(gradient.contiguous(), x.contiguous(), index)
    return dw


def _kept_weight_gradient(
    gradient: Tensor, x: Tensor, layout: Tensor, n_blocks: int, block: int
) -> Tensor:
    """Compute :func:`_weight_gradient`, and keep copies of x and dY if an update will ask."""
    collect(layout, x, gradient, lent=True)
    return _weight_gradient(gradient, x, layout, n_blocks, block)


def _owned_weight_gradient(gradient: Tensor, x: Tensor, layout: Tensor, *sizes: int) -> Tensor:
    """Do the same without copies, where nobody else writes into x and dY."""
    collect(layout, x, gradient, lent=False)
    return _weight_gradient(gradient, x, layout, *sizes)


def block_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    layout: Tensor,
    out_features: int,
    kept: bool = False,
) -> Tensor:
    """Compute Y = X·Wᵀ + bias with a block-sparse W: (..., in) → (..., out); differentiable once.

    Args:
        x: (..., in).
        weight: (n, b, b), the active blocks in the order of the index.
        bias: (out,) or None.
        layout: the block index, see :class:`BlockIndex`.
        out_features: out.
        kept: whether updates may want to keep x and dY. CUDA graphs that torch.compile makes then
            leave the gradient of the weight out: what is replayed could keep nothing.

    Raises:
        ValueError: the weight holds another number of blocks than the layout.
    """
    # The registered operator costs a few hundred microseconds of the host's time in every pass.
    if torch.compiler.is_compiling():
        flat = x.reshape(-1, x.shape[-1])
        y: Tensor = block_operator(flat, weight, bias, layout, out_features, kept)
        return y.view(*x.shape[:-1], out_features)
    whole: Tensor = _BlockLinear.apply(x, weight, bias, layout, out_features, kept)
    return whole


# The same as operators, which torch.compile can see.
block_operator = torch.library.custom_op("regrow::block_linear", _checked_forward, mutates_args=())
block_input_gradient = torch.library.custom_op(
    "regrow::block_input_gradient", _input_gradient, mutates_args=()
)
block_weight_gradient = torch.library.custom_op(
    "regrow::block_weight_gradient", _weight_gradient, mutates_args=()
)
# Known to torch from 2.9 on; before, inductor has no graphs that leave operators out.
_UNSAFE: Any = (
    {"tags": [torch.Tag.cudagraph_unsafe]} if hasattr(torch.Tag, "cudagraph_unsafe") else {}
)
block_kept_weight_gradient = torch.library.custom_op(
    "regrow::block_kept_weight_gradient", _kept_weight_gradient, mutates_args=(), **_UNSAFE
)


@block_operator.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    layout: Tensor,
    out_features: int,
    kept: bool = False,
) -> Tensor:
    return x.new_empty(x.shape[0], out_features)


@block_input_gradient.register_fake
def _(gradient: Tensor, weight: Tensor, layout: Tensor, in_features: int) -> Tensor:
    return gradient.new_empty(gradient.shape[0], in_features)


@block_weight_gradient.register_fake
@block_kept_weight_gradient.register_fake
def _(gradient: Tensor, x: Tensor, layout: Tensor, n_blocks: int, block: int) -> Tensor:
    return x.new_empty(n_blocks, block, block)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, bias, layout, _, kept = inputs
    ctx.save_for_backward(x, weight, layout)
    ctx.has_bias, ctx.kept = bias is not None, kept


def _gradients(
    ctx: Any, gradient: Tensor, for_x: Callable[..., Tensor], for_weight: Callable[..., Tensor]
) -> tuple[Tensor | None, ...]:
    x, weight, layout = ctx.saved_tensors
    shape = x.shape
    if len(shape) != 2:
        x, gradient = x.reshape(-1, shape[-1]), gradient.reshape(-1, gradient.shape[-1])
    needs_x, needs_weight, needs_bias = ctx.needs_input_grad[:3]
    dx = for_x(gradient, weight, layout, x.shape[1]) if needs_x else None
    return (
        dx if dx is None or len(shape) == 2 else dx.view(shape),
        for_weight(gradient, x, layout, weight.shape[0], weight.shape[1]) if needs_weight else None,
        gradient.sum(0) if ctx.has_bias and needs_bias else None,
        None,
        None,
        None,
    )


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    for_weight = block_kept_weight_gradient if ctx.kept else block_weight_gradient
    return _gradients(ctx, gradient, block_input_gradient, for_weight)


block_operator.register_autograd(_backward, setup_context=_keep)


def _eager_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    for_weight = _owned_weight_gradient if ctx.kept else _weight_gradient
    return _gradients(ctx, gradient, _input_gradient, for_weight)


class _BlockLinear(torch.autograd.Function):
    @classmethod
    def apply(cls, *inputs: Any) -> Any:
        # torch's own takes forward's signature apart at every call, for arguments left out.
        if torch._C._are_functorch_transforms_active():
            return super().apply(*inputs)  # type: ignore[no-untyped-call]
        return super(torch.autograd.Function, cls).apply(*inputs)  # type: ignore[misc]

    @staticmethod
    def forward(
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        layout: Tensor,
        out_features: int,
        kept: bool,
    ) -> Tensor:
        # Here, where no graph is made of them, views cost less.
        matrix = x if x.ndim == 2 else x.reshape(-1, x.shape[-1])
        y = _forward(matrix, weight, bias, layout, out_features)
        if matrix is x and not y._is_view():
            return y
        # No view to autograd, which refuses to let others write into views that come from here.
        whole: Tensor = torch.ops.aten._unsafe_view.default(y, (*x.shape[:-1], out_features))
        return whole

    setup_context = staticmethod(_keep)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        # What refuses a second derivative costs time, and matters only where one may follow.
        return (_once if torch.is_grad_enabled() else _eager_backward)(ctx, gradient)


_once = once_differentiable(_eager_backward)
