"""Makes the updates of one run: which layers take part, what is read, what is moved."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from regrow.engine.clock import Clock, skips
from regrow.engine.gradients import Gradients
from regrow.engine.heap import give_back
from regrow.engine.history import Update
from regrow.engine.method import Method
from regrow.engine.moments import remembers
from regrow.engine.scores import Role, Score
from regrow.engine.selection import seeded_generator
from regrow.engine.told import check_would_drop
from regrow.engine.topology import Topology
from regrow.engine.update import Moves

__all__ = ["Updater"]


class Updater:
    """Plans an update before an optimizer's step and makes it afterwards.

    Args:
        method: says what moves, and by which scores.
        topology: what is moved.
        optimizer: holds the state of the weights.
        gradients: those of the topology's weights.
    """

    def __init__(
        self, method: Method, topology: Topology, optimizer: Optimizer, gradients: Gradients
    ) -> None:
        self.method = method
        self.topology = topology
        self.optimizer = optimizer
        self.gradients = gradients
        self._moves: dict[str, Moves] = {}
        self._read: dict[str, Tensor] = {}
        # Whether layers were last told to gather dense gradients; told only when that changes.
        self._expecting = False
        # The optimizer's state is looked at after two steps: a subclass may add to it after the
        # step of its parent.
        self._looks = 2

    # ------------------------------------------------------------------ before a step

    def expect_(self, clock: Clock) -> None:
        """Tell the layers what the next step will read, should they have to gather it."""
        if not (clock.near or self._expecting):
            return
        self._expecting = clock.near and self.reads(clock.progress(clock.next), "gradient")
        self.topology.expect_(dense_gradients=self._expecting)

    def clear_(self) -> None:
        """Forget what was planned for a step that failed."""
        self._moves = {}

    def prepare_(self, clock: Clock, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Get ready for the step now going on, with the arguments of its pre-hook.

        Returns:
            The arguments with which the step is to go on, or None: they stay as they are.
        """
        # The hook is called with the arguments of step(): args[0] is the optimizer, args[1] the
        # closure.
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if closure is None:
            self._prepare_(clock)
            return None

        def run() -> Any:
            # The closure calls zero_grad() and backward(), which must find the real gradients, and
            # the weights as a forward pass sees them.
            self.gradients.restore()
            self.topology.separate_()
            loss = closure()
            self._prepare_(clock)
            return loss

        # With a closure the gradients exist only once it has run, inside the step.
        return args[:1], {**kwargs, "closure": run}

    def _prepare_(self, clock: Clock) -> None:
        if clock.due:
            self.plan_in_step_(clock.progress(clock.next))
        self.topology.before_step_(getattr(self.optimizer, "grad_scale", None))

    def plan_in_step_(self, progress: float) -> None:
        """Plan the update of the step now going on, and hide gradients if it takes its place.

        Args:
            progress: through the window of updates, from 0 to 1.

        Raises:
            FloatingPointError: a gradient that the update reads is NaN or infinite.
            RuntimeError: there is none, or it was masked.
        """
        # Layers without a gradient stay as they are. But if the update reads gradients and there
        # are none at all, it has to fail, not to pass unseen: then all layers are asked for.
        names: Collection[str] = self.gradients.current().keys()
        if not names and self.reads(progress, "gradient"):
            names = self._trainable()
        self._plan_(progress, names)
        if self._moves and self.method.replaces_step:
            self.gradients.hide()

    def plan_by_hand_(self, progress: float) -> None:
        """Plan an update outside a step, of the layers that have what it reads, if any has."""
        names = trainable = self._trainable()
        moves = self.topology.moves(self.method, progress, trainable)
        read = self.method.reads(moves.values())
        if "gradient" in read:
            names = names & self.gradients.current().keys() or names
        if "momentum" in read:
            pairs = self.topology.pairs()
            remembered = {layer.name for layer, w in pairs if remembers(self.optimizer, w)}
            names = names & remembered or names
        self._plan_(progress, names, moves if names == trainable else None)

    def _plan_(
        self, progress: float, among: Collection[str], moves: dict[str, Moves] | None = None
    ) -> None:
        if moves is None:
            moves = self.topology.moves(self.method, progress, among)
        # Read before the step, which may unscale the gradients, or after which they may be gone.
        self._moves, self._read = moves, {}
        if "gradient" in self.method.reads(self._moves.values()):
            self._read = self.gradients.dense(self._moves)

    def would_drop(self, score: Score, fraction: float, seed: int, step: int) -> dict[str, Tensor]:
        """Return the weights a drop score would choose in every layer now; changes nothing.

        Args:
            score: any drop score that follows no running average.
            fraction: the share of active units, from 0 to 1.
            seed: of what is drawn at random.
            step: likewise.
        """
        check_would_drop(score, fraction)
        gradients = self.gradients.dense() if "gradient" in score.needs else {}
        return self.topology.would_drop(
            score,
            fraction,
            self.optimizer,
            gradients,
            lambda name, role: seeded_generator(seed, name, step, "would drop"),
        )

    def reads(self, progress: float, signal: str) -> bool:
        """Tell whether an update of all trainable layers reads "gradient", or "momentum"."""
        moves = self.topology.moves(self.method, progress, self._trainable())
        return signal in self.method.reads(moves.values())

    def _trainable(self) -> set[str]:
        return {layer.name for layer, weight in self.topology.pairs() if weight.requires_grad}

    # ------------------------------------------------------------------ after it

    def check_slots_(self) -> None:
        """Raise ValueError after the first steps, and not at the first update, long after them."""
        if self._looks:
            self.topology.check_slots(self.optimizer, self.method.on_grow)
            self._looks -= 1

    def observe_(self) -> None:
        """Let scores that are running averages see the step just made."""
        if self.method.observes is None or skips(self.optimizer):
            return
        gradients = self.gradients.dense()
        # Fused optimizers unscale gradients inside the step. If another sparsifier took that step's
        # place, nobody has, though this one's scores follow unscaled gradients.
        if self.gradients.replaced_by_any():
            gradients = self._unscaled(gradients)
        self.topology.observe_(self.method, gradients)

    def make_(
        self,
        step: int,
        progress: float,
        seed: int,
        history: list[Update],
        then: Callable[[], object],
    ) -> Update | None:
        """Make the update that was planned, and record it: the whole of it, or nothing.

        Args:
            step: to be recorded.
            progress: as it was planned for.
            seed: of random choices, which depend on the layer and the number of the update, too: a
                resumed run and every rank draw what the uninterrupted run would have drawn, and no
                generator state is saved.
            history: of the updates so far, to which this one is added.
            then: done as part of the whole; may be called twice.

        Returns:
            What happened; None when nothing was to be moved.
        """
        number = len(history)

        def generator(name: str, role: Role) -> torch.Generator:
            return seeded_generator(seed, name, number, role)

        def record(update: Update | None) -> None:
            history[number:] = [] if update is None else [update]
            then()

        gradients, self._read = self._read, {}
        # A layer whose running average has seen no step yet has nothing to choose by, and waits.
        moves = self._moves and self.topology.followed(self.method, self._moves)
        if not moves:
            record(None)
            return None
        if self.method.replaces_step:
            gradients = self._unscaled(gradients)
        reads = self.method.reads_inactive(moves.values())
        self.topology.update_(
            self.method,
            moves,
            progress,
            self.optimizer,
            gradients,
            generator,
            lambda changes: record(Update(step, changes, read_gradients=reads)),
        )
        # Only now are the copies gone that an update makes of all layers before it writes any.
        give_back(self.topology.layers)
        return history[number]

    def _unscaled(self, gradients: dict[str, Tensor]) -> dict[str, Tensor]:
        """Undo the scale of a loss: a fused optimizer does so in its step, and there was none."""
        scale = getattr(self.optimizer, "grad_scale", None)
        if scale is None:
            return gradients
        return {name: gradient / scale for name, gradient in gradients.items()}
