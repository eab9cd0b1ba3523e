"""Where the active blocks of a layer are: by block row, and by block column.

Blocks are numbered by flat position on the grid of b×b tiles, row by row. The forward pass walks a
block row, the gradient of the inputs a block column, the gradient of the weights block by block.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["BlockIndex", "grid"]


@dataclass(frozen=True)
class BlockIndex:
    """The active blocks of one weight (out, in), cut into b×b tiles.

    Everything lies in one int32 tensor, so that a layer can hold it as one buffer and write a new
    topology into the same memory. Its parts are views:

    - ``row_pointers`` (R+1): block row r holds the blocks ``row_pointers[r]:row_pointers[r + 1]``;
    - ``rows``, ``columns`` (n): block row and block column of each block;
    - ``column_pointers`` (C+1), ``rows_by_column`` (n): the same, sorted by column;
    - ``by_column`` (n): the number each of those has in row order.

    The grid is R×C = ⌈out/b⌉×⌈in/b⌉; tiles at the lower and right edge reach beyond the weight.

    Args:
        layout: all parts one after another; see :meth:`build`.
        n_blocks: n, the number of active blocks.
        shape: (out, in) of the weight.
        block: the side b of a block.

    Example:
        >>> index = BlockIndex.build(torch.tensor([1, 2, 3]), (4, 4), 2)
        >>> index.row_pointers.tolist(), index.columns.tolist()
        ([0, 1, 3], [1, 0, 1])
        >>> index.column_pointers.tolist(), index.rows_by_column.tolist()
        ([0, 1, 3], [1, 0, 1])
        >>> index.by_column.tolist()
        [1, 0, 2]
    """

    layout: Tensor
    n_blocks: int
    shape: tuple[int, int]
    block: int

    @staticmethod
    def build(positions: Tensor, shape: tuple[int, int], block: int) -> BlockIndex:
        """Build the index of these blocks, on their device and without waiting for it.

        Args:
            positions: (n,), flat positions of the active blocks, ascending.
            shape: (out, in) of the weight.
            block: the side b of a block.

        Raises:
            ValueError: positions are not a vector of whole numbers, or (checked on the CPU only,
                since a GPU would have to be waited for) do not ascend or leave the grid.
        """
        n_rows, n_columns = grid(shape, block)
        positions = _checked(positions, n_rows * n_columns).long()
        rows, columns = positions // n_columns, positions % n_columns
        by_column = columns.argsort(stable=True)

        def pointers(ordered: Tensor, bins: int) -> Tensor:
            return torch.searchsorted(ordered, torch.arange(bins + 1, device=ordered.device))

        n = len(positions)
        parts = (
            pointers(rows, n_rows),
            rows,
            columns,
            pointers(columns[by_column], n_columns),
            rows[by_column],
            by_column,
        )
        layout = positions.new_zeros(_sizes(n, n_rows, n_columns)[1][-1], dtype=torch.int32)
        index = BlockIndex(layout, n, shape, block)
        for i, part in enumerate(parts):
            index._part(i).copy_(part)
        return index

    def check(self) -> None:
        """Raise ValueError unless the layout is one of as many blocks.

        Lengths are rounded up, so that on a GPU, which is not waited for, up to three blocks more
        or fewer pass.
        """
        fits = len(self.layout) == _sizes(self.n_blocks, *self.grid)[1][-1]
        if fits and self.layout.device.type == "cpu":
            fits = int(self.row_pointers[-1]) == self.n_blocks
        if not fits:
            raise ValueError(
                f"weight holds {self.n_blocks} blocks, the topology another number: write "
                "weight.data together with set_topology_"
            )

    @property
    def grid(self) -> tuple[int, int]:
        """(R, C): block rows and block columns."""
        return grid(self.shape, self.block)

    @property
    def row_pointers(self) -> Tensor:
        """Where each block row begins, and the last one ends."""
        return self._part(0)

    @property
    def rows(self) -> Tensor:
        """The block row of each block."""
        return self._part(1)

    @property
    def columns(self) -> Tensor:
        """The block column of each block."""
        return self._part(2)

    @property
    def column_pointers(self) -> Tensor:
        """Where each block column begins in column order, and the last one ends."""
        return self._part(3)

    @property
    def rows_by_column(self) -> Tensor:
        """The block row of each block, in column order."""
        return self._part(4)

    @property
    def by_column(self) -> Tensor:
        """The number in row order of each block, in column order."""
        return self._part(5)

    @property
    def positions(self) -> Tensor:
        """Flat positions of the blocks on the grid, ascending, int64."""
        return self.rows.long() * self.grid[1] + self.columns

    @staticmethod
    def places(n: int, shape: tuple[int, int], block: int) -> list[tuple[int, int]]:
        """Say where each part begins in a layout, and how long it is."""
        sizes, starts = _sizes(n, *grid(shape, block))
        return list(zip(starts, sizes, strict=False))

    def _part(self, i: int) -> Tensor:
        return self.layout.narrow(0, *self.places(self.n_blocks, self.shape, self.block)[i])


def grid(shape: tuple[int, int], block: int) -> tuple[int, int]:
    """Count the block rows and block columns of a weight.

    Args:
        shape: (out, in).
        block: the side b of a block.

    Raises:
        ValueError: a size is below 1.

    Example:
        >>> grid((100, 64), 32)
        (4, 2)
    """
    if min(*shape, block) < 1:
        raise ValueError(f"shape={shape}, block={block}: sizes must be at least 1")
    return -(-shape[0] // block), -(-shape[1] // block)


def _sizes(n: int, n_rows: int, n_columns: int) -> tuple[list[int], list[int]]:
    """Say how long each part is and where it starts: at multiples of four.

    Triton compiles a kernel anew for pointers that are not aligned to 16 bytes.
    """
    sizes = [n_rows + 1, n, n, n_columns + 1, n, n]
    starts = [0]
    for size in sizes:
        starts.append(starts[-1] + -(-size // 4) * 4)
    return sizes, starts


def _checked(positions: Tensor, n_cells: int) -> Tensor:
    if positions.ndim != 1 or positions.is_floating_point() or positions.dtype == torch.bool:
        raise ValueError(
            f"positions: {positions.dtype} of shape {tuple(positions.shape)}; a vector of whole "
            "numbers is needed, such as mask.flatten().nonzero().squeeze(1)"
        )
    if positions.device.type == "cpu" and len(positions):
        low, high = int(positions.min()), int(positions.max())
        if low < 0 or high >= n_cells:
            raise ValueError(
                f"positions from {low} to {high}: the grid has blocks 0 to {n_cells - 1}"
            )
        if bool((positions[1:] <= positions[:-1]).any()):
            raise ValueError("positions must ascend, each block once: sort them, drop duplicates")
    return positions
