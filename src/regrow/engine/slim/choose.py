"""Which channels of a group can go, and what of them has to be kept elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from regrow.engine.chains import is_layer
from regrow.engine.slim.groups import Group
from regrow.engine.slim.layers import holds_constants, matrix

__all__ = ["Cut", "choose"]


@dataclass
class Cut:
    """What becomes of one group.

    Attributes:
        kept: the channels that stay, ascending.
        biases: by layer, what is added to its bias.
        merged: by layer, the channel that takes others in, and what is added to its weights there,
            of shape (out, entries).
    """

    kept: Tensor
    biases: dict[nn.Module, Tensor] = field(default_factory=dict)
    merged: dict[nn.Module, tuple[int, Tensor]] = field(default_factory=dict)


def choose(group: Group) -> Cut | str:
    """Choose the channels of a group that can go without a change of any output.

    A channel can go that no layer reads, or that is zero wherever one does. What a channel adds
    that is constant and not zero goes into biases; where there is none, or zeros are put around
    images, one such channel takes in the others, each by its value.

    Returns:
        The cut, or why nothing can be cut.
    """
    if group.why_not:
        return group.why_not
    if not group.reads or not (group.makes or group.each):
        return "no layer reads it, or none makes it"
    n = len(group.reads[0].constant)
    calls: dict[int, int] = {}
    for read in group.reads:
        calls[id(read.module)] = calls.get(id(read.module), 0) + 1
    gone = torch.ones(n, dtype=torch.bool)
    constant = torch.ones(n, dtype=torch.bool)
    needed: list[tuple[Any, Tensor, int]] = []  # where constants have to be kept
    for read in group.reads:
        if not is_layer(read.module):
            return f"{type(read.module).__name__} reads it"
        weight = matrix(read.module, read.span)
        nothing = ~weight.permute(1, 0, 2).flatten(1).any(1).cpu() | (read.constant == 0)
        gone &= nothing
        once = calls[id(read.module)] == 1
        constant &= nothing | (read.constant.isfinite() if once else nothing)
        needed.append((read, ~nothing, read.span))
    constant &= ~gone
    if (gone | constant).all():  # a layer without channels computes nothing
        stays = gone if gone.any() else constant
        stays[int(stays.int().argmax())] = False
    cut = Cut(torch.arange(n))
    if constant.any():
        gone |= _kept_elsewhere(cut, group, constant, needed)
    if not gone.any():
        return "no channel is zero or unread everywhere"
    cut.kept = (~gone).nonzero().squeeze(1)
    return cut


def _kept_elsewhere(
    cut: Cut, group: Group, constant: Tensor, needed: list[tuple[Any, Tensor, int]]
) -> Tensor:
    """Keep what constant channels add in biases, or in one of them; return which may go."""
    reads = [(read, used & constant) for read, used, _ in needed]
    into_biases = all(
        getattr(read.module, "bias", None) is not None and holds_constants(read.module)
        for read, used in reads
        if used.any()
    )
    if into_biases:
        for read, used in reads:
            if used.any():
                weight = matrix(read.module, read.span)[:, used.to(read.module.weight.device)]
                added = weight.double().sum(2).cpu() @ read.constant[used]
                cut.biases[read.module] = added
        return constant
    # The channel with the largest constants takes in the others.
    size = torch.full(constant.shape, torch.inf, dtype=torch.float64)
    for read, used in reads:
        if used.any():
            size = torch.minimum(size, read.constant.abs().nan_to_num(0.0))
    size = torch.where(constant, size, 0.0)
    chosen = int(size.argmax())
    if not 0 < float(size[chosen]) < torch.inf or int(constant.sum()) < 2:
        return torch.zeros_like(constant)
    for read, used in reads:
        others = used.clone()
        others[chosen] = False
        if others.any():
            weight = matrix(read.module, read.span)[:, others.to(read.module.weight.device)]
            shares = read.constant[others] / read.constant[chosen]
            added = torch.einsum("oce,c->oe", weight.double().cpu(), shares)
            cut.merged[read.module] = chosen, added
    gone = constant.clone()
    gone[chosen] = False
    return gone
