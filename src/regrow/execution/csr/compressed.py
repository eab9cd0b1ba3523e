"""The structure of one sparse matrix in compressed rows, as the kernels read it."""

from __future__ import annotations

from torch import Tensor

from regrow.execution.csr.native import Matrix

__all__ = ["Compressed"]

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

    Attributes:
        split: where each row passes from one block of columns to the next; None until it is made.
        struct: the same structure as C reads it; None until it is made. It points into the tensors
            above, which therefore have to live as long.
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
        self.split: Tensor | None = None
        self.struct: Matrix | None = None

    def block_width(self) -> int:
        """Return how many columns a block has, so that what it reads of x stays in a cache."""
        if self.width is not None:
            return self.width
        in_narrow = self.nonzeros / max(1, self.rows * self.columns) * _NARROW
        return _NARROW if in_narrow >= _WORTH else _WIDE

    def tensors(self) -> list[Tensor]:
        """Return all that is held."""
        held = (self.pointers, self.index, self.order, self.split)
        return [tensor for tensor in held if tensor is not None]
