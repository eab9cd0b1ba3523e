"""Methods with structured sparsity that hardware can use: n of every m weights, and blocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from regrow.engine.dynamic import Dynamic
from regrow.engine.patterns import NM, Block, Pattern

__all__ = ["DynamicBlock", "DynamicNM"]


@dataclass(frozen=True, kw_only=True)
class DynamicNM(Dynamic):
    """Dynamic N:M: RigL in groups of m weights, of which n are active at every step.

    The smallest weights of a layer are dropped, and every group grows as many as it lost where its
    own gradients are largest. Groups lie along the input channels, and the density is n/m
    (:class:`regrow.engine.patterns.NM`).

    Source: a composition of this library: the rule of RigL (Evci et al. 2020, arXiv 1911.11134) in
    the pattern of sparse tensor cores (Mishra et al. 2021, arXiv 2104.08378).

    Differs from SR-STE (Zhou et al. 2021, arXiv 2102.04010), which learns N:M from scratch with
    dense weights, all of which get gradients, and masks the forward pass only: here inactive
    weights are zero, and their gradients are read at updates alone. All layers have the same n:m,
    which DominoSearch (Sun et al. 2021, NeurIPS) chooses layer by layer.

    Args:
        pattern: NM(n, m); 2:4 is what sparse tensor cores take.

    Raises:
        ValueError: the pattern is no NM; later, when a layer's input channels are no multiple of m.

    Example:
        >>> DynamicNM().density, DynamicNM(pattern=NM(1, 4)).density
        (0.5, 0.25)
    """

    density: float | Mapping[str, float] = field(default=0.5, init=False)
    pattern: Pattern = NM(2, 4)
    replaces_step: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.pattern, NM):
            raise ValueError(f"pattern={self.pattern}: N:M needs NM(n, m), such as NM(2, 4)")
        object.__setattr__(self, "density", self.pattern.density)
        super().__post_init__()


@dataclass(frozen=True, kw_only=True)
class DynamicBlock(Dynamic):
    """Dynamic block sparsity: RigL whose units are square blocks, dropped and grown whole.

    A block is worth the sum of its weights' magnitudes; an inactive one, of their gradients'. With
    ``execution="block"`` a GPU stores and multiplies active blocks only.

    Source: a composition of this library: the rule of RigL (Evci et al. 2020, arXiv 1911.11134) for
    the block-sparse matrices of Gray et al. (2017, "GPU Kernels for Block-Sparse Weights").

    Differs from dynamic training of shuffled blocks (Jiang et al. 2022, NeurIPS): a block is a tile
    of the matrix as it stands.

    Args:
        pattern: Block(b), b being the side of a block.

    Raises:
        ValueError: the pattern is no Block.

    Example:
        >>> DynamicBlock(density=0.1, pattern=Block(32)).pattern.grid((256, 128))
        (8, 4)
    """

    pattern: Pattern = Block(64)
    replaces_step: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.pattern, Block):
            raise ValueError(f"pattern={self.pattern}: blocks need Block(b), such as Block(64)")
