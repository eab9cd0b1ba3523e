"""Makes the stored module (csr or block) that takes a dense layer's place."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from regrow.engine.patterns import Block, Pattern
from regrow.execution.stored_module import StoredModule

__all__ = ["stored_module"]


def kind_of(module: nn.Module) -> type[nn.Module]:
    """Return the type of layer that a module computes as.

    A subclass may compute something else in its forward, so it counts as a type of its own, unless
    its ``stored_as`` names the type that it equals.

    Example:
        >>> kind_of(nn.Linear(1, 1)).__name__
        'Linear'
    """
    own = type(module)
    return cast(type[nn.Module], vars(own).get("stored_as", own))


def stored_module(
    dense: nn.Module, positions: Tensor, values: Tensor, bias: Tensor | None, pattern: Pattern
) -> StoredModule:
    """Make a layer that computes what a dense one does, from its active weights alone.

    Args:
        dense: gives the geometry.
        positions: the active units, ascending.
        values: theirs.
        bias: a Parameter is taken over as it is.
        pattern: Element() for csr, a Block for blocks.
    """
    if isinstance(pattern, Block):
        from regrow.execution.block import BlockLinear  # noqa: PLC0415 no Triton for csr

        linear = cast(nn.Linear, dense)
        return BlockLinear(linear.in_features, linear.out_features, positions, values, bias)
    if isinstance(dense, nn.Linear):
        from regrow.execution.csr.linear import CsrLinear  # noqa: PLC0415 no kernels for blocks

        return CsrLinear(dense.in_features, dense.out_features, positions, values, bias)
    from regrow.execution.csr.conv import CsrConv1d, CsrConv2d, CsrConv3d  # noqa: PLC0415

    kinds: dict[type[nn.Module], type[CsrConv1d | CsrConv2d | CsrConv3d]]
    kinds = {nn.Conv1d: CsrConv1d, nn.Conv2d: CsrConv2d, nn.Conv3d: CsrConv3d}
    conv = cast(nn.Conv2d, dense)
    return kinds[kind_of(conv)](
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,
        positions,
        values,
        bias,
        stride=conv.stride,
        padding=conv.padding,
        dilation=conv.dilation,
        groups=conv.groups,
    )
