"""Where the nonzeros of one layer are: compressed rows, and the same nonzeros by column."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from regrow.execution.csr.native import kernels

if TYPE_CHECKING:
    from regrow.execution.csr.native import Matrix

__all__ = ["Compressed", "Index"]

# Columns that are read together. A narrow block keeps what is read close, and costs each row a pass
# over its sums: it pays for rows with many nonzeros in it.
_NARROW, _WIDE = 256, 1024
_WORTH = 20


class Compressed:
    """The structure of one sparse matrix, as the kernels read it.

    Args:
        pointers: int32 [rows + 1], the nonzeros of row r are pointers[r] up to pointers[r + 1].
        index: int32 [nonzeros], the column of each, ascending within a row.
        columns: how many columns there are.
        order: int32 [nonzeros], where the value of each nonzero lies; None: in its own place.
        width: columns that are read together, so that they stay in a cache; None chooses.
    """

    def __init__(
        self,
        pointers: Tensor,
        index: Tensor,
        columns: int,
        order: Tensor | None = None,
        width: int | None = None,
    ) -> None:
        self.pointers, self.index, self.columns, self.order = pointers, index, columns, order
        self.rows, self.nonzeros = len(pointers) - 1, len(index)
        self.width = width
        self._native: Matrix | None = None
        self._split: Tensor | None = None

    def block_width(self) -> int:
        """Return how many columns a block has, so that what it reads of x stays in a cache."""
        if self.width is not None:
            return self.width
        in_narrow = self.nonzeros / max(1, self.rows * self.columns) * _NARROW
        return _NARROW if in_narrow >= _WORTH else _WIDE

    def tensors(self) -> list[Tensor]:
        """Return all that is held."""
        held = (self.pointers, self.index, self.order, self._split)
        return [tensor for tensor in held if tensor is not None]

    def native(self, kind: type[Matrix]) -> Matrix:
        """Return the structure that the C kernels take; made once."""
        if self._native is None:
            width = self.block_width()
            blocks = max(1, math.ceil(self.columns / width))
            if blocks > 1:
                self._split = kernels().split(self.pointers, self.index, width, blocks)
            split = self.pointers if self._split is None else self._split
            self._native = kind(
                self.rows,
                blocks,
                1 if self._split is None else self.rows,
                self.pointers.data_ptr(),
                split.data_ptr(),
                self.index.data_ptr(),
                None if self.order is None else self.order.data_ptr(),
            )
        return self._native


class Index:
    """The nonzeros of a matrix [rows, columns], in ascending order of their flat positions.

    An index never changes: a topology update makes a new one, in time linear in the nonzeros.

    Args:
        positions: flat positions of the nonzeros in the matrix, integers, strictly ascending.
        shape: (rows, columns); a convolution's weight is flattened to (out_channels, the rest).

    Raises:
        ValueError: positions are not strictly ascending, or not within the matrix.

    Example:
        >>> index = Index(torch.tensor([1, 3, 4]), (2, 3))
        >>> index.pointers.tolist(), index.columns.tolist()
        ([0, 1, 3], [1, 0, 1])
    """

    def __init__(self, positions: Tensor, shape: tuple[int, int]) -> None:
        self.shape = (int(shape[0]), int(shape[1]))
        kept = positions.dtype if positions.dtype == torch.int32 else torch.int64
        positions = positions.detach().reshape(-1).to("cpu", kept).contiguous()
        if len(positions) >= 2**31 or max(self.shape) >= 2**31:
            raise ValueError(
                f"shape={shape}: at most 2³¹ - 1 rows, columns and nonzeros are allowed"
            )
        self.pointers, self.columns, wrong = kernels().rows_of(positions, *self.shape)
        if wrong >= 0:
            raise ValueError(
                f"positions[{wrong}] = {int(positions[wrong])}: positions must be strictly "
                f"ascending, at least 0 and below {math.prod(self.shape)}; sort them and drop "
                "duplicates"
            )
        self._forward: Compressed | None = None
        self._transposed: Compressed | None = None

    def __len__(self) -> int:
        return len(self.columns)

    def __repr__(self) -> str:
        return f"Index(nonzeros={len(self)}, shape={self.shape})"

    def __deepcopy__(self, memo: Any) -> Index:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Index, (self.positions, self.shape)

    @property
    def positions(self) -> Tensor:
        """The flat positions [nonzeros]: int32 where that is enough for the matrix, else int64."""
        if math.prod(self.shape) < 2**31:
            narrow: Tensor = kernels().positions_of(self.pointers, self.columns, self.shape[1])
            return narrow
        rows = torch.arange(self.shape[0]).repeat_interleave(
            self.pointers.diff(), output_size=len(self)
        )
        wide: Tensor = rows * self.shape[1] + self.columns
        return wide

    def tensors(self) -> list[Tensor]:
        """Return all that is held until now; the orders are made when they are first used."""
        made = [one for one in (self._forward, self._transposed) if one is not None]
        return [self.pointers, self.columns, *(tensor for one in made for tensor in one.tensors())]

    @property
    def forward(self) -> Compressed:
        """The matrix by rows."""
        if self._forward is None:
            self._forward = Compressed(self.pointers, self.columns, self.shape[1])
        return self._forward

    @property
    def transposed(self) -> Compressed:
        """The matrix by columns; its values are found through a permutation."""
        if self._transposed is None:
            rows, columns = self.shape
            made = kernels().transpose(self.pointers, self.columns, None, rows or 1, 0, columns)
            self._transposed = Compressed(made[0], made[1], rows, made[2])
        return self._transposed
