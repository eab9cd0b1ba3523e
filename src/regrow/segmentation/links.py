"""E2ENet whose nodes read whole channels or none of them; packed, it computes only what is read.

A *link* is an input channel of a fusion convolution, read by all its outputs. What is left of a
convolution is a dense one of fewer inputs: its parameters and multiply-adds are real, in plain
PyTorch.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from regrow.engine.checks import check_type
from regrow.engine.patterns import InputChannel
from regrow.segmentation.fusion import exchange
from regrow.segmentation.joins import Pending, Reading, whole
from regrow.segmentation.lattice import E2ENet, Node, ShiftedBlock
from regrow.segmentation.shift import Segment, join_shifted

__all__ = ["LINKS", "channel_links", "pack"]

# The fusion convolutions of the nodes; which channels up-sampling computes follows from them.
LINKS = ("nodes.*.conv.weight",)


def channel_links(
    density: float = 0.2, *, finest: float = 0.5, second: float = 1.0, update_every: int = 1200
) -> dict[str, Any]:
    """Return method and globs of sparse fusion by channels, as arguments of `regrow.sparsify`.

    As :func:`regrow.segmentation.feature_fusion`, but a unit is an input channel of a convolution.
    Training runs under masks; :func:`pack` gives the network that is really smaller.

    Args:
        density: of fusion convolutions below full resolution.
        finest: of those at full resolution, which lose most by it.
        second: of the second convolution of a node.
        update_every: optimizer steps between updates.

    Returns:
        The arguments ``method`` and ``include``.

    Example:
        >>> channel_links(0.2)["method"].density
        {'nodes.*.blocks.1.*': 1.0, 'nodes.0_*': 0.5, '*': 0.2}
    """
    densities = {"nodes.*.blocks.1.*": second, "nodes.0_*": finest, "*": density}
    return {"method": exchange(densities, InputChannel(), update_every), "include": LINKS}


def pack(model: E2ENet, masks: Mapping[str, Tensor], *, fused: bool = False) -> E2ENet:
    """Return a network that gives the same outputs and holds and computes only what is read.

    Fusion convolutions keep the input channels that their masks keep; up-sampling and first blocks
    compute the channels that somebody reads, and so do the nodes at full resolution, which no
    up-sampling reads. A packed network trains as any other; its topology is fixed.

    Args:
        model: stays as it is.
        masks: of a sparsifier, by weight; convolutions without one read all their inputs.
        fused: whether norm, ReLU, pooling and shift are computed as sources are joined, of the
            channels that are read, by one kernel a source on a GPU: fewer bytes are moved and kept.
            Otherwise each is a pass over memory of its own, which is faster on a CPU. Outputs and
            weights are the same.

    Returns:
        A copy whose nodes are packed. Its weights are saved and loaded as usual, into a network
        packed with the same masks.

    Raises:
        TypeError: the model is no E2ENet.
        ValueError: a mask keeps an input for some outputs only, or is of no fusion convolution.

    Example:
        >>> import regrow
        >>> model = E2ENet(1, 2, (12, 24))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> sparse = regrow.sparsify(model, optimizer, **channel_links(0.5), total_steps=9)
        >>> packed, x = pack(model, sparse.masks), torch.randn(1, 1, 4, 8, 8)
        >>> torch.allclose(packed(x)[0], model(x)[0], atol=1e-5)
        True
        >>> [sum(p.numel() for p in m.nodes.parameters()) for m in (model, packed)]
        [6264, 3624]
    """
    check_type(model, E2ENet, "model", "E2ENet(1, 16)")
    nodes = {name: node for name, node in model.nodes.items() if isinstance(node, Node)}
    if not nodes:
        raise TypeError("model is packed already: pack the network that was made sparse")
    links = {name: _links(block, name, masks) for name, block in _fusions(model).items()}
    known = {f"{name}.conv.weight" for name in links}
    if unknown := sorted(set(masks) - known):
        raise ValueError(f"masks: {unknown} are no fusion convolutions; those are {sorted(known)}")
    packed, made = copy.deepcopy(model), _made(model, links)
    for name, node in nodes.items():
        level, stage = map(int, name.split("_"))
        inner = links.get(f"nodes.{name}.blocks.1")
        present = [made[level, stage - 1]] + ([made[level - 1, stage - 1]] if level else [])
        first = links[f"nodes.{name}.blocks.0"]
        packed.nodes[name] = _PackedNode(node, present, first, inner, made[level, stage])
    if fused:
        _leave_norms(packed)
    return packed


class _PackedNode(nn.Module):
    """A node that reads the linked channels only, and computes those that are read.

    Args:
        node: of the whole lattice.
        present: which channels come from the skip, and from above.
        first: which inputs the first block reads, over all sources.
        second: which outputs of the first block the second reads; None if there is none.
        read: which outputs of the node are read.
    """

    def __init__(
        self, node: Node, present: list[Tensor], first: Tensor, second: Tensor | None, read: Tensor
    ) -> None:
        super().__init__()
        self.down = node.down
        channels = node.up.out_channels
        skip, up, *above = first.split([channels, channels, *(len(p) for p in present[1:])])
        self.skips = bool(skip.any())
        # Picked before they are pooled, which then reads less.
        self.above = _runs(_places(present[1], above[0])) if above else ()
        self.up = _shrunk_up(node.up, up)
        kept = [first, read] if second is None else [first, second, read]
        blocks = [block for block in node.blocks if isinstance(block, ShiftedBlock)]
        self.blocks = nn.ModuleList(map(_shrunk, blocks, kept, kept[1:]))
        if self.skips:
            whole = self.blocks[0]
            assert isinstance(whole, ShiftedBlock)
            whole.segments = _picked(whole.segments, _places(present[0], skip))
        self.links = torch.cat(kept)
        self.to(node.up.weight.device)

    def forward(
        self,
        skip: Tensor | Pending,
        below: Tensor | Pending,
        above: Tensor | Pending | None,
    ) -> Tensor | Pending:
        """Return the features that are read."""
        sources: list[Tensor | Pending] = []
        if self.skips:
            sources.append(skip)
        if self.up is not None:
            sources.append(self.up(whole(below)))
        if above is not None and self.down is not None and self.above:
            if isinstance(above, Tensor):
                above = join_shifted([above], self.above)
                above = functional.max_pool3d(above, self.down, self.down)
            sources.append(above)  # if pending, the block picks and pools as it reads
        x: Tensor | Pending = self.blocks[0](*sources)
        for block in self.blocks[1:]:
            x = block(x)
        return x

    def reads(self) -> tuple[Reading | None, Reading | None]:
        """Return what the first block takes of the skip and from above, if it does."""
        block = self.blocks[0]
        assert isinstance(block, ShiftedBlock)
        skip = above = None
        if self.skips:
            skip = Reading(tuple(s[1:] for s in block.segments if s[0] == 0), block.axis)
        if self.above and self.down:
            places = torch.cat([torch.arange(*run[1:3]) for run in self.above])
            last = block.segments[-1][0]
            runs = _picked(block.segments, places, last)
            above = Reading(tuple(r[1:] for r in runs if r[0] == last), block.axis, self.down)
        return skip, above

    # Two sets of links may have equally many in every place: weights of one loaded into the other
    # would fit, and be wrong.
    def get_extra_state(self) -> Tensor:
        return self.links

    def set_extra_state(self, state: Tensor) -> None:
        if not torch.equal(state.cpu(), self.links):
            raise ValueError(
                "the saved weights are of a network packed with other links: pack with the masks "
                "that it was packed with"
            )


def _leave_norms(model: E2ENet) -> None:
    """Let blocks leave their norm and ReLU to those that read their output through a join.

    A reader takes as many bytes of y as of the convolution's z, and writes the same. So z alone
    is the least there is to move, unless someone needs y itself: up-sampling, a head, or a
    convolution that nothing is moved for. Then y is written once, for them.
    """
    names = {module: name for name, module in model.named_modules()}
    last = len(model.channels) - 1

    def giver(level: int, stage: int) -> ShiftedBlock:
        while stage and f"{level}_{stage}" not in model.nodes:
            stage -= 1
        node = model.nodes[f"{level}_{stage}"] if stage else model.encoder[level]
        *_, block = (module for module in node.modules() if isinstance(module, ShiftedBlock))
        return block

    needed = {giver(level, last - level) for level in range(len(model.heads))}

    def leave(block: ShiftedBlock, reader: nn.Module, reading: Reading | None) -> None:
        assert isinstance(reader, ShiftedBlock)
        if reading is not None:
            reader.reader = names[reader]
            block.readings = {**block.readings, reader.reader: reading}

    def follow(blocks: Iterable[nn.Module]) -> None:
        """Let blocks read each other in turn."""
        for one, other in pairwise(blocks):
            assert isinstance(one, ShiftedBlock) and isinstance(other, ShiftedBlock)
            moves = tuple(segment[1:] for segment in other.segments)
            if any(offset for *_, offset in moves):
                leave(one, other, Reading(moves, other.axis))
            else:
                needed.add(one)

    follow(block for block in model.encoder.modules() if isinstance(block, ShiftedBlock))
    for name, node in model.nodes.items():
        level, stage = map(int, name.split("_"))
        assert isinstance(node, _PackedNode)
        skip, above = node.reads()
        leave(giver(level, stage - 1), node.blocks[0], skip)
        if above is not None:
            leave(giver(level - 1, stage - 1), node.blocks[0], above)
        if node.up is not None:
            needed.add(giver(level + 1, stage - 1))
        follow(node.blocks)
    for block in needed:
        block.whole = True


def _fusions(model: E2ENet) -> dict[str, ShiftedBlock]:
    """Return the blocks of all nodes by name."""
    found = model.nodes.named_modules(prefix="nodes")
    return {name: block for name, block in found if isinstance(block, ShiftedBlock)}


def _links(block: ShiftedBlock, name: str, masks: Mapping[str, Tensor]) -> Tensor:
    """Return which input channels a convolution reads; bool, on the CPU."""
    name, weight = f"{name}.conv.weight", block.conv.weight
    mask = masks.get(name)
    if mask is None:
        return torch.ones(weight.shape[1], dtype=torch.bool)
    if mask.shape != weight.shape or mask.dtype != torch.bool:
        raise ValueError(
            f"masks[{name!r}] is {mask.dtype} of shape {tuple(mask.shape)}: a bool tensor of "
            f"shape {tuple(weight.shape)} is needed"
        )
    columns = mask.detach().cpu().transpose(0, 1).flatten(1)
    read, whole = columns.any(1), columns.all(1)
    if not torch.equal(read, whole):
        first = int((read != whole).nonzero()[0])
        raise ValueError(
            f"masks[{name!r}]: input channel {first} is kept for some outputs only, and packing "
            "needs whole channels: use pattern=InputChannel(), as channel_links() does"
        )
    return read


def _made(model: E2ENet, links: Mapping[str, Tensor]) -> dict[tuple[int, int], Tensor]:
    """Return which channels are there at each level after each stage; 0 is the encoder's."""
    levels = len(model.channels)
    made = {
        (level, stage): torch.ones(model.channels[level], dtype=torch.bool)
        for level in range(levels)
        for stage in range(levels - level)
    }
    # Up-sampling and heads read all that they are given. So only nodes at full resolution, before
    # the last, can have channels that nobody reads.
    finest = [stage for stage in range(1, levels) if f"0_{stage}" in model.nodes]
    for stage, following in pairwise(finest):
        read = links[f"nodes.0_{following}.blocks.0"][: model.channels[0]].clone()
        if f"1_{following}" in model.nodes:
            read |= links[f"nodes.1_{following}.blocks.0"][-model.channels[0] :]
        # A convolution has an output at least.
        read[0] |= not read.any()
        made[0, stage] = read
    return made


def _runs(channels: Tensor, offset: int = 0) -> tuple[Segment, ...]:
    """Return ascending channels of source 0 as segments, each of channels that follow each other.

    Example:
        >>> _runs(torch.tensor([0, 1, 4]))
        ((0, 0, 2, 0), (0, 4, 5, 0))
    """
    runs: list[Segment] = []
    for channel in channels.tolist():
        if runs and runs[-1][2] == channel:
            runs[-1] = (0, runs[-1][1], channel + 1, offset)
        else:
            runs.append((0, channel, channel + 1, offset))
    return tuple(runs)


def _picked(segments: Sequence[Segment], places: Tensor, source: int = 0) -> tuple[Segment, ...]:
    """Return segments that read a source where the picked channels are."""
    found: list[Segment] = []
    for of, start, stop, offset in segments:
        if of == source:
            found += [(of, *run[1:]) for run in _runs(places[start:stop], offset)]
        else:
            found.append((of, start, stop, offset))
    return tuple(found)


def _places(present: Tensor, wanted: Tensor) -> Tensor:
    """Return where the wanted channels are among those present."""
    return (present.cumsum(0) - 1)[wanted]


def _shrunk_up(up: nn.ConvTranspose3d, outputs: Tensor) -> nn.ConvTranspose3d | None:
    """Return the transposed convolution to some outputs; None to none."""
    if not outputs.any():
        return None
    count = int(outputs.sum())
    kernel = up.kernel_size
    small = nn.ConvTranspose3d(up.in_channels, count, kernel, up.stride, bias=False)  # type: ignore[arg-type]
    small.weight = nn.Parameter(_chosen(up.weight, 1, outputs))
    return small


def _shrunk(block: ShiftedBlock, inputs: Tensor, outputs: Tensor) -> ShiftedBlock:
    """Return the block from some inputs to some outputs."""
    conv, norm = block.conv, block.norm
    segments = _counted(block.segments, inputs)
    counts = int(inputs.sum()), int(outputs.sum())
    small = ShiftedBlock(segments, block.axis, *counts, conv.kernel_size, conv.stride)  # type: ignore[arg-type]
    small.conv.weight = nn.Parameter(_chosen(_chosen(conv.weight, 1, inputs), 0, outputs))
    for new, old in ((small.conv, conv), (small.norm, norm)):
        assert old.bias is not None
        new.bias = nn.Parameter(_chosen(old.bias, 0, outputs))
    small.norm.weight = nn.Parameter(_chosen(norm.weight, 0, outputs))
    return small


def _chosen(values: Tensor, dim: int, which: Tensor) -> Tensor:
    return values.detach().index_select(dim, which.nonzero().flatten().to(values.device))


def _counted(segments: tuple[Segment, ...], inputs: Tensor) -> tuple[Segment, ...]:
    """Return the segments of the channels that are left; sources without any are left out."""
    left: list[Segment] = []
    place, source, last, start = 0, -1, -1, 0
    for of, first, stop, offset in segments:
        count = int(inputs[place : place + stop - first].sum())
        place += stop - first
        if not count:
            continue
        if of != last:
            source, last, start = source + 1, of, 0
        left.append((source, start, start + count, offset))
        start += count
    return tuple(left)
