"""The product of a linear layer whose weight is 2:4 sparse, differentiable.

Forward passes multiply a packed weight. Its gradients are dense products: that of the inputs sums
over outputs, along which the weight is not 2:4, and that of the weight has no sparse factor.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from regrow.execution.two_four import library

__all__ = ["two_four_linear"]


def two_four_linear(x: Tensor, weight: Tensor, mask: Tensor, bias: Tensor | None) -> Tensor:
    """Compute Y = X·(W∘M)ᵀ + bias; differentiable once, and the gradient of W is dense.

    Args:
        x: (tokens, in).
        weight: (out, in), one that :func:`regrow.execution.two_four.library.why_dense` lets pass.
        mask: (out, in), of the weight's dtype, two ones among every four inputs.
        bias: (out,) or None.
    """
    # The operator is for torch.compile, which sees it; it costs more of the host's time.
    y: Tensor = (
        two_four_operator(x, weight, mask, bias)
        if torch.compiler.is_compiling()
        else _TwoFour.apply(x, weight, mask, bias)  # type: ignore[no-untyped-call]
    )
    return y


def _forward(x: Tensor, weight: Tensor, mask: Tensor, bias: Tensor | None) -> Tensor:
    # Masked again: what others wrote outside the mask would take a weight's place in silence.
    packed = library.pack((weight * mask).contiguous())
    return library.product(x, packed, bias, len(weight))


two_four_operator = torch.library.custom_op("regrow::two_four_linear", _forward, mutates_args=())


@two_four_operator.register_fake
def _(x: Tensor, weight: Tensor, mask: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:3])


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, mask = ctx.saved_tensors
    needs = ctx.needs_input_grad
    return (
        gradient @ (weight * mask) if needs[0] else None,
        gradient.mT @ x if needs[1] else None,
        None,
        gradient.sum(0) if needs[3] else None,
    )


two_four_operator.register_autograd(_backward, setup_context=_keep)


class _TwoFour(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, mask: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight, mask)
        return _forward(x, weight, mask, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return _backward(ctx, gradient)
