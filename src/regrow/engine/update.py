"""Computes one update: which units every layer has afterwards. Changes nothing itself.

Up to four things happen, in this order: the density falls (*shrink*), the lowest units go
(*exchange*), what went is shared among layers (*redistribute*), and the highest grow. Shrinking and
dropping choose inside each layer or over all layers at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol

import torch
from torch import Tensor

from regrow.engine import each, many
from regrow.engine.redistribution import share_out
from regrow.engine.scores import Role, Score, Signals
from regrow.engine.sparse_layer import Exchange, SparseLayer

__all__ = ["Moves", "Rules", "UpdateView", "begin", "drop", "grow", "plan_moves", "propose"]


@dataclass(frozen=True)
class Moves:
    """How many units of one layer an update drops and grows.

    Args:
        shrink: dropped for good, because the density falls.
        exchange: dropped, and replaced.
        expand: grown, because the density rises.
    """

    shrink: int = 0
    exchange: int = 0
    expand: int = 0

    def __bool__(self) -> bool:
        """Whether anything moves."""
        return bool(self.shrink or self.exchange or self.expand)


class Rules(Protocol):
    """What an update asks of a method."""

    @property
    def drop(self) -> Score:
        """The score whose lowest units are dropped."""

    @property
    def grow(self) -> Score:
        """The score whose highest units are grown."""

    @property
    def threshold(self) -> Literal["layer", "global"]:
        """Whether exchanged units are the lowest of their layer, or of all layers together."""

    @property
    def shrink(self) -> Literal["layer", "global"]:
        """Whether a falling density takes the lowest of each layer, or of all together."""

    @property
    def redistribute(self) -> Literal["momentum", "gradient"] | None:
        """By which signal units move between layers."""

    @property
    def regrow_dropped(self) -> bool:
        """Whether a unit just dropped may be grown."""

    @property
    def initial_density(self) -> float | None:
        """The density at the start; None if it does not move."""

    def density_at(self, progress: float, initial: float, final: float) -> float:
        """Return a layer's density at some progress through the window."""

    def fraction_at(self, progress: float) -> float:
        """Return the share of active units exchanged at some progress."""

    def moves(self, active: int, target: int, units: int, fraction: float) -> Moves:
        """Return how many units to drop and to grow in a layer."""


@dataclass(frozen=True)
class UpdateView:
    """What an update may look at.

    Args:
        layers: those that move.
        active: their active units before the update; bool tensors on the grids.
        moves: how many units each is to drop and grow.
        fraction: the share of active units exchanged.
        signals: makes the signals of a layer for the drop score or the grow score, given the units
            it keeps so far.
        generator: makes the CPU generator for what is chosen at random, from a key.
    """

    layers: Sequence[SparseLayer]
    active: Mapping[str, Tensor]
    moves: Mapping[str, Moves]
    fraction: float
    signals: Callable[[SparseLayer, Role, Tensor], Signals]
    generator: Callable[[str, Role], torch.Generator]


Exchanges = dict[str, Exchange]


def plan_moves(method: Rules, layers: Sequence[SparseLayer], progress: float) -> dict[str, Moves]:
    """Return what an update moves in each of these layers; empty when nothing moves in any.

    Args:
        method: says how many.
        layers: those that take part. Others neither move nor count: where all layers decide
            together, these decide as if they were all.
        progress: through the window of updates, from 0 to 1.
    """
    fraction = method.fraction_at(progress)
    targets = {layer.name: _target(method, layer, progress) for layer in layers}
    if method.shrink == "global":
        targets = _global_targets(layers, targets)
    moves = {
        layer.name: method.moves(layer.active, targets[layer.name], layer.n_free, fraction)
        for layer in layers
    }
    if not any(moves.values()):
        return {}
    # Where layers decide together, one that moves nothing by itself may still give or get units.
    together = "global" in (method.shrink, method.threshold) or method.redistribute
    return {name: move for name, move in moves.items() if move or together}


def _target(method: Rules, layer: SparseLayer, progress: float) -> int:
    """Return how many units of a layer are to be active."""
    if method.initial_density is None:
        return layer.active
    planned = layer.planned
    density = method.density_at(progress, planned.initial_density, planned.final_density)
    return min(layer.pattern.kept(density, planned.shape), layer.n_free)


def _global_targets(layers: Sequence[SparseLayer], targets: dict[str, int]) -> dict[str, int]:
    """Keep the sum of the targets but not how it is shared: that, all layers decide together.

    A falling sum is spread over the layers only to be summed again; a rising one goes to where
    the layers are furthest below what was planned.
    """
    active = [layer.active for layer in layers]
    change = sum(targets.values()) - sum(active)
    # Where the lowest of all layers go, a target of its own means nothing for a layer. Any shares
    # with the right sum will do; in proportion to size, none exceeds what the layer has.
    if change <= 0:
        shares = share_out(-change, active, active)
        return dict(zip(targets, [a - s for a, s in zip(active, shares, strict=True)], strict=True))
    below = [max(t - a, 0) for t, a in zip(targets.values(), active, strict=True)]
    room = [layer.n_free - layer.active for layer in layers]
    shares = share_out(change, below, room)
    return dict(zip(targets, [a + s for a, s in zip(active, shares, strict=True)], strict=True))


def propose(method: Rules, view: UpdateView) -> dict[str, Tensor]:
    """Compute every layer's active units after an update.

    Args:
        method: whose scores choose.
        view: what the update may look at.

    Returns:
        Bool tensors on the grids, by layer, with exact counts.
    """
    exchanges = begin(view)
    return grow(method, view, exchanges, drop(method, view, exchanges))


def begin(view: UpdateView) -> Exchanges:
    """Return every layer's units, nothing moved yet."""
    return {
        layer.name: layer.exchange(layer, view.active[layer.name], partial(view.signals, layer))
        for layer in view.layers
    }


def drop(method: Rules, view: UpdateView, exchanges: Exchanges) -> dict[str, int]:
    """Shrink and drop in all layers; return how many units each is to grow."""
    shrink = {name: move.shrink for name, move in view.moves.items()}
    if method.shrink == "global" and any(shrink.values()):
        _drop_over_all(method, view, exchanges, sum(shrink.values()), replaced=False)
        # Shrunk already: not again below, layer by layer.
        shrink = dict.fromkeys(shrink, 0)
    exchange = _to_exchange(method, view, exchanges)
    if method.threshold == "global" and any(exchange.values()):
        # What shrinks for good goes layer by layer; only what is replaced competes over all layers.
        _drop_each(method, view, exchanges, shrink)
        gone = _drop_over_all(method, view, exchanges, sum(exchange.values()), replaced=True)
    else:
        # In one go: what shrinks and what is exchanged are both the lowest.
        lost = _drop_each(
            method, view, exchanges, {name: shrink[name] + k for name, k in exchange.items()}
        )
        gone = {name: k - shrink[name] for name, k in lost.items()}
    return {name: count + view.moves[name].expand for name, count in gone.items()}


def grow(
    method: Rules, view: UpdateView, exchanges: Exchanges, to_grow: Mapping[str, int]
) -> dict[str, Tensor]:
    """Share among layers what is to be grown, and grow it; return who is active then."""
    if method.redistribute is not None:
        to_grow = _redistributed(method, exchanges, to_grow)
    rest = list(exchanges)
    if _at_once(exchanges):
        # Where groups choose by themselves, they choose layer by layer.
        free = {n: one for n, one in exchanges.items() if one.anywhere and to_grow[n]}
        asked = [
            one.growing(method.grow, regrow_dropped=method.regrow_dropped) for one in free.values()
        ]
        ks, generators = [to_grow[name] for name in free], [view.generator(n, "grow") for n in free]
        rooms = [one.room(regrow_dropped=method.regrow_dropped) for one in free.values()]
        worths, among = [worth for worth, _ in asked], [there for _, there in asked]
        chosen = each.highest(method.grow, worths, ks, among, rooms, generators) if free else []
        for one, part, k in zip(free.values(), chosen, ks, strict=True):
            one.add(part, k)
        rest = [name for name in exchanges if name not in free]
    for name in rest:
        exchanges[name].grow(
            method.grow,
            to_grow[name],
            view.generator(name, "grow"),
            regrow_dropped=method.regrow_dropped,
        )
    return {name: one.kept for name, one in exchanges.items()}


def _at_once(exchanges: Exchanges) -> bool:
    """Tell whether a GPU can choose in all of these layers at once."""
    return all(
        type(one) is Exchange and many.available(one.kept.device) for one in exchanges.values()
    )


def _drop_each(
    method: Rules, view: UpdateView, exchanges: Exchanges, ks: Mapping[str, int]
) -> dict[str, int]:
    """Drop in each layer its own lowest units; return how many went, by layer."""
    if not (method.drop.exact and _at_once(exchanges)):
        return {
            name: one.drop(method.drop, ks[name], view.generator(name, "drop"))
            for name, one in exchanges.items()
        }
    losing = {name: one for name, one in exchanges.items() if ks[name]}
    asked = [one.worth(method.drop) for one in losing.values()]
    lost, ns = [ks[name] for name in losing], [one.n for one in losing.values()]
    worths, among = [worth for worth, _ in asked], [there for _, there in asked]
    generators = [view.generator(name, "drop") for name in losing]
    chosen = each.lowest(method.drop, worths, lost, among, ns, generators)
    for one, part, k in zip(losing.values(), chosen, lost, strict=True):
        one.strike(part, k)
    return dict(ks)


def _to_exchange(method: Rules, view: UpdateView, exchanges: Exchanges) -> dict[str, int]:
    """Return how many units each layer is to exchange.

    Layers that shrank together are no longer as large as their moves were computed for. Where no
    exchange was planned at all, there is none: what it would read was not gathered.
    """
    planned = {name: move.exchange for name, move in view.moves.items()}
    shrunk = any(move.shrink for move in view.moves.values())
    if method.shrink != "global" or not shrunk or not any(planned.values()):
        return planned
    counts = {}
    for layer in view.layers:
        one = exchanges[layer.name]
        exchange = method.moves(one.n, one.n, layer.n_free, view.fraction).exchange
        if not method.regrow_dropped:
            exchange = min(exchange, _room_to_replace(view, one))
        counts[layer.name] = exchange
    return counts


def _room_to_replace(view: UpdateView, one: Exchange) -> int:
    """Return how many units may go if others are to take their place, beside those it grows."""
    return one.room(regrow_dropped=False) - view.moves[one.layer.name].expand


def _drop_over_all(
    method: Rules, view: UpdateView, exchanges: Exchanges, k: int, *, replaced: bool
) -> dict[str, int]:
    """Drop the k lowest units of all layers together; return how many each lost.

    No layer loses its last unit, nor, if what it loses is to be replaced, more than it has room to
    grow: only so many of its own lowest units compete.
    """
    score, worths, there, mosts = method.drop, [], [], []
    for one in exchanges.values():
        worth, kept = one.worth(score)
        # A layer that loses its last unit passes nothing on: the network would be cut, and no
        # gradient could bring a unit back.
        most = max(one.n - 1, 0)
        if replaced and not method.regrow_dropped:
            most = min(most, _room_to_replace(view, one))
        worths.append(worth)
        there.append(kept)
        mosts.append(most)
    generators = [view.generator(name, "drop") for name in exchanges]
    counts = [one.n for one in exchanges.values()]
    # Only so many of its own lowest units enter the contest, so that no layer can lose more,
    # whatever the scores of the others are.
    among = each.lowest(score, worths, mosts, there, counts, generators)
    n, generator = sum(mosts), view.generator("all layers", "drop")
    chosen = score.lowest(torch.cat(worths), min(k, n), torch.cat(among), n, generator)
    parts = chosen.split([len(part) for part in among])
    # One transfer for the counts of all layers.
    gone = dict(zip(exchanges, torch.stack([p.sum() for p in parts]).tolist(), strict=True))
    for (name, one), part in zip(exchanges.items(), parts, strict=True):
        one.strike(part, gone[name])
    return gone


def _redistributed(
    method: Rules, exchanges: Exchanges, to_grow: Mapping[str, int]
) -> dict[str, int]:
    """Share what all layers are to grow in proportion to the strength of a signal.

    A layer that lost all its units gets one before the others share.
    """
    assert method.redistribute is not None
    strengths = torch.stack([one.strength(method.redistribute) for one in exchanges.values()])
    room = [one.room(regrow_dropped=method.regrow_dropped) for one in exchanges.values()]
    # Its strength is zero, so that no share would ever bring it back.
    first = [int(not one.n and r > 0) for one, r in zip(exchanges.values(), room, strict=True)]
    room = [r - f for r, f in zip(room, first, strict=True)]
    shares = share_out(sum(to_grow.values()) - sum(first), strengths.tolist(), room)
    return {name: f + s for name, f, s in zip(to_grow, first, shares, strict=True)}
