"""An update of all layers at once on a GPU, in a few launches: what most runs ask for.

Weights one by one, each layer for itself, scores that rank or draw: then nothing has to be asked
between dropping and growing, and masks, weights and optimizer state are written by one kernel. What
asks for more goes layer by layer (:mod:`regrow.engine.update`), and chooses the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from regrow.engine import many
from regrow.engine.draws import seed_from
from regrow.engine.dynamic import Dynamic
from regrow.engine.layer import MaskedLayer
from regrow.engine.many import Chosen
from regrow.engine.method import Method
from regrow.engine.moments import FIRST, of_shape
from regrow.engine.optimizers import divides_by_state, reader
from regrow.engine.patterns import Element
from regrow.engine.quantised import is_plain
from regrow.engine.scores import (
    Gradient,
    Magnitude,
    Momentum,
    Random,
    Role,
    Score,
    Signals,
    SignedMagnitude,
    Unfired,
)
from regrow.engine.sparse_layer import SparseLayer
from regrow.engine.update import Moves

__all__ = ["Exchanged", "Layer", "exchange", "layers_of", "propose", "strays"]

_PLAIN = (Tensor, nn.Parameter)
_BY_MAGNITUDE = (Magnitude, Gradient, Momentum)


@dataclass(frozen=True)
class Layer:
    """What the kernels read and write of one layer, contiguous on one device.

    Args:
        name: of the weight.
        weight: its values.
        mask: of the weight's type, 1 = active.
        fired: bool, those ever active.
        slots: of the optimizer, set to zero where a weight is grown.
        active: how many weights are active.
        move: how many are to be dropped and grown.
    """

    name: str
    weight: Tensor
    mask: Tensor
    fired: Tensor
    slots: tuple[Tensor, ...]
    active: int
    move: Moves


@dataclass(frozen=True)
class Exchanged:
    """An update that was computed and not yet made.

    Args:
        layers: those that take part.
        dropped: the weights that go; None: none does.
        grown: the weights that come, some of which may be among the dropped; None: none does.
        finite: of each layer, whether all its weights are; bool tensor on the device.
    """

    layers: Sequence[Layer]
    dropped: Chosen | None
    grown: Chosen | None
    finite: Tensor

    def asked(self) -> tuple[list[str], list[int]]:
        """Return the names of layers that are not finite, and how many weights each grows back.

        The host waits for the device, here alone.
        """
        back = None if self.dropped is None or self.grown is None else self.grown.shared
        numbers = self.finite.int() if back is None else torch.cat([self.finite.int(), back])
        told = numbers.tolist()
        n = len(self.layers)
        bad = [layer.name for layer, good in zip(self.layers, told[:n], strict=True) if not good]
        return bad, told[n:] or [0] * n

    def write_(self) -> None:
        """Make the update; made twice, it is the same."""
        from regrow.engine import exchanging  # noqa: PLC0415 (imports Triton)

        if self.dropped is None and self.grown is None:
            return
        sizes = tuple(layer.weight.numel() for layer in self.layers)
        device = self.layers[0].weight.device
        either = self.grown or self.dropped
        assert either is not None
        at, rows = 0, []
        for layer, n in zip(self.layers, sizes, strict=True):
            rows.append((n, at, *(tensor.data_ptr() for tensor in _written(layer))))
            at += n
        tiles = many.tiles_of(sizes, many.TILE, device)
        slots = self.layers[0].slots
        many.launcher(exchanging.exchange, len(tiles), device)(
            many.on_device(tuple(rows), device),
            tiles,
            (self.dropped or either).flat.view(torch.int8),
            either.flat.view(torch.int8),
            WEIGHT=many.language(self.layers[0].weight.dtype),
            SLOT=many.language(slots[0].dtype if slots else torch.float32),
            SLOTS=len(slots),
            DROPS=self.dropped is not None,
            GROWS=self.grown is not None,
            FIELDS=len(rows[0]),
            **many.LAUNCH,
        )
        # Autograd and whoever watches the weights see a write.
        torch.autograd.graph.increment_version([layer.weight for layer in self.layers])


def layers_of(
    method: Method,
    moves: Mapping[str, Moves],
    pairs: Sequence[tuple[SparseLayer, Tensor]],
    optimizer: Optimizer,
) -> list[Layer] | None:
    """Return what the kernels are to be given, or None if this update asks for more.

    Args:
        method: that moves.
        moves: of all layers of ``pairs``.
        pairs: the layers that take part, and their weights.
        optimizer: holds the state of the weights.
    """
    if not pairs or not many.available(pairs[0][1].device) or not _simple(method, moves):
        return None
    layers, state = [], reader(optimizer)
    for layer, weight in pairs:
        if type(layer) is not MaskedLayer or type(layer.pattern) is not Element:
            return None
        # Shards, and weights of fewer bits in a class of their own, are not where they seem to be.
        if type(weight) not in _PLAIN or type(layer.mask) not in _PLAIN:
            return None
        if layer.held is not None or layer.frozen is not None:
            return None
        own = of_shape(state(weight), weight)
        if own.keys() & FIRST.keys():
            return None
        slots = () if method.on_grow == "keep" else tuple(own.values())
        if not all(map(is_plain, slots)):
            return None
        made = weight, layer.mask, layer.fired, slots, layer.active, moves[layer.name]
        layers.append(Layer(layer.name, *made))
    return layers if _even(layers) and not divides_by_state(optimizer) else None


def _simple(method: Method, moves: Mapping[str, Moves]) -> bool:
    """Tell whether every layer decides for itself, by scores that rank or draw."""
    return (
        isinstance(method, Dynamic)
        and type(method).propose is Dynamic.propose
        and method.threshold == "layer"
        and method.redistribute is None
        and method.on_grow != "mean"
        and (method.shrink == "layer" or not any(move.shrink for move in moves.values()))
        and (_ranks(method.drop) or type(method.drop) in (Random, SignedMagnitude))
        and (_ranks(method.grow) or type(method.grow) in (Random, Unfired))
    )


def _ranks(score: Score) -> bool:
    return score.ranks and score.elementwise


def _written(layer: Layer) -> tuple[Tensor, ...]:
    return layer.weight, layer.mask, layer.fired, *layer.slots


def _even(layers: Sequence[Layer]) -> bool:
    """Tell whether what the kernels read and write is alike in all layers."""
    slots = [slot for layer in layers for slot in layer.slots]
    return (
        many.fits([layer.weight for layer in layers])
        and many.fits([layer.mask for layer in layers])
        and layers[0].mask.dtype is layers[0].weight.dtype
        and (not slots or many.fits(slots))
        and len({len(layer.slots) for layer in layers}) == 1
        and all(layer.fired.is_contiguous() for layer in layers)
        and len({t.device for layer in layers for t in _written(layer)}) == 1
    )


def propose(
    method: Method,
    moves: Mapping[str, Moves],
    pairs: Sequence[tuple[SparseLayer, Tensor]],
    optimizer: Optimizer,
    seen: Callable[[str], Signals],
    generator: Callable[[str, Role], torch.Generator],
) -> Exchanged | None:
    """Compute an update of all layers at once, or return None if it asks for more.

    Args:
        method: that moves.
        moves: of all layers of ``pairs``.
        pairs: the layers that take part, and their weights.
        optimizer: holds the state of the weights.
        seen: makes what scores may look at, by a layer's name, as the optimizer and model have it.
        generator: makes the CPU generator for what is chosen at random, from a key.
    """
    layers = layers_of(method, moves, pairs, optimizer)
    if layers is None or not isinstance(method, Dynamic):
        return None
    by_name = {layer.name: layer for layer, _ in pairs}

    def signals(name: str, role: Role, kept: Tensor | None) -> Signals:
        # What kernels read as it is, is not made ready for scores to be computed of.
        return seen(name) if kept is None else by_name[name].signals(seen(name), role, kept)

    return exchange(method, layers, signals, generator)


def strays(pairs: Sequence[tuple[SparseLayer, Tensor]]) -> dict[str, int] | None:
    """Count the weights outside masks that are not zero, by name, if any; None: cannot be told."""
    if not pairs or not many.available(pairs[0][1].device):
        return None
    if any(type(layer) is not MaskedLayer or not layer.multiplied for layer, _ in pairs):
        return None
    if any(type(weight) not in _PLAIN for _, weight in pairs):
        return None
    masked = [pair for pair in pairs if isinstance(pair[0], MaskedLayer) and not pair[0].full]
    masks = [layer.mask for layer, _ in masked if isinstance(layer, MaskedLayer)]
    weights = [weight for _, weight in masked]
    if not many.fits(weights, masks) or masks[0].dtype is not weights[0].dtype:
        return None
    from regrow.engine import exchanging  # noqa: PLC0415 (imports Triton)

    sizes, device = tuple(weight.numel() for weight in weights), weights[0].device
    rows = tuple(
        (n, 0, w.data_ptr(), m.data_ptr()) for n, w, m in zip(sizes, weights, masks, strict=True)
    )
    found = torch.zeros(len(rows), dtype=torch.int32, device=device)
    tiles = many.tiles_of(sizes, many.TILE, device)
    many.launcher(exchanging.stray, len(tiles), device)(
        many.on_device(rows, device),
        tiles,
        found,
        WEIGHT=many.language(weights[0].dtype),
        FIELDS=len(rows[0]),
        **many.LAUNCH,
    )
    names = [layer.name for layer, _ in masked]
    return {name: n for name, n in zip(names, found.tolist(), strict=True) if n}


def exchange(
    method: Dynamic,
    layers: Sequence[Layer],
    signals: Callable[[str, Role, Tensor | None], Signals],
    generator: Callable[[str, Role], torch.Generator],
) -> Exchanged | None:
    """Compute an update; changes nothing, and waits for nothing.

    Args:
        method: whose scores choose.
        layers: from :func:`layers_of`.
        signals: makes what a score may look at in a layer, given the weights kept so far, if they
            they are to know; None: kernels read the signal as it is.
        generator: makes the CPU generator for what is chosen at random, from a key.

    Returns:
        None if scores are not of the kind that kernels read.
    """
    masks = [layer.mask for layer in layers]
    dropped: Chosen | None = None
    grown: Chosen | None = None
    drops = [layer.move.shrink + layer.move.exchange for layer in layers]
    if any(drops):
        active = [layer.active for layer in layers]
        ask = _Question(layers, "drop", drops, active, masks, signals, generator)
        dropped = ask.answer(method.drop)
        if dropped is None:
            return None
    grows = [layer.move.exchange + layer.move.expand for layer in layers]
    if any(grows):
        back = method.regrow_dropped and dropped is not None
        left = [
            layer.weight.numel() - layer.active + (k if back else 0)
            for layer, k in zip(layers, drops, strict=True)
        ]
        also = dropped.flat if back and dropped is not None else None
        ask = _Question(layers, "grow", grows, left, masks, signals, generator, also)
        grown = ask.answer(method.grow, dropped)
        if grown is None:
            return None
    norms = torch._foreach_norm([layer.weight for layer in layers], torch.inf)
    return Exchanged(layers, dropped, grown, torch.stack(norms).isfinite())


@dataclass(frozen=True)
class _Question:
    layers: Sequence[Layer]
    role: Role
    ks: Sequence[int]
    among: Sequence[int]
    masks: Sequence[Tensor]
    signals: Callable[[str, Role, Tensor | None], Signals]
    generator: Callable[[str, Role], torch.Generator]
    also: Tensor | None = None

    def answer(self, score: Score, dropped: Chosen | None = None) -> Chosen | None:
        """Choose the lowest to be dropped, or the highest to be grown."""
        grows = self.role == "grow"
        if type(score) is Random:
            seeds = [seed_from(self.generator(layer.name, self.role)) for layer in self.layers]
            sizes = [layer.weight.numel() for layer in self.layers]
            device = self.masks[0].device
            return many.draw(
                sizes, self.ks, self.among, seeds, device, self.masks, outside=grows, also=self.also
            )
        by_sign = type(score) is SignedMagnitude
        plain = by_sign or type(score) in _BY_MAGNITUDE
        # Views of what was dropped are made only for scores that are computed here.
        parts: Sequence[Tensor | None] = [None] * len(self.layers)
        if dropped is not None and not plain:
            parts = dropped.parts
        worths = [
            self._worth(score, layer, gone, plain)
            for layer, gone in zip(self.layers, parts, strict=True)
        ]
        if not many.fits(worths, self.masks):
            return None
        return many.choose(
            worths,
            self.ks,
            self.among,
            self.masks,
            highest=grows,
            magnitude=plain and not by_sign,
            outside=grows,
            also=self.also,
            by_sign=by_sign,
        )

    def _worth(self, score: Score, layer: Layer, gone: Tensor | None, plain: bool) -> Tensor:
        """Return numbers in whose order weights are chosen; the kernels take magnitudes."""
        if isinstance(score, Magnitude | SignedMagnitude):
            return layer.weight
        if plain:
            seen = self.signals(layer.name, self.role, None)
            values = seen.gradient if isinstance(score, Gradient) else seen.momentum
            assert values is not None
            return values.contiguous()
        kept = layer.mask > 0 if gone is None else (layer.mask > 0) & ~gone.view(layer.mask.shape)
        worth = score.worth(self.signals(layer.name, self.role, kept))
        if type(score) is Unfired:
            worth = score.keys(worth, self.generator(layer.name, self.role))
        return worth.contiguous()
