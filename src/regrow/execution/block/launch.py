"""The products of block-sparse layers and their gradients, by Triton kernels."""

from __future__ import annotations

from regrow.execution.block import outer, products
from regrow.execution.block.outer import weight_gradient
from regrow.execution.block.products import forward, input_gradient

__all__ = ["forget", "forward", "input_gradient", "weight_gradient"]


def forget() -> None:
    """Choose anew from now on: tiles have been changed."""
    products.forget()
    outer.forget()
