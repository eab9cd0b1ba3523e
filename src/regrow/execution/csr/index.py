"""Where the nonzeros of one layer are: compressed rows, and the same nonzeros by column."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from regrow.execution.csr.compressed import Compressed
from regrow.execution.csr.dispatch import kernels

__all__ = ["Index"]


class Index:
    """The nonzeros of a matrix [rows, columns], in ascending order of their flat positions.

    An index never changes: a topology update makes a new one, in time linear in the nonzeros.

    Args:
        positions: flat positions of the nonzeros in the matrix, integers, strictly ascending.
        shape: (rows, columns); a convolution's weight is flattened to (out_channels, the rest).

    Raises:
        ValueError: positions are not strictly ascending, or not within the matrix; the shape is
            negative, or too large.
        TypeError: positions are no tensor of integers.

    Example:
        >>> index = Index(torch.tensor([1, 3, 4]), (2, 3))
        >>> index.pointers.tolist(), index.columns.tolist()
        ([0, 1, 3], [1, 0, 1])
    """

    def __init__(self, positions: Tensor, shape: tuple[int, int]) -> None:
        self.shape = (int(shape[0]), int(shape[1]))
        _require_integers(positions)
        if min(self.shape) < 0:
            raise ValueError(f"shape={shape}: rows and columns must be at least 0")
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
        rows = torch.arange(self.shape[0], device="cpu").repeat_interleave(
            self.pointers.diff(), output_size=len(self)
        )
        wide: Tensor = rows * self.shape[1] + self.columns
        return wide

    def tensors(self) -> list[Tensor]:
        """Return all that is held until now; the orders are made when they are first used."""
        made = [one for one in vars(self).values() if isinstance(one, Compressed)]
        return [self.pointers, self.columns, *(tensor for one in made for tensor in one.tensors())]

    def forget_orders(self) -> None:
        """Give back what is made of the index when it is used, until it is used again."""
        for name in ("forward", "transposed"):
            self.__dict__.pop(name, None)

    # Made when first used: a first layer needs no transposed order, inference neither.

    @cached_property
    def forward(self) -> Compressed:
        """The matrix by rows."""
        return Compressed(self.pointers, self.columns, self.shape[1])

    @cached_property
    def transposed(self) -> Compressed:
        """The matrix by columns; its values are found through a permutation."""
        rows, columns = self.shape
        made = kernels().transpose(self.pointers, self.columns, None, rows or 1, 0, columns)
        return Compressed(made[0], made[1], rows, made[2])


def _require_integers(positions: Any) -> None:
    """Raise TypeError unless positions are numbers that can be read: a mask is not positions."""
    kinds = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
    if isinstance(positions, Tensor) and positions.dtype in kinds and not positions.is_meta:
        return
    given = type(positions).__name__
    if isinstance(positions, Tensor):
        given = f"{positions.dtype} on {positions.device}"
    raise TypeError(
        f"positions are {given}; they must be a tensor of integers that holds numbers: of a mask, "
        "pass mask.flatten().nonzero().flatten()"
    )
