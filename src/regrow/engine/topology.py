"""All sparse layers of a model: applied at every step, moved at an update, saved and restored.

An update proposes new units for every layer, checks them, and only then commits any: a layer with
bad numbers leaves the model untouched.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from functools import partial
from itertools import starmap
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from regrow.engine import swift
from regrow.engine.changes import LayerChange, count_changes
from regrow.engine.finite import check_finite, not_finite
from regrow.engine.first_values import put_back_
from regrow.engine.heap import give_back
from regrow.engine.layer import MaskedLayer
from regrow.engine.method import Method
from regrow.engine.moments import (
    OnGrow,
    check_slots,
    first_codes,
    momentum,
    plain_slots,
    restarting,
)
from regrow.engine.presence import find, holder
from regrow.engine.ranks import around
from regrow.engine.saved import check_names
from regrow.engine.scores import Role, Score, Signals
from regrow.engine.sharding import like, local, whole
from regrow.engine.sparse_layer import SparseLayer
from regrow.engine.update import Moves, UpdateView
from regrow.engine.whole import finish
from regrow.engine.wrappers import unwrap
from regrow.engine.written import Seen

__all__ = ["Topology"]


class Topology:
    """The masks of one model.

    Args:
        model: the user's own module.
        layers: one for each sparse weight.

    Attributes:
        seen: tells whether a weight was written or exchanged since a write of this topology.
    """

    def __init__(self, model: nn.Module, layers: list[SparseLayer]) -> None:
        self.model = model
        self.layers = layers
        self._found: list[tuple[SparseLayer, nn.Parameter]] = []
        self._state: Any = None  # the optimizer's at the last step; loading makes a new one
        self.collect_()

    def pairs(self) -> list[tuple[SparseLayer, nn.Parameter]]:
        """Look the weights up by name: wrapping a model may have swapped its parameters.

        Raises:
            RuntimeError: one is gone, hidden or of another shape.
        """
        # An update asks for them again and again: found once, they are looked at only.
        if self._found and not self.seen.exchanged and all(starmap(_fits, self._known)):
            return self._found
        return [(layer, find(self.model, layer.name, layer.shape)) for layer in self.layers]

    def present(self) -> list[nn.Parameter]:
        """Return those of the weights that the model still has, should parts have been replaced."""
        found = []
        for layer in self.layers:
            with suppress(RuntimeError):
                found.append(find(self.model, layer.name))
        return found

    def kept(self) -> dict[str, Tensor]:
        """Return the weights that take part in the forward pass; bool tensors by name."""
        return {layer.name: layer.kept() for layer in self.layers}

    # ------------------------------------------------------------------ every step

    def collect_(self) -> None:
        """Gather the weights to multiply and their masks, wherever the model is now."""
        pairs = self.pairs()
        for layer, weight in pairs:
            layer.follow_(weight)
        # Lists are built here once, so that an ordinary step is one call into torch for all layers.
        plain = [pair for pair in pairs if pair[0].multiplied]
        self._special = [pair for pair in pairs if not pair[0].multiplied]
        self._stored = [pair for pair in pairs if pair[0].stored]
        masked = [
            (weight, layer.mask)
            for layer, weight in plain
            if isinstance(layer, MaskedLayer) and not layer.full
        ]
        self._weights: list[Tensor] = [weight for weight, _ in masked]
        self._masks = [local(mask) for _, mask in masked]
        self._forms = [_form(mask) for mask in self._masks]
        watched = self._weights + [weight for _, weight in self._special]
        self.seen = Seen(self.model, {layer.name: weight for layer, weight in pairs}, watched)
        self._found, self._known = pairs, [(weight, layer.shape) for layer, weight in pairs]

    def check_loaded(self) -> None:
        """Raise RuntimeError if a loaded state wants values of a weight that are gone."""
        for layer, weight in self.pairs():
            layer.check_loaded(weight)

    @torch.no_grad()
    def strays(self) -> dict[str, int]:
        """Count the weights outside the masks that are not what they are to be; by name, if any.

        Raises:
            RuntimeError: a weight is gone, hidden or of another shape.
        """
        pairs = self.pairs()
        if (at_once := swift.strays(pairs)) is not None:
            return at_once
        counts = {layer.name: layer.strays(weight) for layer, weight in pairs}
        found = {name: count for name, count in counts.items() if count is not None}
        if not found:
            return {}
        # The device is asked once for all layers.
        device = next(iter(found.values())).device
        numbers = torch.stack([count.to(device) for count in found.values()]).tolist()
        return {name: n for name, n in zip(found, numbers, strict=True) if n}

    @torch.no_grad()
    def clear_(self, names: Collection[str]) -> None:
        """Apply the masks to weights of which some are outside: NaN times zero would be NaN."""
        for layer, weight in self.pairs():
            if layer.name in names and isinstance(layer, MaskedLayer):
                local(weight).masked_fill_(local(layer.mask) == 0, 0)
        self.apply_()

    @torch.no_grad()
    def mask_copies_(self, copies: Callable[[Tensor], list[Tensor]]) -> None:
        """Mask what an optimizer keeps of the weights, as weights are masked."""
        for layer, weight in self.pairs():
            for copy in copies(weight) if layer.plain else ():
                layer.apply_(copy)

    @torch.no_grad()
    def apply_(self) -> None:
        """Multiply the weights by their masks: all that an ordinary step costs."""
        weights = (
            [local(weight) for weight in self._weights] if self.seen.sharded else self._weights
        )
        # A model may have been moved by .to() or .half() since; to compare is far cheaper than to
        # collect anew at every step.
        if [_form(weight) for weight in weights] != self._forms:
            self.collect_()
            weights = [local(weight) for weight in self._weights]
        if weights:
            torch._foreach_mul_(weights, self._masks)
        for layer, weight in self._special:
            layer.apply_(weight)
        self.seen.note_()

    @torch.no_grad()
    def apply_to_(self, module: nn.Module) -> None:
        """Set the dropped weights of another module with the same parameter names to zero."""
        # By name: an averaged model has copies of the parameters, sharded or elsewhere.
        for layer in self.layers:
            layer.apply_to_(*holder(unwrap(module), layer.name))

    def settle_(self, optimizer: Optimizer) -> None:
        """Let optimizer state follow weights that a loaded model state has put elsewhere.

        Called before every step: an optimizer whose own state was loaded since the last one has
        what belongs to the weights, in whatever order the two were loaded.
        """
        for layer, weight in self._stored:
            if layer.displaced:
                loaded = optimizer.state is not self._state
                layer.settle_(None if loaded else optimizer.state.get(weight, {}))
        self._state = optimizer.state

    @torch.no_grad()
    def rescale_(self) -> None:
        """Multiply active weights by 1/√density, layer by layer."""
        for layer, weight in self.pairs():
            layer.rescale_(weight, (layer.planned.units / layer.active) ** 0.5)
        self.seen.note_()

    @property
    def prepares(self) -> bool:
        """Whether any layer has something to do before a step."""
        return any(not layer.plain for layer, _ in self._special)

    @torch.no_grad()
    def before_step_(self, scale: Tensor | None) -> None:
        """Let layers prepare their weights for the optimizer's step."""
        for layer, weight in self._special:
            layer.before_step_(weight, scale)

    @torch.no_grad()
    def separate_(self) -> None:
        """Take back what :meth:`before_step_` put into weights: a forward pass comes first."""
        for layer, weight in self._special:
            layer.apply_(weight)

    @torch.no_grad()
    def observe_(self, method: Method, gradients: Mapping[str, Tensor]) -> None:
        """Take one more step of the running averages that the method's scores follow.

        Args:
            method: whose scores they are.
            gradients: those of the layers that took part in the step; the others' averages stay.
        """
        for layer, weight in self.pairs():
            if layer.name not in gradients:
                continue
            for role, score in method.followed.items():
                signals = Signals(
                    weight=whole(layer.values(weight.detach())),
                    pattern=layer.pattern,
                    gradient=whole(gradients[layer.name]) if score.observes else None,
                )
                layer.observe_(role, score, signals)

    def hold_(self, *, held: bool) -> None:
        """Tell layers whether this topology drives their weights, or has left them free to move."""
        for layer in self.layers:
            layer.hold_(held=held)

    def expect_(self, *, dense_gradients: bool) -> None:
        """Tell layers whether the next step's update will read gradients of inactive weights."""
        for layer in self.layers:
            layer.expect_(dense_gradients=dense_gradients)

    # ------------------------------------------------------------------ an update

    def moves(
        self, method: Method, progress: float, among: Collection[str] | None = None
    ) -> dict[str, Moves]:
        """Return what an update moves in each layer; empty when nothing moves in any.

        Args:
            method: says how many.
            progress: through the window of updates, from 0 to 1.
            among: the layers that take part; None: all.
        """
        layers = [layer for layer in self.layers if among is None or layer.name in among]
        return method.moves_of(layers, progress)

    def followed(self, method: Method, moves: Mapping[str, Moves]) -> dict[str, Moves]:
        """Return the moves of layers whose running averages, if scores follow any, saw a step.

        Raises:
            RuntimeError: no layer's did.
        """
        roles = method.followed
        seen = {layer.name for layer in self.layers if all(r in layer.running for r in roles)}
        if not seen:
            raise RuntimeError(
                "topology update: the method chooses by running averages, and no layer has one "
                "yet: make a step with gradients first"
            )
        return {name: move for name, move in moves.items() if name in seen}

    @torch.no_grad()
    def update_(
        self,
        method: Method,
        moves: Mapping[str, Moves],
        progress: float,
        optimizer: Optimizer,
        gradients: Mapping[str, Tensor],
        generator: Callable[[str, Role], torch.Generator],
        record: Callable[[dict[str, LayerChange]], object] = lambda _: None,
    ) -> dict[str, LayerChange]:
        """Move the topology; weights and optimizer state follow, in all layers or in none.

        Args:
            method: whose scores choose.
            moves: how many units each layer drops and grows.
            progress: through the window of updates, from 0 to 1.
            optimizer: holds the state of the weights.
            gradients: dense gradients by layer, where the method reads them.
            generator: makes the CPU generator for choices at random, from a key.
            record: writes down what happened, as part of the whole; may be called twice.

        Returns:
            What happened, by layer.

        Raises:
            FloatingPointError: a weight is NaN or infinite; no mask was moved.
            ValueError: the optimizer's state cannot be written (:meth:`check_slots`); likewise.
        """
        pairs = [pair for pair in self.pairs() if pair[0].name in moves]
        weights = {layer.name: weight for layer, weight in pairs}
        layers = [layer for layer, _ in pairs]
        stored = [pair for pair in pairs if pair[0].stored]
        for (layer, _), ranks in zip(stored, around([w for _, w in stored]), strict=True):
            layer.join_(ranks)
        read = method.reads(moves.values())

        def seen(name: str) -> Signals:
            return _seen(read, weights[name], optimizer, gradients.get(name), progress)

        def signals(layer: SparseLayer, role: Role, kept: Any) -> Signals:
            return layer.signals(seen(layer.name), role, kept)

        at_once = swift.propose(method, moves, pairs, optimizer, seen, generator)
        if at_once is not None:
            return self._take_over_(at_once, method, optimizer, moves, record)
        # A NaN has no place in an order: it would be kept or dropped by accident.
        check_finite(weights, "weight", "no mask was moved")
        fraction = method.fraction_at(progress)
        active = {layer.name: layer.units() for layer in layers}
        proposed = method.propose(UpdateView(layers, active, moves, fraction, signals, generator))
        # Everything is proposed, counted and computed before any layer is written: an error until
        # here leaves the model as it was, and after it the update is finished before it is raised.
        changes = count_changes(layers, active, proposed)
        give_back(layers)  # what choosing needed: the copies that follow are the most of an update
        self.check_slots(optimizer, method.on_grow, moves)
        writes: list[Callable[[], object]] = []
        for layer in layers:
            weight, before, after = (by[layer.name] for by in (weights, active, proposed))
            written = layer.stored or method.on_grow != "keep"
            moments = plain_slots(optimizer, weight) if written else {}
            changed = partial(_changed, layer, weight, before, after)
            writes += [
                layer.committing(after, weight, moments, method.on_grow),
                *first_codes(optimizer, weight, changed, method.on_grow),
                restarting(optimizer, weight, changes[layer.name].active if layer.stored else None),
                partial(setattr, layer, "active", changes[layer.name].active),
            ]
        # A mask that was full may hold zeros now, or the other way round.
        finish([*writes, self.collect_, partial(record, changes)])
        return changes

    def _take_over_(
        self,
        update: swift.Exchanged,
        method: Method,
        optimizer: Optimizer,
        moves: Mapping[str, Moves],
        record: Callable[[dict[str, LayerChange]], object],
    ) -> dict[str, LayerChange]:
        """Make an update that was computed for all layers at once; otherwise as update_."""
        bad, back = update.asked()  # the host waits, once
        if bad:
            raise not_finite(bad, "weight", "no mask was moved")
        self.check_slots(optimizer, method.on_grow, moves)
        changes, settled, refilled = {}, [], False
        by_name = {layer.name: layer for layer in self.layers}
        for row, again in zip(update.layers, back, strict=True):
            layer, move = by_name[row.name], row.move
            active = row.active - move.shrink + move.expand
            dropped, grown = (n + move.exchange - again for n in (move.shrink, move.expand))
            changes[row.name] = LayerChange(dropped=dropped, grown=grown, active=active)
            settled.append((layer, active))
            refilled |= active != row.active

        def settle() -> None:
            for layer, active in settled:
                layer.active, layer.running = active, {}

        look = self.collect_ if refilled else self.seen.note_
        finish([update.write_, settle, look, partial(record, changes)])
        return changes

    @torch.no_grad()
    def check_slots(
        self, optimizer: Optimizer, policy: OnGrow, among: Collection[str] | None = None
    ) -> None:
        """Raise ValueError unless grown weights can be given their first optimizer state.

        Args:
            optimizer: holds the state of the weights; what has none yet passes.
            policy: what a grown weight finds.
            among: the layers that are asked for; None: all.
        """
        pairs = [(layer, w) for layer, w in self.pairs() if among is None or layer.name in among]
        check_slots(optimizer, [(layer.name, w, layer.stored) for layer, w in pairs], policy)

    @torch.no_grad()
    def would_drop(
        self,
        score: Score,
        fraction: float,
        optimizer: Optimizer,
        gradients: Mapping[str, Tensor],
        generator: Callable[[str, Role], torch.Generator],
    ) -> dict[str, Tensor]:
        """Return the weights a drop score would choose in every layer; changes nothing."""
        chosen = {}
        for layer, weight in self.pairs():
            if "gradient" in score.needs and layer.name not in gradients:
                raise RuntimeError(
                    f"score={score!r} reads gradients, and {layer.name} has none: "
                    "call backward() first"
                )
            seen = _seen(score.needs, weight, optimizer, gradients.get(layer.name))
            signals = partial(layer.signals, seen)
            one = layer.exchange(layer, layer.units(), signals)
            one.drop(score, math.floor(fraction * layer.active), generator(layer.name, "drop"))
            chosen[layer.name] = layer.expanded(one.active) & ~layer.expanded(one.kept)
        return chosen

    def unsettled(self, method: Method) -> bool:
        """Tell whether a moving density has not come to its end."""
        return any(move.shrink or move.expand for move in self.moves(method, 1.0).values())

    # ------------------------------------------------------------------ save and restore

    def state_dict(self) -> dict[str, Any]:
        """Return each layer's state, by name."""
        return {layer.name: layer.state_dict() for layer in self.layers}

    def check_state(self, state: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the masks of a saved state, or raise ValueError if it does not fit."""
        check_names(state, [layer.name for layer in self.layers])
        return {layer.name: layer.check_state(state[layer.name]) for layer in self.layers}

    @torch.no_grad()
    def load_state_dict(
        self,
        state: Mapping[str, Any],
        before: Mapping[str, Tensor] | None = None,
        then: Callable[[], object] = lambda: None,
    ) -> None:
        """Take over each layer's state and apply the masks to the model, in all layers or in none.

        Args:
            state: by layer.
            before: weights as they were before this topology's first masks, see ``values``.
            then: takes over what goes with it, as part of the whole; may be called twice.

        Raises:
            ValueError: the layers differ, or one's state does not fit; nothing is then changed.
        """
        # All layers are checked, and what is loaded is on its device, before the first is written.
        masks = self.check_state(state)
        loads = [
            layer.loading(state[layer.name], masks[layer.name], weight)
            for layer, weight in self.pairs()
        ]
        finish([lambda: put_back_(self.pairs(), before or {}, masks), *loads, self.collect_, then])


def _fits(weight: Tensor, shape: tuple[int, ...] | None) -> bool:
    """Tell whether a weight that is where it was is still as its layer knows it."""
    return (shape is None or weight.shape == shape) and not weight.is_meta


def _form(tensor: Tensor) -> tuple[Any, ...]:
    """Return what a mask must have in common with its weight, to be multiplied in one kernel."""
    return tensor.dtype, tensor.device, tensor.stride()


def _seen(
    read: Collection[str],
    weight: Tensor,
    optimizer: Optimizer,
    gradient: Tensor | None,
    progress: float = 0.0,
) -> Signals:
    """Return what a layer's signals are made of; gradient and momentum only if they are read."""
    return Signals(
        weight.detach(),
        progress=progress,
        gradient=gradient if "gradient" in read else None,
        momentum=momentum(optimizer, weight) if "momentum" in read else None,
    )


def _changed(layer: SparseLayer, weight: Tensor, before: Any, after: Any) -> tuple[Tensor, Tensor]:
    """Return the weights that grow, and those that stay active, laid out as the weight is."""
    was, will_be = layer.expanded(before), layer.expanded(after)
    return like(will_be & ~was, weight), like(will_be & was, weight)
