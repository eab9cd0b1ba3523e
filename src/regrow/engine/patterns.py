"""Patterns: which weights form a unit, to be kept, dropped and grown together.

A pattern maps a weight to a grid of units. Selection works on the grid and never learns what lies
behind it, so every method runs on every pattern. Weights are laid out (out, in, *kernel); those
that are stored otherwise are seen so (:mod:`regrow.engine.layouts`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from regrow.engine.allocation import units_kept
from regrow.engine.selection import random_k, top_k, top_per_group

__all__ = ["NM", "Block", "Channel", "Element", "FanIn", "InputChannel", "Kernel", "Pattern"]

Shape = tuple[int, ...]


class Pattern(ABC):
    """How the weights of one layer fall into units.

    A subclass answers three questions: the grid's shape, the sum of a tensor over each unit, and
    which weights the chosen units hold.

    Attributes:
        single: whether every unit is one weight.
        by_output: whether units or groups belong to one output or one input, so that it matters
            which dimension of a weight is which; weights are seen here as (out, in, ...).
    """

    single: ClassVar[bool] = False
    by_output: ClassVar[bool] = False

    @abstractmethod
    def grid(self, shape: Shape) -> Shape:
        """Return the shape of the grid of units of a weight of this shape."""

    @abstractmethod
    def reduce(self, values: Tensor) -> Tensor:
        """Sum a tensor of the weight's shape over each unit; the result has the grid's shape."""

    @abstractmethod
    def expand(self, units: Tensor, shape: Shape) -> Tensor:
        """Spread a tensor on the grid over the weights; the result has the weight's shape."""

    def group(self, shape: Shape) -> int | None:
        """Return how many consecutive units form a group, all groups keeping equally many.

        None: units are free to move anywhere in the layer.
        """
        return None

    def allows(self, units: Tensor) -> bool:
        """Tell whether groups, if units fall into any, keep equally many of them."""
        return True

    def units(self, shape: Shape) -> int:
        """Count the units of a weight of this shape.

        Example:
            >>> Kernel().units((64, 32, 3, 3))
            2048
        """
        return math.prod(self.grid(shape))

    def kept(self, density: float, shape: Shape) -> int:
        """Turn a density into a number of units to keep, at least one and at most all.

        Example:
            >>> Element().kept(0.1, (5, 5))
            3
        """
        return units_kept(density, self.units(shape))

    def draw(self, k: int, free: Tensor, n_free: int, generator: torch.Generator) -> Tensor:
        """Draw k of the free units at random; bool tensor on the grid."""
        return random_k(k, free, generator, n_allowed=n_free)

    def best(self, k: int, worth: Tensor) -> Tensor:
        """Choose the k units worth most; where they fall into groups, as many in each.

        Args:
            k: how many units to choose; with groups, a multiple of their number.
            worth: of every unit, on the grid; -∞ where a unit cannot be chosen.

        Returns:
            Bool tensor on the grid with k True; of equal units those of the lower flat index.

        Example:
            >>> worth = torch.tensor([[4.0, 3.0, 2.0, 1.0]])
            >>> Element().best(2, worth).tolist(), NM(1, 2).best(2, worth).tolist()
            ([[True, True, False, False]], [[True, False, True, False]])
        """
        return top_k(worth, k)


@dataclass(frozen=True)
class Element(Pattern):
    """Every weight is a unit: unstructured sparsity.

    Example:
        >>> Element().grid((8, 4, 3, 3))
        (8, 4, 3, 3)
    """

    single: ClassVar[bool] = True

    def grid(self, shape: Shape) -> Shape:
        """Return the weight's own shape."""
        return shape

    def reduce(self, values: Tensor) -> Tensor:
        """Return the values themselves."""
        return values

    def expand(self, units: Tensor, shape: Shape) -> Tensor:
        """Return the units themselves."""
        return units


@dataclass(frozen=True)
class Kernel(Pattern):
    """Every (out, in) pair is a unit: the whole kernel of a convolution of any dimension.

    A linear layer's kernels hold one weight each. In a grouped convolution, transposed or not, a
    pair is an output and an input of its group.

    Source: the granularity of dynamic sparse feature fusion, E2ENet (arXiv 2312.04727).

    Example:
        >>> Kernel().grid((8, 4, 3, 3))
        (8, 4)
    """

    def grid(self, shape: Shape) -> Shape:
        """Return (out, in)."""
        return shape[:2]

    def reduce(self, values: Tensor) -> Tensor:
        """Sum over the kernel's dimensions."""
        return values.flatten(2).sum(2) if values.ndim > 2 else values

    def expand(self, units: Tensor, shape: Shape) -> Tensor:
        """Repeat each pair's value over its kernel."""
        return units.reshape(units.shape + (1,) * (len(shape) - 2)).expand(shape)


@dataclass(frozen=True)
class Channel(Pattern):
    """Every output channel (row of the weight) is a unit.

    Example:
        >>> Channel().grid((8, 4, 3, 3))
        (8,)
    """

    by_output: ClassVar[bool] = True

    def grid(self, shape: Shape) -> Shape:
        """Return (out,)."""
        return shape[:1]

    def reduce(self, values: Tensor) -> Tensor:
        """Sum over everything but the output channel."""
        return values.flatten(1).sum(1)

    def expand(self, units: Tensor, shape: Shape) -> Tensor:
        """Repeat each channel's value over its weights."""
        return units.reshape(units.shape + (1,) * (len(shape) - 1)).expand(shape)


@dataclass(frozen=True)
class InputChannel(Pattern):
    """Every input channel (column of the weight) is a unit: all outputs read it, or none does.

    What is left is a dense layer of fewer inputs. Of a grouped convolution a unit is one input of
    every group.

    Example:
        >>> InputChannel().grid((8, 4, 3, 3))
        (4,)
    """

    by_output: ClassVar[bool] = True

    def grid(self, shape: Shape) -> Shape:
        """Return (in,)."""
        return shape[1:2]

    def reduce(self, values: Tensor) -> Tensor:
        """Sum over everything but the input channel."""
        return values.flatten(2).sum((0, 2)) if values.ndim > 2 else values.sum(0)

    def expand(self, units: Tensor, shape: Shape) -> Tensor:
        """Repeat each channel's value over its weights."""
        return units.reshape(1, -1, *(1,) * (len(shape) - 2)).expand(shape)


@dataclass(frozen=True)
class Block(Pattern):
    """Every b×b tile of the matrix (out, in·kernel) is a unit.

    Tiles at the right and lower edge hold fewer weights when b does not divide the matrix. The
    matrix of a transposed convolution is (in, out·kernel), as it is stored. Of experts in one
    tensor each is a matrix, and no tile reaches into two.

    Args:
        size: the side b of a tile, at least 1.

    Raises:
        ValueError: size is below 1.

    Example:
        >>> Block(32).grid((100, 64))
        (4, 2)
    """

    size: int

    def __post_init__(self) -> None:
        if isinstance(self.size, bool) or not isinstance(self.size, int):
            raise TypeError(f"size={self.size!r}: a block's side is a whole number, such as 32")
        if self.size < 1:
            raise ValueError(f"size={self.size}: a block's side must be at least 1, such as 32")

    def grid(self, shape: Shape) -> Shape:
        """Return (⌈out/b⌉, ⌈in·kernel/b⌉)."""
        rows, columns = shape[0], math.prod(shape[1:])
        return -(-rows // self.size), -(-columns // self.size)

    def reduce(self, values: Tensor) -> Tensor:
        """Sum over each tile."""
        matrix = values.flatten(1)
        rows, columns = self.grid(tuple(values.shape))
        below, right = rows * self.size - matrix.shape[0], columns * self.size - matrix.shape[1]
        # Padded with zeros, which add nothing to a sum, so that tiles at the edge need no case of
        # their own.
        tiles = functional.pad(matrix, (0, right, 0, below))
        return tiles.reshape(rows, self.size, columns, self.size).sum((1, 3))

    def expand(self, units: Tensor, shape: Shape) -> Tensor:
        """Repeat each tile's value over its weights."""
        matrix = units.repeat_interleave(self.size, 0).repeat_interleave(self.size, 1)
        return matrix[: shape[0], : math.prod(shape[1:])].reshape(shape)


class _Grouped(Pattern):
    """Weights one by one, but every group of units of an output keeps equally many."""

    single: ClassVar[bool] = True
    by_output: ClassVar[bool] = True

    def draw(self, k: int, free: Tensor, n_free: int, generator: torch.Generator) -> Tensor:
        """Draw the same number of units in every group; all units must be free."""
        if n_free < free.numel():
            raise ValueError(
                f"pattern={self}: weights cannot be held where groups keep equally many"
            )
        # Random keys and the highest of each group: a draw in all groups at once, and on the CPU,
        # so that every device and rank gets the same.
        keys = torch.rand(free.shape, generator=generator, device="cpu")
        return self.best(k, keys).to(free.device)

    def best(self, k: int, worth: Tensor) -> Tensor:
        """Choose the same number of the best units in every group; all units must be free."""
        group = self.group(tuple(worth.shape))
        assert group is not None
        keys = worth.reshape(-1, group)
        if bool((keys == -torch.inf).any()):
            raise ValueError(
                f"pattern={self}: weights cannot be held where groups keep equally many"
            )
        counts = torch.full((len(keys),), k // len(keys), device=keys.device)
        chosen = top_per_group(keys, counts, torch.ones_like(keys, dtype=torch.bool))
        return chosen.reshape(worth.shape)

    def allows(self, units: Tensor) -> bool:
        """Tell whether all groups keep equally many, but for those that keep none."""
        counts = self._counts(units)
        # An ablated neuron keeps none.
        return len(counts[counts > 0].unique()) <= 1

    def _counts(self, units: Tensor) -> Tensor:
        return units.reshape(-1, self.group(tuple(units.shape)) or 1).sum(1)


@dataclass(frozen=True)
class NM(_Grouped):
    """N of every M consecutive input channels: 2:4 is what sparse tensor cores take.

    In a convolution the M weights of a group belong to one output and one place of the kernel. The
    density of every layer is n/m, whatever the allocation.

    Source: Mishra et al. 2021 (arXiv 2104.08378); learnt from scratch, Zhou et al. 2021 (arXiv
    2102.04010). Groups lie as in NVIDIA's library ASP, which prunes convolutions along their input
    channels.

    Args:
        n: weights kept in a group, from 1 to m.
        m: weights in a group.

    Raises:
        ValueError: n lies outside 1..m; later, when a layer's input channels are no multiple of m.

    Example:
        >>> NM(2, 4).kept(0.5, (8, 16))
        64
        >>> NM(2, 4).grid((8, 16, 3, 5))
        (8, 3, 5, 16)
    """

    n: int
    m: int

    def __post_init__(self) -> None:
        for number in (self.n, self.m):
            if isinstance(number, bool) or not isinstance(number, int):
                raise TypeError(
                    f"n={self.n!r}, m={self.m!r}: whole numbers are needed, as in NM(2, 4)"
                )
        if not 1 <= self.n <= self.m:
            raise ValueError(f"n={self.n}, m={self.m}: n must lie in 1..m, such as NM(2, 4)")

    @property
    def density(self) -> float:
        """The density of every layer."""
        return self.n / self.m

    def grid(self, shape: Shape) -> Shape:
        """Return (out, *kernel, in)."""
        if shape[1] % self.m:
            raise ValueError(
                f"pattern={self}: {shape[1]} input channels (shape {shape}) are no multiple of "
                f"{self.m}; exclude this layer"
            )
        return shape[0], *shape[2:], shape[1]

    def reduce(self, values: Tensor) -> Tensor:
        """Move the input channels to the end, so that those of a group follow one another."""
        # Contiguous, because groups are then a reshape, and reshape of a view would copy every
        # time.
        return values.movedim(1, -1).contiguous()

    def expand(self, units: Tensor, shape: Shape) -> Tensor:
        """Move the input channels back."""
        return units.movedim(-1, 1)

    def group(self, shape: Shape) -> int | None:
        """Return m."""
        return self.m

    def allows(self, units: Tensor) -> bool:
        """Tell whether every group keeps n."""
        return bool((self._counts(units) == self.n).all())

    def kept(self, density: float, shape: Shape) -> int:
        """Return n of every m."""
        return self.units(shape) // self.m * self.n


@dataclass(frozen=True)
class FanIn(_Grouped, Element):
    """Every output keeps equally many inputs: constant fan-in.

    Source: SRigL (Lasby et al. 2024, arXiv 2305.02299); its neuron ablation is
    :class:`regrow.SRigL`.

    Example:
        >>> FanIn().kept(0.1, (8, 16))
        16
    """

    def group(self, shape: Shape) -> int | None:
        """Return the fan-in."""
        return math.prod(shape[1:])

    def kept(self, density: float, shape: Shape) -> int:
        """Return as many in every row, at least one."""
        return shape[0] * units_kept(density, math.prod(shape[1:]))
