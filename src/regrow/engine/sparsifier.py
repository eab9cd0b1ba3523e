"""Drives one method through an optimizer's own steps.

An ordinary step costs one foreach multiply of the weights by their masks. At an update step

* before it, dense gradients are checked, and hidden if the update takes the step's place;
* after it, masks are applied and the topology moves.
"""

from __future__ import annotations

import logging
import math
import weakref
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from regrow.engine.clock import Clock, skips
from regrow.engine.gradients import Gradients
from regrow.engine.history import VERSION, Progress, Update, read_progress
from regrow.engine.method import Method
from regrow.engine.moments import remembers
from regrow.engine.planned import Plan
from regrow.engine.scores import Score
from regrow.engine.selection import seeded_generator
from regrow.engine.sharding import device_of, like, local
from regrow.engine.topology import Topology
from regrow.engine.update import Moves
from regrow.engine.wrappers import unwrap

__all__ = ["Sparsifier", "Update"]

logger = logging.getLogger("regrow")

LIVE: weakref.WeakSet[Sparsifier] = weakref.WeakSet()


class Sparsifier:
    """A model's topology and the hooks that move it; made by :func:`regrow.sparsify`.

    It may be pickled and deep-copied together with its model and optimizer: the copy drives the
    copy.

    Attributes:
        plan: which weights are sparse, how dense, and why others are not.
        method: the method in force.
        seed: fixes every random choice.
        history: every update so far.
    """

    def __init__(
        self,
        topology: Topology,
        optimizer: Optimizer,
        method: Method,
        plan: Plan,
        total_steps: int,
        seed: int,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        self.plan = plan
        self.method = method
        self.seed = seed
        self.history: list[Update] = []
        self._topology = topology
        self._optimizer = optimizer
        self._clock = Clock(method, total_steps)
        self._moves: dict[str, Moves] = {}
        self._gradients = Gradients(topology, optimizer)
        self._read: dict[str, Tensor] = {}
        self._expecting = False
        self._handles: list[Any] = []
        if state is None:
            topology.apply_()
            self._expect_()
        else:
            self.load_state_dict(state)
        self._hook_()  # last: what failed before has left no trace

    # ------------------------------------------------------------------ what it tells

    @property
    def steps(self) -> int:
        """Optimizer steps so far; a step that GradScaler skipped for infinite gradients is none."""
        return self._clock.steps

    @property
    def total_steps(self) -> int:
        """The length of the run that schedules refer to."""
        return self._clock.total_steps

    @property
    def masks(self) -> dict[str, Tensor]:
        """Bool tensors of the weights' shapes by parameter name, True = kept; a snapshot."""
        return self._topology.kept()

    @property
    def fired(self) -> dict[str, Tensor]:
        """Bool tensors like :attr:`masks`: weights active now or at any time before."""
        return {layer.name: layer.ever() for layer in self._topology.layers}

    def weights(self) -> list[nn.Parameter]:
        """Return the parameters made sparse, in the plan's order."""
        return [weight for _, weight in self._topology.pairs()]

    def present_weights(self) -> list[nn.Parameter]:
        """Return those of the weights that the model still has, should parts have been replaced."""
        present = dict(self._topology.model.named_parameters())
        return [present[layer.name] for layer in self.plan.layers if layer.name in present]

    @property
    def density(self) -> float:
        """The fraction of weights kept, over all weights made sparse (dense ones don't count)."""
        layers = self._topology.layers
        return sum(layer.n_kept() for layer in layers) / sum(
            math.prod(layer.planned.shape) for layer in layers
        )

    def topology_bytes(self) -> int:
        """Count the bytes that say where the active weights are: masks, or indices."""
        return sum(layer.topology_bytes() for layer in self._topology.layers)

    def metrics(self) -> dict[str, float]:
        """Return numbers for a logger, by name.

        ``density/total`` and ``density/<weight>``: the fraction of weights kept.
        ``topology/updates``: updates so far.
        ``topology/exchanged``: units grown at the last update, as a fraction of those then active.
        """
        metrics = {"density/total": self.density, "topology/updates": float(len(self.history))}
        for layer in self._topology.layers:
            metrics[f"density/{layer.name}"] = layer.n_kept() / math.prod(layer.planned.shape)
        if self.history and (last := self.history[-1].layers.values()):
            active = sum(change.active for change in last)
            metrics["topology/exchanged"] = sum(change.grown for change in last) / active
        return metrics

    def summary(self) -> str:
        """Return the method, the plan and where the run stands, as text."""
        kernels = {layer.kernels for layer in self._topology.layers if layer.kernels}
        computed = f"stored layers are computed by {', '.join(kernels)}\n" if kernels else ""
        return (
            f"{self.method}\n{self.plan}\n{computed}"
            f"step {self.steps} of {self.total_steps}, {len(self.history)} updates so far, "
            f"next at {self._clock.next or 'no step'}, density now {self.density:.4f}"
        )

    # ------------------------------------------------------------------ what it does

    def update_(self) -> Update | None:
        """Update the topology now, by the share the schedule gives at the present step.

        All layers move whose weights require gradients, whether or not they have any at present;
        where the method reads gradients or momentum, those that have some.

        Returns:
            What happened, or None when nothing was to be moved: a static method, or a schedule that
            has ended.

        Raises:
            FloatingPointError: a weight or gradient that is read is NaN or infinite; nothing was
                changed.
            RuntimeError: the method reads gradients or momentum, and there are none, or those of
                inactive weights are gone by :meth:`mask_gradients_`; or :meth:`remove` was called.
        """
        if not self._handles:
            raise RuntimeError(
                "update_() after remove(): the weights are no longer this sparsifier's to move; "
                "call sparsify() again"
            )
        moves = self._moves_by_hand()
        if not moves:
            return None
        self._read_gradients(moves)
        return self._update_(moves, self.steps)

    def would_drop(self, score: Score, fraction: float) -> dict[str, Tensor]:
        """Return the weights a drop score would choose in every layer now; changes nothing.

        Args:
            score: any drop score that follows no running average. Gradients and momentum are read
                from the weights and the optimizer as they are.
            fraction: the share of active units, from 0 to 1.

        Returns:
            Bool tensors of the weights' shapes by name, ⌊fraction · active⌋ units in each.

        Raises:
            ValueError: the fraction is out of range, or the score follows a running average or
                cannot drop.
            RuntimeError: the score reads gradients or momentum, and there are none.
        """
        if not 0 <= fraction <= 1:
            raise ValueError(f"fraction={fraction}: must lie in 0..1")
        if score.observes is not None:
            raise ValueError(f"score={score!r} follows a running average, which is not kept here")
        if not score.drops:
            raise ValueError(f"score={score!r}: active weights are all worth the same to it")
        gradients = self._gradients.dense() if "gradient" in score.needs else {}
        return self._topology.would_drop(
            score,
            fraction,
            self._optimizer,
            gradients,
            lambda name, role: seeded_generator(self.seed, name, self.steps, "would drop"),
        )

    def mask_gradients_(self) -> None:
        """Set the gradients of dropped and held weights to zero, in place.

        The optimizer never needs it. Call it before ``clip_grad_norm_``, whose norm otherwise
        counts the dense gradients. Where the next step makes an update, the dense gradients are
        kept aside for it; they are forgotten if that batch is thrown away.

        Raises:
            RuntimeError: the method grows by momentum.
            TypeError: a gradient has a sparse layout.
        """
        self.method.check_masking()
        self._gradients.mask_(keep_dense=self._clock.near or bool(self.method.observes))

    @torch.no_grad()
    def apply_to_(self, module: nn.Module) -> None:
        """Set the dropped weights of another module with the same parameter names to zero.

        An average of weights (EMA, SWA) fills up as the topology moves: apply the masks before use.

        Args:
            module: such as ``copy.deepcopy(model)`` or an ``AveragedModel`` of it.
        """
        inner = unwrap(module)
        for name, mask in self.masks.items():
            weight = inner.get_parameter(name)
            local(weight).mul_(local(like(mask.to(device_of(weight)), weight)))

    def remove(self) -> None:
        """Detach from the optimizer. Weights stay as they are and are free to move again."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        LIVE.discard(self)

    def state_dict(self) -> dict[str, Any]:
        """Return everything a resumed run needs: masks (one bit a weight), steps, seed, history.

        It holds tensors, numbers and strings only: ``torch.load(weights_only=True)`` reads it.
        """
        return {
            "version": VERSION,
            "method": self.method.name,
            **Progress(self.steps, self.total_steps, self.seed, self.history).state_dict(),
            "layers": self._topology.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a saved state; the run goes on bit for bit as if it had not stopped.

        Args:
            state: from :meth:`state_dict` of a sparsifier with the same method and layers.

        Raises:
            ValueError: the state is of another version or method, has other layers, or its masks do
                not fit. Nothing is then changed.
        """
        saved = read_progress(state, self.method.name)
        self._topology.load_state_dict(state["layers"])
        self.history, self.seed = saved.history, saved.seed
        self._clock.set_(saved.steps, settled=not self._topology.unsettled(self.method))
        self._expect_()
        if saved.total_steps != self.total_steps:
            logger.warning(
                "resumed with total_steps=%d, saved with %d: schedules differ from the saved run's",
                self.total_steps,
                saved.total_steps,
            )

    # ------------------------------------------------------------------ the hooks

    def _hook_(self) -> None:
        # Should the user compile optimizer.step, what the hooks do is not to be traced.
        untraced: Callable[..., Any] = torch.compiler.disable
        self._handles = [
            self._optimizer.register_step_pre_hook(untraced(self._before_step)),
            self._optimizer.register_step_post_hook(untraced(self._after_step)),
        ]
        LIVE.add(self)

    def _before_step(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        self._gradients.begin()
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        self._moves = {}
        counts = self._clock.begin_(optimizer, [*args[1:], *kwargs.values()])
        if not counts or not (self._clock.due or self._topology.prepares):
            return None
        if closure is None:
            self._prepare()
            return None
        # With a closure the gradients exist only once it has run, inside the step.
        return args[:1], {**kwargs, "closure": self._then_prepare(closure)}

    def _then_prepare(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> Any:
            self._gradients.restore()
            self._topology.separate_()
            loss = closure()
            self._prepare()
            return loss

        return run

    def _prepare(self) -> None:
        if self._clock.due:
            self._moves = self._moves_at(self._clock.next, self._taking_part())
            if self._moves:
                self._read_gradients(self._moves)
                if self.method.replaces_step:
                    self._gradients.hide()
        self._topology.before_step_(getattr(self._optimizer, "grad_scale", None))

    def _after_step(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self._gradients.restore()
        self._topology.apply_()
        if not self._clock.end_(optimizer):
            return
        self._observe_()
        self._gradients.forget()
        if self._clock.due:
            if self._moves and self._clock.next is not None:
                self._update_(self._moves, self._clock.next)
            self._clock.advance_()
        self._expect_()

    def _expect_(self) -> None:
        """Tell the layers what the next step will read, should they have to gather it."""
        near = self._clock.near
        if not (near or self._expecting):
            return
        moves = self._moves_at(self._clock.next, self._trainable()) if near else {}
        self._expecting = "gradient" in self.method.reads(moves.values())
        self._topology.expect_(dense_gradients=self._expecting)

    def _observe_(self) -> None:
        """Let scores that are running averages see this step."""
        if self.method.observes is None or skips(self._optimizer):
            return
        sharing = self._sharing()
        gradients = self._gradients.dense(sharing=sharing)
        if any(other.replaced for other in sharing):
            gradients = self._unscaled(gradients)
        self._topology.observe_(self.method, gradients)

    def _unscaled(self, gradients: dict[str, Tensor]) -> dict[str, Tensor]:
        """Undo the scale of a loss: a fused optimizer does so in its step, and there was none."""
        scale = getattr(self._optimizer, "grad_scale", None)
        if scale is None:
            return gradients
        return {name: gradient / scale for name, gradient in gradients.items()}

    # ------------------------------------------------------------------ an update

    def _moves_at(self, step: int | None, among: Collection[str]) -> dict[str, Moves]:
        """Return what an update at this step moves, by layer; empty when it moves nothing."""
        if step is None:
            return {}
        progress = self.method.progress(step, self.total_steps)
        return self._topology.moves(self.method, progress, among)

    def _taking_part(self) -> Collection[str]:
        """Return the layers that take part in the present step: the others stay as they are.

        If the update reads gradients and there are none at all, it is to fail, and not to pass
        unseen: all are returned.
        """
        names = self._gradients.current(self._sharing()).keys()
        return names or (self._trainable() if self._reads(self._clock.next, "gradient") else ())

    def _moves_by_hand(self) -> dict[str, Moves]:
        """Return what an update moves now, of the layers that have what it reads, if any has."""
        names, step = self._trainable(), self.steps
        if self._reads(step, "gradient"):
            names = names & self._gradients.current(self._sharing()).keys() or names
        if self._reads(step, "momentum"):
            pairs = self._topology.pairs()
            remembered = {la.name for la, w in pairs if remembers(self._optimizer, w)}
            names = names & remembered or names
        return self._moves_at(step, names)

    def _reads(self, step: int | None, signal: str) -> bool:
        """Tell whether an update of all layers at this step reads a signal."""
        moves = self._moves_at(step, self._trainable())
        return signal in self.method.reads(moves.values())

    def _trainable(self) -> set[str]:
        return {layer.name for layer, weight in self._topology.pairs() if weight.requires_grad}

    def _sharing(self) -> list[Gradients]:
        """Return the gradients of all sparsifiers of the same optimizer, this one among them."""
        return [other._gradients for other in LIVE if other._optimizer is self._optimizer]

    def _read_gradients(self, moves: dict[str, Moves]) -> None:
        """Take the dense gradients the update will read, and check them."""
        self._read = {}
        if "gradient" in self.method.reads(moves.values()):
            self._read = self._gradients.dense(moves, self._sharing())

    def _update_(self, moves: dict[str, Moves], step: int) -> Update | None:
        method = self.method
        gradients, self._read = self._read, {}
        moves = self._topology.followed(method, moves)
        if not moves:
            return None
        if method.replaces_step:
            gradients = self._unscaled(gradients)
        number = len(self.history)
        changes = self._topology.update_(
            method,
            moves,
            method.progress(step, self.total_steps),
            self._optimizer,
            gradients,
            lambda name, role: seeded_generator(self.seed, name, number, role),
        )
        update = Update(self.steps, changes, read_gradients=method.reads_inactive(moves.values()))
        self.history.append(update)
        return update

    def __getstate__(self) -> dict[str, Any]:
        """Leave the hooks behind: they belong to one optimizer object."""
        return self.__dict__ | {"_handles": bool(self._handles)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if state["_handles"]:
            self._hook_()
        else:
            self._handles = []
