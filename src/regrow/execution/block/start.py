"""Starts Triton kernels: compiled for their arguments the first time, called directly ever after.

Triton looks at every argument at every launch for what it has to compile, which takes the host
longer than many a kernel takes. A `Launch` is made for one set of sizes and asks nothing again.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["Launch", "Tile"]


class Tile:
    """How the GPU's copy engine fetches a matrix: tile by tile, by a descriptor of its memory.

    Args:
        dtype: of the matrix.
        shape: its rows and columns, which lie one after another.
        tile: rows and columns of a tile.
    """

    def __init__(self, dtype: torch.dtype, shape: tuple[int, int], tile: tuple[int, int]) -> None:
        self.dtype, self.shape, self.tile = dtype, shape, tile
        self._made: dict[int, Any] = {}

    def at(self, address: int) -> Any:
        """Return the descriptor of a matrix that begins there, a multiple of 16."""
        found = self._made.get(address)
        if found is None:
            if len(self._made) >= 64:  # where memory is another in every step
                self._made.clear()
            found = self._made[address] = _descriptors()(
                _At(address, self.dtype), list(self.shape), [self.shape[1], 1], list(self.tile)
            )
        return found

    def of(self, matrix: Tensor) -> Any:
        """Return the descriptor that Triton makes itself."""
        return _descriptors().from_tensor(matrix.view(self.shape), list(self.tile))


class Launch:
    """A launch of a kernel, with all that is the same in every step.

    Args:
        kernel: made by ``triton.jit``.
        grid: the number of programs.
        tiles: of each tensor that is given, how it is fetched; None: by address.
        parts: begin and length of each part of a layout, int32, that follows the tensors.
        sizes: the whole numbers that follow.
        constants: what it is compiled for, which comes last.
        warps: warps of a program.
        stages: loads in flight.
    """

    def __init__(
        self,
        kernel: Any,
        grid: tuple[int, int, int],
        tiles: tuple[Tile | None, ...],
        parts: tuple[tuple[int, int], ...],
        sizes: tuple[int, ...],
        constants: tuple[object, ...],
        warps: int,
        stages: int,
    ) -> None:
        self.kernel, self.grid, self.tiles, self.parts = kernel, grid, tiles, parts
        self.fixed = (*sizes, *constants)
        self.how = {"num_warps": warps, "num_stages": stages}
        self._compiled: Callable[..., object] | None = None

    def start(self, tensors: tuple[Tensor, ...], layout: Tensor) -> None:
        """Launch the kernel on the device of the tensors, in the current stream.

        Args:
            tensors: contiguous; of the same devices and dtypes at every start.
            layout: what ``parts`` are parts of.
        """
        # Triton launches on the device that is the current one, wherever its arguments are.
        if layout.is_cuda and layout.get_device() != torch.cuda.current_device():
            with torch.cuda.device_of(layout):
                self.start(tensors, layout)
            return
        together = first = layout.data_ptr()
        values: list[object] = []
        for tensor, tile in zip(tensors, self.tiles, strict=True):
            address = tensor.data_ptr()
            together |= address
            values.append(address if tile is None else tile.at(address))
        # Triton compiles anew for addresses off 16 bytes; they are rare, and left to it.
        if together % 16:
            self._by_triton(tensors, layout)
        elif self._compiled is None:
            compiled = self._by_triton(tensors, layout)
            if compiled is not None:  # None: by the interpreter
                self._compiled = compiled[self.grid]
        else:
            self._compiled(*values, *[first + 4 * begin for begin, _ in self.parts], *self.fixed)

    def _by_triton(self, tensors: tuple[Tensor, ...], layout: Tensor) -> Any:
        pairs = zip(tensors, self.tiles, strict=True)
        given = [tensor if tile is None else tile.of(tensor) for tensor, tile in pairs]
        given += [layout.narrow(0, begin, size) for begin, size in self.parts]
        return self.kernel[self.grid](*given, *self.fixed, **self.how)


class _At:
    """What a descriptor asks of a tensor, whose memory it does not keep alive."""

    def __init__(self, address: int, dtype: torch.dtype) -> None:
        self.address, self.dtype = address, dtype

    def data_ptr(self) -> int:
        return self.address


@functools.cache
def _descriptors() -> Any:
    return importlib.import_module("triton.tools.tensor_descriptor").TensorDescriptor
