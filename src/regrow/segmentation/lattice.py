"""E2ENet: features of neighbouring levels fused stage after stage, by flat kernels and shifts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from regrow.segmentation.joins import Pending, join, whole
from regrow.segmentation.segmenter import ConvBlock, Segmenter, Sides
from regrow.segmentation.shift import Segment, check_shift, join_shifted, shift_segments

__all__ = ["E2ENet", "lean_shape"]


class ShiftedBlock(ConvBlock):
    """A block that reads several sources, joined and shifted by channel groups.

    Args:
        segments: which channels move how far, of :func:`regrow.segmentation.shift.shift_segments`.
        axis: along which they move.
        before: channels of all sources.
        after: channels of the output.
        kernel: of the convolution.
        stride: of the convolution.

    Attributes:
        reader: the name by which sources that are pending know this block.
    """

    reader = ""

    def __init__(
        self,
        segments: tuple[Segment, ...],
        axis: int,
        before: int,
        after: int,
        kernel: Sides,
        stride: Sides = (1, 1, 1),
    ) -> None:
        super().__init__(before, after, kernel, stride)
        self.segments, self.axis = segments, axis

    def forward(self, *sources: Tensor | Pending) -> Tensor | Pending:
        """Return the block's output."""
        given = [
            source
            if isinstance(source, Pending) and self.reader in source.readings
            else whole(source)
            for source in sources
        ]
        tensors = [source for source in given if isinstance(source, Tensor)]
        if len(tensors) == len(given):
            return super().forward(join_shifted(tensors, self.segments, self.axis))
        return super().forward(join(given, self.segments, self.axis, self.reader))


class Node(nn.Module):
    """One place of the lattice: F(skip, up-sampled from below, pooled from above).

    Args:
        up: the transposed convolution from the level below.
        down: kernel and stride of the maximum pooling from the level above; None at level 0.
        blocks: F: the first reads all sources.
    """

    def __init__(self, up: nn.ConvTranspose3d, down: Sides | None, blocks: list[ShiftedBlock]):
        super().__init__()
        self.up, self.down = up, down
        self.blocks = nn.ModuleList(blocks)

    def forward(self, skip: Tensor, below: Tensor, above: Tensor | None) -> Tensor:
        """Return the node's features."""
        sources = [skip, self.up(below)]
        if above is not None and self.down is not None:
            sources.append(functional.max_pool3d(above, self.down, self.down))
        x: Tensor = self.blocks[0](*sources)
        for block in self.blocks[1:]:
            x = block(x)
        return x


def lean_shape(levels: int) -> dict[str, Any]:
    """Return the ``nodes`` and ``depth_kernel`` of a lean lattice, as arguments of E2ENet.

    Each level has one node in place of as many as levels lie below: most of a full lattice's time
    and memory goes into those. Kernels are full at the two finest levels, where there are few, and
    flat below. ``LEAN`` in ``regrow.segmentation.fusion`` says how dense it is.

    Args:
        levels: of the network, the lowest included.

    Raises:
        ValueError: there are fewer than three.

    Example:
        >>> lean_shape(4)
        {'nodes': (1, 1, 1), 'depth_kernel': (3, 3, 1, 1)}
    """
    if levels < 3:
        raise ValueError(f"levels={levels}: a lean lattice has three at least: take larger patches")
    return {"nodes": (1,) * (levels - 1), "depth_kernel": (3, 3, *(1,) * (levels - 2))}


class E2ENet(Segmenter):
    """Segment volumes by fusing features of neighbouring levels, stage after stage.

    x[i, j] = F(x[i, j-1], Up(x[i+1, j-1]), Down(x[i-1, j-1])) at level i and stage j, i + j ≤ the
    lowest level; x[i, 0] is the encoder's. F is a shift, a convolution, instance norm and leaky
    ReLU; ``blocks`` times at the last stage of each level. Up is a transposed convolution, Down
    maximum pooling. Kernels are flat, (1, 3, 3); the shift brings other slices in. Fusion and
    up-sampling convolutions become sparse: :func:`regrow.segmentation.feature_fusion`.

    Along ``axis`` lie the slices, which are usually further apart than voxels within one: a
    volume is given as (slices, height, width), or the axis is named.

    Args:
        in_channels: of the volume.
        num_classes: outputs of a voxel, the background included.
        channels: of each level; any number of levels from two on.
        strides: from each level to the next: three numbers or one each; None is 2 throughout.
        shift: the number of channel groups, which move by -(shift // 2) ... shift // 2 slices; an
            odd number; 0 or None moves nothing. The input is never moved.
        depth_kernel: the side of kernels along ``axis``: 1, or 3 for full kernels; or a number for
            each level. Full kernels see other slices by themselves: nothing is moved where they
            are, unless all levels have them and ``shift`` is given.
        nodes: how many each level but the lowest has, 1 at least; its last ones. By default all: as
            many as levels lie below. :func:`lean_shape` gives fewer.
        blocks: how many each level has in its encoder stage and in its last node; 2, or a number
            for each level. 1 at full resolution saves much of its time and memory.
        axis: along which channels are shifted, and kernels flat: 0, 1 or 2.
        deep_supervision: whether the output is a list of up to 4 scales, the full resolution
            first, or the full resolution alone, as one tensor.
        paper_compat: the layout of the released code, for comparison: shift 5, groups over all
            sources of a node together, and the input is shifted too.

    Raises:
        TypeError: an argument is of another type.
        ValueError: an argument lies outside its range, or a level has fewer channels than shifts.

    Source: E2ENet (arXiv 2312.04727), sections 3.2 and 3.3, and its public code.

    Differs from the released code: every source of a node sees every shift, by -1, 0, +1 as in the
    paper, and the input is not moved, unless ``paper_compat``; shifts are three, not five.

    Example:
        >>> import torch
        >>> model = E2ENet(1, 3, (6, 12, 12), strides=[(1, 2, 2), 2])
        >>> [tuple(scores.shape) for scores in model(torch.zeros(1, 1, 8, 16, 16))]
        [(1, 3, 8, 16, 16), (1, 3, 8, 8, 8)]
        >>> model.deep_supervision = False
        >>> model(torch.zeros(1, 1, 7, 15, 13)).shape
        torch.Size([1, 3, 7, 15, 13])
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        channels: Sequence[int] = (48, 96, 192, 320, 320, 320),
        strides: Sequence[int | Sequence[int]] | None = None,
        *,
        shift: int | None = 3,
        depth_kernel: int | Sequence[int] = 1,
        nodes: Sequence[int] | None = None,
        blocks: int | Sequence[int] = 2,
        axis: int = 0,
        deep_supervision: bool = True,
        paper_compat: bool = False,
    ) -> None:
        super().__init__(in_channels, num_classes, channels, strides, deep_supervision)
        self.shift = _released(shift) if paper_compat else shift or 0
        check_shift(self.shift)
        if axis not in (0, 1, 2):
            raise ValueError(f"axis={axis!r}: 0, 1 or 2 is needed: depth, height or width")
        self.axis, self.paper_compat = axis, paper_compat
        levels = range(len(self.channels))
        self.depth_kernels = _depth_kernels(depth_kernel, len(levels))
        # By level: where kernels are full in places, they take the part of the shift.
        mixed = not isinstance(depth_kernel, int)
        self._shifts = [0 if mixed and side > 1 else self.shift for side in self.depth_kernels]
        first = _first_stages(nodes, len(levels) - 1)
        self.blocks = _blocks(blocks, len(levels))
        self.encoder = nn.ModuleList(self._stage(level) for level in levels)
        # Every stage of the lattice is one level shorter than the one before it.
        self.nodes = nn.ModuleDict(
            {
                f"{level}_{stage}": self._node(level, stage)
                for stage in levels[1:]
                for level in levels[: len(levels) - stage]
                if stage >= first[level]
            }
        )
        self.add_heads(min(4, len(levels) - 1), bias=False)

    def _block(
        self, level: int, sources: list[int], stride: Sides = (1, 1, 1), *, moved: bool = True
    ) -> ShiftedBlock:
        shift, depth = self._shifts[level] if moved else 0, self.depth_kernels[level]
        segments = shift_segments(sources, shift, released=self.paper_compat)
        one, two, three = (depth if a == self.axis else 3 for a in range(3))
        after = self.channels[level]
        return ShiftedBlock(segments, self.axis, sum(sources), after, (one, two, three), stride)

    def _stage(self, level: int) -> nn.Sequential:
        """Build a level's blocks of the encoder; the first of a lower level has the stride."""
        if level:
            first = self._block(level, [self.channels[level - 1]], self.strides[level - 1])
        else:
            # The input's channels are images of one place: moved apart, they would not fit.
            first = self._block(level, [self.in_channels], moved=self.paper_compat)
        return nn.Sequential(first, *self._further(level))

    def _further(self, level: int) -> list[ShiftedBlock]:
        """Build the blocks after the first."""
        return [self._block(level, [self.channels[level]]) for _ in range(self.blocks[level] - 1)]

    def _node(self, level: int, stage: int) -> Node:
        channels, below = self.channels[level], self.channels[level + 1]
        stride = self.strides[level]
        up = nn.ConvTranspose3d(below, channels, stride, stride, bias=False)
        sources, down = [channels, channels], None
        if level:
            sources.append(self.channels[level - 1])
            down = self.strides[level - 1]
        blocks = [self._block(level, sources)]
        if level + stage == len(self.channels) - 1:
            blocks += self._further(level)
        return Node(up, down, blocks)

    def features(self, x: Tensor) -> list[Tensor]:
        """Return the last node of each level but the lowest, the full resolution first."""
        row: list[Tensor] = []
        for blocks in self.encoder:
            x = blocks(x)
            row.append(x)
        last: list[Tensor] = []
        for stage in range(1, len(row)):
            above = [None, *row[:-1]]
            row = [
                self.nodes[name](row[level], row[level + 1], above[level])
                if (name := f"{level}_{stage}") in self.nodes
                else row[level]
                for level in range(len(row) - 1)
            ]
            last.insert(0, row[-1])
        return last


def _first_stages(nodes: Sequence[int] | None, levels: int) -> list[int]:
    """Return the stage of each level's first node; each level's last stage is given."""
    last = range(levels, 0, -1)
    counts = list(last) if nodes is None else list(nodes)
    if len(counts) != levels or not all(
        type(count) is int and 1 <= count <= most for count, most in zip(counts, last, strict=True)
    ):
        raise ValueError(
            f"nodes={nodes}: {levels} levels above the lowest need a whole number each, from 1 to "
            f"at most {', '.join(map(str, last))}"
        )
    return [most - count + 1 for count, most in zip(counts, last, strict=True)]


def _depth_kernels(depth_kernel: int | Sequence[int], levels: int) -> tuple[int, ...]:
    given = (depth_kernel,) if isinstance(depth_kernel, int) else tuple(depth_kernel)
    sides = given * levels if isinstance(depth_kernel, int) else given
    if len(sides) != levels or not set(given) <= {1, 3, 5}:
        raise ValueError(
            f"depth_kernel={depth_kernel!r}: must be 1, 3 or 5, or {levels} of them, for each level"
        )
    return sides


def _blocks(blocks: int | Sequence[int], levels: int) -> tuple[int, ...]:
    counts = (blocks,) * levels if isinstance(blocks, int) else tuple(blocks)
    if len(counts) != levels or not all(type(count) is int and count >= 1 for count in counts):
        raise ValueError(f"blocks={blocks}: {levels} whole numbers from 1 on are needed, or one")
    return counts


def _released(shift: int | None) -> int:
    """Return the released code's shift, which another argument may not contradict."""
    if shift not in (3, 5):
        raise ValueError(
            f"shift={shift!r} with paper_compat=True: the released layout has shift 5; leave it out"
        )
    return 5
