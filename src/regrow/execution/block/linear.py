"""A linear layer that stores and computes the active blocks of its weight only."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from regrow.engine.resize import resize_
from regrow.execution.block.collect import known_, wanted_by_
from regrow.execution.block.dense import scatter_blocks
from regrow.execution.block.index import BlockIndex
from regrow.execution.block.operations import block_linear
from regrow.execution.stored_module import StoredModule

__all__ = ["BlockLinear"]


class BlockLinear(StoredModule):
    """A linear layer whose weight is zero outside some b×b blocks: y = x·Wᵀ + bias.

    Where b does not divide the layer, blocks at the edge reach beyond it: those entries take no
    part, and get a gradient of zero. On a GPU the products run in Triton kernels (b of 32, 64 or
    128; bfloat16, float16, float32), elsewhere in plain torch. They can be differentiated once.

    The gradient of the whole dense weight, which growing by gradient needs, is formed on demand:
    with ``captures`` True a backward pass keeps the layer's inputs and output gradients, until
    ``release()``. torch.compile sees operators, the same in such a pass as in any other. ONNX,
    which has no products of blocks, gets a dense one.

    Args:
        in_features: size of the last dimension of the input.
        out_features: size of the last dimension of the output.
        positions: (n,), flat positions of the active blocks on the grid ⌈out/b⌉×⌈in/b⌉, ascending.
        values: (n, b, b), the blocks in that order, zero beyond the weight's edges; a Parameter is
            taken over as it is.
        bias: (out,) or None; a Parameter is taken over as it is.

    Attributes:
        weight: Parameter (n, b, b).
        captures: whether backward passes keep what dense gradients are made of.

    Raises:
        ValueError: values, bias or positions do not fit.

    Example:
        >>> layer = BlockLinear(6, 4, torch.tensor([0, 2]), torch.ones(2, 2, 2))
        >>> layer(torch.ones(3, 5, 6)).shape, layer.dense_weight()[0].tolist()
        (torch.Size([3, 5, 4]), [1.0, 1.0, 0.0, 0.0, 1.0, 1.0])
    """

    layout: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        positions: Tensor,
        values: Tensor,
        bias: Tensor | None = None,
    ) -> None:
        super().__init__()
        if values.ndim != 3 or values.shape != (len(positions), *values.shape[1:2] * 2):
            raise ValueError(
                f"values of shape {tuple(values.shape)}: {len(positions)} square blocks are needed"
            )
        if bias is not None and bias.shape != (out_features,):
            raise ValueError(f"bias of shape {tuple(bias.shape)}: ({out_features},) is needed")
        self.in_features, self.out_features, self.block = in_features, out_features, values.shape[1]
        self.weight = _parameter(values)
        self.register_parameter("bias", None if bias is None else _parameter(bias))
        index = BlockIndex.build(positions, (out_features, in_features), self.block)
        self.n_blocks = index.n_blocks
        self.register_buffer("layout", index.layout.to(values.device))
        known_(self)

    @property
    def captures(self) -> bool:
        """Whether backward passes keep what dense gradients are made of."""
        return self._captures

    @captures.setter
    def captures(self, wanted: bool) -> None:
        self._captures = wanted
        wanted_by_(self, wanted)

    @property
    def index(self) -> BlockIndex:
        """Where the active blocks are."""
        shape = (self.out_features, self.in_features)
        return BlockIndex(self.layout, self.n_blocks, shape, self.block)

    @property
    def positions(self) -> Tensor:
        """Flat positions of the active blocks on the grid, ascending, int64."""
        return self.index.positions

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in) to (..., out).

        Raises:
            TypeError: x has another dtype than the weight, outside autocast.
            ValueError: x has another number of features, or weight does not fit the index.
        """
        if x.shape[-1] != self.in_features:
            raise ValueError(
                f"input of shape {tuple(x.shape)}: its last size must be {self.in_features}"
            )
        weight: Tensor = self.weight
        bias: Tensor | None = self.bias
        # A compiled graph would be compiled anew for every number that it is compared with.
        if not torch.compiler.is_compiling() and weight.shape[0] != self.n_blocks:
            raise ValueError(
                f"weight holds {weight.shape[0]} blocks, the topology {self.n_blocks}: write "
                "weight.data together with set_topology_"
            )
        kind = x.device.type
        if torch.is_autocast_enabled(kind) and x.dtype != torch.float64:
            dtype = torch.get_autocast_dtype(kind)
            x, weight = x.to(dtype), weight.to(dtype)
            bias = None if bias is None else bias.to(dtype)
        elif x.dtype != weight.dtype:
            raise TypeError(f"input is {x.dtype}, weight {weight.dtype}: cast one, or use autocast")
        if _for_onnx():  # which has no products of blocks
            return functional.linear(
                x, scatter_blocks(weight, self.positions, self.index.shape), bias
            )
        return block_linear(x, weight, bias, self.layout, self.out_features, self.gathers)

    def dense_weight(self) -> Tensor:
        """Write the blocks into a dense weight (out, in); gradients flow back."""
        return scatter_blocks(self.weight, self.positions, self.index.shape)

    def index_of(self, positions: Tensor) -> BlockIndex:
        """Return the index that :meth:`set_topology_` takes as well, on the layer's device.

        Raises:
            ValueError: positions do not ascend, or leave the grid.
        """
        index = BlockIndex.build(positions, self.index.shape, self.block)
        return replace(index, layout=index.layout.to(self.layout.device))

    def set_topology_(self, positions: BlockIndex | Tensor) -> None:
        """Put the blocks elsewhere; the caller writes ``weight``, whose length must fit.

        With as many blocks as before the index keeps its memory: a captured CUDA graph goes on.

        Args:
            positions: (m,), flat positions of the active blocks, ascending; or a `BlockIndex`.

        Raises:
            ValueError: positions do not ascend, or leave the grid.
        """
        index = positions if isinstance(positions, BlockIndex) else self.index_of(positions)
        if index.n_blocks == self.n_blocks:
            self.layout.copy_(index.layout)
        else:
            self.n_blocks, self.layout = index.n_blocks, index.layout

    @torch.no_grad()
    def gradient_rows(self, first: int, end: int) -> Tensor:
        """Form rows first..end-1 of the dense weight's gradient from what was captured.

        Args:
            first: the first row.
            end: the row after the last one.

        Returns:
            (end - first, in), of the weight's dtype.

        Raises:
            RuntimeError: nothing was captured.
        """
        if not self.captured:
            raise RuntimeError(
                "no gradient was captured: set captures = True before the backward pass"
            )
        tile = self.weight.new_zeros(end - first, self.in_features)
        for x, gradient in self.captured:
            tile += gradient[:, first:end].mT @ x
        return tile

    def computed_by(self) -> str:
        """Name the kernels in use: Triton's on a GPU, torch's batched products elsewhere."""
        return "Triton kernels" if self.weight.is_cuda else "torch (blocks are fast on GPUs only)"

    def topology_bytes(self) -> int:
        """Count the bytes of the index."""
        return self.layout.nbytes

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Take over a checkpoint's number of blocks, which may have changed on the way there."""
        weight, layout = state_dict.get(prefix + "weight"), state_dict.get(prefix + "layout")
        before = self.positions
        if weight is not None and layout is not None and len(weight) != self.n_blocks:
            self.n_blocks = len(weight)
            resize_(self.weight, self.weight.new_empty(len(weight), self.block, self.block))
            self.layout = torch.empty_like(layout, device=self.layout.device)
        super()._load_from_state_dict(state_dict, prefix, *rest)
        if not torch.equal(before, self.positions.to(before.device)):
            self.displaced_(before)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self.captures = state.get("_captures", False)
        known_(self)

    def extra_repr(self) -> str:
        """Return sizes, the block's side, and how many are active."""
        n_rows, n_columns = self.index.grid
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"block={self.block}, active={self.n_blocks} of {n_rows * n_columns}, "
            f"bias={self.bias is not None}"
        )


def _parameter(values: Tensor) -> nn.Parameter:
    return values if isinstance(values, nn.Parameter) else nn.Parameter(values)


def _for_onnx() -> bool:
    """Tell whether the layer is called by an export to ONNX, either of torch's two."""
    # The cheapest questions first: this is asked at every call.
    tracing: bool = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    return (torch.compiler.is_exporting() or tracing) and torch.onnx.is_in_onnx_export()
