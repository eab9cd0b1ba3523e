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

from regrow.engine.dynamic import Dynamic, Method
from regrow.engine.gradients import Gradients
from regrow.engine.history import VERSION, Progress, Update, read_progress
from regrow.engine.idle import fills_state
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
        total_steps: the length of the run that schedules refer to.
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
        self.total_steps = total_steps
        self.seed = seed
        self.history: list[Update] = []
        self._topology = topology
        self._optimizer = optimizer
        self._calls = 0
        self._skipped: Tensor | int = 0
        self._next = method.next_update(0, total_steps)
        self._due = False
        self._moves: dict[str, Moves] = {}
        self._gradients = Gradients(topology, optimizer)
        self._read: dict[str, Tensor] = {}
        self._armed = False
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
        self._calls -= int(self._skipped)
        self._skipped = 0
        return self._calls

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
            f"next at {self._next or 'no step'}, density now {self.density:.4f}"
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
        if isinstance(self.method, Dynamic) and "momentum" in self.method.grow.needs:
            raise RuntimeError(
                f"mask_gradients_() would starve grow={self.method.grow!r}, which lives on the "
                "gradients of inactive weights: clip without it"
            )
        due = self._next is not None and self._calls + 1 >= self._next
        self._gradients.mask_(keep_dense=due or self._observes_gradients)

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
        self._calls, self._skipped = saved.steps, 0
        self._next = self.method.next_update(self._calls, self.total_steps)
        if self._next is None and self._topology.unsettled(self.method):
            self._next = self._calls + 1  # the window ended before the density had
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
        self._armed = not fills_state(optimizer, [*args[1:], *kwargs.values()])
        self._due, self._moves = self._armed and self._is_due(), {}
        if not self._armed or not (self._due or self._topology.prepares):
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
        if self._due:
            self._moves = self._moves_at(self._next, self._taking_part())
            if self._moves:
                self._read_gradients(self._moves)
                if isinstance(self.method, Dynamic) and self.method.replaces_step:
                    self._gradients.hide()
        self._topology.before_step_(getattr(self._optimizer, "grad_scale", None))

    def _after_step(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self._gradients.restore()
        self._topology.apply_()
        if not self._armed:  # the step of a parent class was counted already, or it was none
            return
        self._armed = False
        self._calls += 1
        if (found_inf := _found_inf(optimizer)) is not None:
            self._skipped = self._skipped + found_inf
        self._observe(found_inf)
        self._gradients.forget()
        if self._due:
            if self._moves and self._next is not None:
                self._update_(self._moves, self._next)
            self._due = False
            self._next = self.method.next_update(self.steps, self.total_steps)
        self._expect_()

    def _expect_(self) -> None:
        """Tell the layers what the next step will read, should they have to gather it."""
        method, due = self.method, self._next is not None and self._calls + 1 >= self._next
        if not (due or self._expecting) or not isinstance(method, Dynamic):
            return
        moves = self._moves_at(self._next, self._trainable()) if due else {}
        self._expecting = "gradient" in method.reads(moves.values())
        self._topology.expect_(dense_gradients=self._expecting)

    @property
    def _observes_gradients(self) -> bool:
        return isinstance(self.method, Dynamic) and bool(self.method.observes)

    def _observe(self, found_inf: Tensor | None) -> None:
        """Let scores that are running averages see this step."""
        method = self.method
        if not isinstance(method, Dynamic) or method.observes is None:
            return
        if found_inf is not None and bool(found_inf):
            return
        sharing = self._sharing()
        gradients = self._gradients.dense(sharing=sharing)
        if any(other.replaced for other in sharing):
            gradients = self._unscaled(gradients)
        self._topology.observe_(method, gradients)

    def _unscaled(self, gradients: dict[str, Tensor]) -> dict[str, Tensor]:
        """Undo the scale of a loss: a fused optimizer does so in its step, and there was none."""
        scale = getattr(self._optimizer, "grad_scale", None)
        if scale is None:
            return gradients
        return {name: gradient / scale for name, gradient in gradients.items()}

    def _is_due(self) -> bool:
        """Whether the step about to be made is an update step.

        Steps that a fused optimizer skips for infinite gradients are counted on the device; the
        host asks for their number only when an update would otherwise be due.
        """
        if self._next is None or self._calls + 1 < self._next:
            return False
        found_inf = _found_inf(self._optimizer)
        return self.steps + 1 >= self._next and not (found_inf is not None and bool(found_inf))

    # ------------------------------------------------------------------ an update

    def _moves_at(self, step: int | None, among: Collection[str]) -> dict[str, Moves]:
        """Return what an update at this step moves, by layer; empty when it moves nothing."""
        if step is None or not isinstance(self.method, Dynamic):
            return {}
        progress = self.method.progress(step, self.total_steps)
        return self._topology.moves(self.method, progress, among)

    def _taking_part(self) -> Collection[str]:
        """Return the layers that take part in the present step: the others stay as they are.

        If the update reads gradients and there are none at all, it is to fail, and not to pass
        unseen: all are returned.
        """
        names = self._gradients.current(self._sharing()).keys()
        return names or (self._trainable() if self._reads(self._next, "gradient") else ())

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
        return isinstance(self.method, Dynamic) and signal in self.method.reads(moves.values())

    def _trainable(self) -> set[str]:
        return {layer.name for layer, weight in self._topology.pairs() if weight.requires_grad}

    def _sharing(self) -> list[Gradients]:
        """Return the gradients of all sparsifiers of the same optimizer, this one among them."""
        return [other._gradients for other in LIVE if other._optimizer is self._optimizer]

    def _read_gradients(self, moves: dict[str, Moves]) -> None:
        """Take the dense gradients the update will read, and check them."""
        assert isinstance(self.method, Dynamic)
        self._read = {}
        if "gradient" in self.method.reads(moves.values()):
            self._read = self._gradients.dense(moves, self._sharing())

    def _update_(self, moves: dict[str, Moves], step: int) -> Update | None:
        method = self.method
        assert isinstance(method, Dynamic)
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


def _found_inf(optimizer: Optimizer) -> Tensor | None:
    """Return 1 on a step that a fused optimizer skips, which GradScaler leaves as an attribute."""
    found_inf = getattr(optimizer, "found_inf", None)
    return found_inf if isinstance(found_inf, Tensor) else None
