"""Rules that prune a trained model by what its layers see on calibration data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import ClassVar

import torch
from torch import Tensor

from regrow.engine.allocation import Allocation, Uniform
from regrow.engine.checks import check_integer, check_type
from regrow.engine.method import Static
from regrow.engine.patterns import NM, Block, Element, FanIn, InputChannel, Kernel, Pattern
from regrow.pruning.obs import prune_columns

__all__ = ["Rule", "SparseGPT", "Wanda"]

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Rule(ABC):
    """What every rule has: how dense, how shared among layers, what a unit is.

    Args:
        density: the fraction of weights kept, in (0, 1]; or densities by glob over parameter names,
            such as ``{"*.mlp.*": 0.4, "*": 0.6}``.
        allocation: how one density is shared among the layers.
        pattern: what a unit is; a unit of several weights is worth the sum of their scores.

    Attributes:
        products: whether the rule reads Σ x·xᵀ of what a weight multiplies, or Σ x² alone.
    """

    products: ClassVar[bool]
    density: float | Mapping[str, float]
    allocation: Allocation = Uniform()
    pattern: Pattern = Element()

    def __post_init__(self) -> None:
        _ = self.static  # which checks the fields

    @property
    def name(self) -> str:
        """The rule's name."""
        return type(self).__name__

    @property
    def static(self) -> Static:
        """The method that holds what the rule keeps; it plans which layers, and how many units."""
        return Static(density=self.density, allocation=self.allocation, pattern=self.pattern)

    @abstractmethod
    def prune(self, weight: Tensor, seen: Tensor, keep: int) -> tuple[Tensor, Tensor]:
        """Prune one weight.

        Args:
            weight: float32 or float64, shape (out, in, *kernel).
            seen: of the same dtype: sums over what it multiplies, as
                :func:`regrow.pruning.calibration.sums` returns them; the rows of the weight fall
                into as many equal parts as these.
            keep: units to keep.

        Returns:
            The new weight, zero where it is pruned, and the bool mask of what is kept.
        """


@dataclass(frozen=True, kw_only=True)
class Wanda(Rule):
    """|w|·‖x‖: keep the weights that move the outputs most, given the norms of the inputs.

    With wᵢⱼ the weight from input j to output i and xⱼ all values of that input on the calibration
    data, the score is |wᵢⱼ|·‖xⱼ‖₂. Weights of one output are compared with one another: every row
    keeps equally many. Weights that stay are not changed.

    Source: Sun et al. 2024 (ICLR, arXiv 2306.11695), equation 1 and section 3; n:m in section 3.2.

    Differs from the released code: layers that follow one another outside of repeated blocks are
    pruned one by one; convolutions, recurrent layers and attention of torch are pruned, too, a
    kernel's weights seeing one input each; ``pattern`` may be any.

    Example:
        >>> import regrow
        >>> from torch import nn
        >>> layer = nn.Linear(3, 1, bias=False)
        >>> _ = layer.weight.data.copy_(torch.tensor([[3.0, -2.0, 1.0]]))
        >>> pruned = regrow.prune(layer, regrow.Wanda(density=1 / 3), [torch.tensor([[1.0, 1, 9]])])
        >>> layer.weight.tolist()
        [[0.0, 0.0, 1.0]]
    """

    products: ClassVar[bool] = False
    pattern: Pattern = FanIn()

    def prune(self, weight: Tensor, seen: Tensor, keep: int) -> tuple[Tensor, Tensor]:
        """Keep the units with the highest |w|·‖x‖."""
        shape = tuple(weight.shape)
        rows = weight.abs().reshape(len(seen), -1, seen.shape[1])
        score = (rows * seen.sqrt().unsqueeze(1)).reshape(shape)
        units = self.pattern.best(keep, self.pattern.reduce(score))
        mask = self.pattern.expand(units, shape)
        return weight.where(mask, weight.new_zeros(())), mask


@dataclass(frozen=True, kw_only=True)
class SparseGPT(Rule):
    """Prune column by column, and let the weights behind make up for what is lost.

    With H = Σ x·xᵀ + λI over the calibration data, to prune weight j of a row costs
    wⱼ² / [H⁻¹]ⱼⱼ in squared error of the output, H being that of the columns from j on; and the
    row's weights behind it change by -wⱼ / [H⁻¹]ⱼⱼ · [H⁻¹]ⱼ, which makes that error least. Which
    weights go is chosen for some columns at a time, with what was changed until then; of n:m, for
    each group.

    Source: Frantar & Alistarh 2023 (ICML, arXiv 2301.00774), algorithm 1.

    Differs from the released code: counts are exact in every layer, whatever ties; weights of
    inputs that were always zero go first, but only as many as are to go, and λ is a share of the
    mean over the other inputs; layers of fewer than 512 inputs choose for fewer columns at a time
    than the 128 of the paper; other patterns and layers, as for :class:`Wanda`.

    Args:
        damping: λ as a share of the mean of H's diagonal, above 0.
        columns: for how many columns weights are chosen together; None: 128, or a quarter of the
            inputs if that is less, but at least 16. The fewer, the better it is known what was
            changed before them, and the less can one column be spared at the cost of another.

    Raises:
        ValueError: damping is not above 0, or columns is below 1.

    Example:
        >>> import regrow
        >>> from torch import nn
        >>> layer = nn.Linear(2, 1, bias=False)
        >>> _ = layer.weight.data.fill_(1.0)
        >>> alike = torch.tensor([[1.0, 1.0], [2.0, 2.0]])  # the one input tells the other
        >>> pruned = regrow.prune(layer, regrow.SparseGPT(density=0.5), [alike])
        >>> [round(w, 2) for w in layer.weight[0].tolist()]
        [0.0, 1.99]
    """

    products: ClassVar[bool] = True
    damping: float = 0.01
    columns: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_type(self.damping, (int, float), "damping", "0.01")
        if not 0 < self.damping < float("inf"):
            raise ValueError(f"damping={self.damping}: must be above 0, such as 0.01")
        if self.columns is not None and check_integer(self.columns, "columns") < 1:
            raise ValueError(f"columns={self.columns}: must be at least 1, such as 128")

    def prune(self, weight: Tensor, seen: Tensor, keep: int) -> tuple[Tensor, Tensor]:
        """Keep units by their cost, and change the weights behind those that go."""
        shape, pattern = tuple(weight.shape), self.pattern
        if of_inputs := isinstance(pattern, NM) and weight.ndim > 2:
            # A group are consecutive inputs at one place of the kernel: they have to lie together.
            weight = weight.movedim(1, -1)
            order = torch.arange(seen.shape[1], device=seen.device)
            order = order.reshape(shape[1:]).movedim(0, -1).flatten()
            seen = seen[:, order][:, :, order]
        columns = self.columns or min(128, max(16, seen.shape[1] // 4))
        width, part = _width(pattern, shape, columns)
        matrix = weight.reshape(len(seen), -1, seen.shape[1])
        alive = (seen.diagonal(dim1=1, dim2=2) > 0).unsqueeze(1).expand_as(matrix).flatten(0, 1)
        quotas = iter(_quotas(pattern, part, alive, width, keep))

        def choose(cost: Tensor) -> Tensor:
            own = part(*cost.shape)
            units = pattern.best(next(quotas), pattern.reduce(cost.reshape(own)))
            return pattern.expand(units, own).reshape(cost.shape)

        new, kept = prune_columns(matrix, seen, choose, width, self.damping)
        both = [one.reshape(weight.shape) for one in (new, kept)]
        if of_inputs:
            both = [one.movedim(-1, 1) for one in both]
        return both[0], both[1]


def _quotas(
    pattern: Pattern, part: Callable[[int, int], Shape], alive: Tensor, width: int, keep: int
) -> list[int]:
    """Return how many units are kept of each few columns, the same share of all, `keep` together.

    Units whose inputs were always zero are kept only when there are not enough others.

    Args:
        pattern: what a unit is.
        part: the shape of a few columns, as the pattern sees it.
        alive: bool, shape (out, in): whether a weight's input was ever not zero.
        width: how many columns are chosen together.
        keep: units to keep.
    """
    units = [
        pattern.reduce(some.float().reshape(part(*some.shape))) for some in alive.split(width, 1)
    ]
    group = pattern.group(part(*alive[:, :width].shape))
    lanes = units[0].numel() // group if group else 1  # each of which keeps equally many
    by_lane = [(one > 0).reshape(lanes, -1).sum(1) for one in units]
    sizes = [one.numel() // lanes for one in units]
    useful = [int(one[0]) for one in by_lane]
    if isinstance(pattern, NM) or any(bool((one != one[0]).any()) for one in by_lane):
        useful = sizes
    keep, others = keep // lanes, [n - own for n, own in zip(sizes, useful, strict=True)]
    most = min(keep, sum(useful))
    shares = zip(_shared(most, useful), _shared(keep - most, others), strict=True)
    return [lanes * (one + other) for one, other in shares]


def _shared(k: int, among: Sequence[int]) -> list[int]:
    """Share k in proportion to these numbers, of which none is exceeded; exact in sum.

    Example:
        >>> _shared(5, [4, 4, 2])
        [2, 2, 1]
    """
    total = max(1, sum(among))
    until = [(2 * k * n + total) // (2 * total) for n in accumulate(among, initial=0)]
    return [after - before for before, after in pairwise(until)]


def _width(pattern: Pattern, shape: Shape, columns: int) -> tuple[int, Callable[[int, int], Shape]]:
    """Return for how many columns units are chosen together, and the shape of such a part."""
    inner = shape[2:]
    kernel = torch.Size(inner).numel()
    if isinstance(pattern, NM):
        return pattern.m, lambda rows, width: (rows, width)
    if isinstance(pattern, Block):
        size = pattern.size
        return size * max(1, columns // size), lambda rows, width: (rows, width)
    if isinstance(pattern, Kernel | InputChannel):
        wide = kernel * max(1, columns // kernel)
        return wide, lambda rows, width: (rows, width // kernel, *inner)
    if isinstance(pattern, Element | FanIn):
        return columns, lambda rows, width: (rows, width)
    return kernel * shape[1], lambda rows, width: shape  # units of any other kind, all at once
