"""Functions whose values do not hang on what else is in a tensor."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

__all__ = ["steady"]


def steady(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return a transcendental function of every element, the same alone and among others.

    Vector instructions of a CPU round the last bit otherwise than what is used for the elements
    that are left over at a tensor's end; in float64 that bit is far below float32's. GPUs compute
    each element alike.

    Args:
        function: such as ``torch.tanh``.
        x: float32.

    Example:
        >>> import torch
        >>> x = torch.linspace(-2, 2, 37)
        >>> torch.equal(steady(torch.tanh, x)[-1:], steady(torch.tanh, x[-1:]))
        True
    """
    return function(x) if x.device.type != "cpu" else function(x.double()).float()
