"""The Sparsifier: moves the topology from hooks on the optimizer's own steps.

An ordinary step costs one foreach multiply of the weights by their masks. At an update step

* before it, dense gradients are checked, and hidden if the update takes the step's place;
* after it, masks are applied and the topology moves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from regrow.engine import capture, told
from regrow.engine.clock import Clock
from regrow.engine.drivers import check_optimizer, check_together, driver
from regrow.engine.gradients import LIVE, Gradients
from regrow.engine.history import VERSION, Progress, Update, read_progress
from regrow.engine.method import Method
from regrow.engine.others import Guard, watch_others
from regrow.engine.planned import Plan
from regrow.engine.presence import holder
from regrow.engine.scores import Score
from regrow.engine.selection import seeded_generator
from regrow.engine.slim import Slimmed, check_slimmable, slim_
from regrow.engine.topology import Topology
from regrow.engine.updater import Updater
from regrow.engine.wrappers import under_names, unwrap

__all__ = ["Sparsifier", "Update"]


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
        before: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.plan = plan
        self.method = method
        self.seed = seed
        self.history: list[Update] = []
        self._topology = topology
        self._clock = Clock(method, total_steps)
        self._drive_by_(optimizer)
        self._handles: list[Any] = []
        self._loaded = self._captured = False
        # Should a saved topology come after trained weights, what the first masks take from them
        # is wanted back; the first step forgets it, before the optimizer's own state is made.
        self._before: Mapping[str, Tensor] = before or {}
        # A resumed run must not be masked by a topology of its own first: weights loaded before
        # would be lost under it.
        topology.settle_(optimizer)
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

    @property
    def density(self) -> float:
        """The fraction of weights kept, over all weights made sparse (dense ones don't count)."""
        return told.density_of(self._topology.layers)

    def topology_bytes(self) -> int:
        """Count the bytes that say where the active weights are: masks, or indices."""
        return sum(layer.topology_bytes() for layer in self._topology.layers)

    def metrics(self) -> dict[str, float]:
        """Return numbers for a logger, by name.

        ``density/total`` and ``density/<weight>``: the fraction of weights kept.
        ``topology/updates``: updates so far.
        ``topology/exchanged``: units grown at the last update, as a fraction of those then active.

        Weights that others wrote outside the masks are set to zero first, with a warning.
        """
        self._mend_()
        return told.metrics_of(self._topology.layers, self.history)

    def summary(self) -> str:
        """Return the method, the plan and where the run stands, as text; mends as metrics do."""
        self._mend_()
        end = told.stands(self._topology.layers, self._clock, self.history)
        return f"{self.method}\n{self.plan}\n{end}"

    def __repr__(self) -> str:
        """Tell in a line what it is and where it stands; :meth:`summary` tells all."""
        where = f"density {self.density:.4g}, step {self.steps} of {self.total_steps}"
        return f"Sparsifier({type(self.method).__name__}: {len(self.plan.layers)} layers, {where})"

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
        told.check_driving(self._handles, "update_()")
        self._topology.settle_(self._optimizer)
        self._mend_()
        self._before = {}
        progress = self._clock.progress(self.steps)
        self._updater.plan_by_hand_(progress)
        return self._update_(progress)

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
        told.check_would_drop(score, fraction)
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
        # Clipping comes before the step, and so before the hooks: only the user knows when to mask.
        self.method.check_masking()
        self._gradients.mask_(keep_dense=self._clock.near or bool(self.method.observes))

    @torch.no_grad()
    def apply_to_(self, module: nn.Module) -> None:
        """Set the dropped weights of another module with the same parameter names to zero.

        An average of weights (EMA, SWA) fills up as the topology moves: apply the masks before use.
        An average of stored layers (``execution="csr"`` or ``"block"``) is moved to where the
        weights are: call it after every update, before more is averaged.

        Args:
            module: such as ``copy.deepcopy(model)`` or an ``AveragedModel`` of it.
        """
        # By name: an averaged model has copies of the parameters, sharded or elsewhere.
        for layer in self._topology.layers:
            layer.apply_to_(*holder(unwrap(module), layer.name))

    def rebind_(self, optimizer: Optimizer) -> None:
        """Let another optimizer drive the topology from now on; masks, steps and history stay.

        For networks that get new weights, in place; those outside the masks are set to zero.

        Args:
            optimizer: holds every sparse weight.

        Raises:
            RuntimeError: :meth:`remove` was called.
            ValueError: the optimizer cannot drive this method; the old one then still does.
        """
        told.check_driving(self._handles, "rebind_()")
        optimizer = driver(optimizer)
        check_optimizer(optimizer, {layer.name: w for layer, w in self._topology.pairs()})
        check_together(optimizer, self.method)
        self.remove()
        self._drive_by_(optimizer)
        self._topology.settle_(optimizer)
        self._topology.apply_()
        self._expect_()
        self._hook_()

    @contextmanager
    def captured(self) -> Iterator[None]:
        """Let steps inside be captured in a CUDA graph: they are masked, and not counted.

        After every replay call :meth:`advance_`: masks are moved where the graph reads them.

        Raises:
            RuntimeError: the method follows every step, or moves how many weights are stored.
        """
        capture.check_capturable(self.method, self._topology)
        self._captured = True
        try:
            yield
        finally:
            self._captured = False

    def advance_(self, steps: int = 1) -> Update | None:
        """Count steps that were replayed, and make the update that is due after the last of them.

        An update reads the gradients that the last replay left. It never takes a step's place.
        Stored layers that grow by gradient ask for its step to be launched, outside the graph.

        Args:
            steps: at least 1, and not beyond the next update.

        Returns:
            What happened; None if no update was due, or nothing was to be moved.

        Raises:
            ValueError: an update would be passed over; nothing is then counted.
            FloatingPointError, RuntimeError: as for :meth:`update_`; nothing is then counted.
        """
        following = self._clock.next
        progress, due = self._clock.progress(following), self.steps + steps == following
        launched = partial(capture.must_launch, self.method, self._topology, progress)
        capture.check_replayed(steps, self.steps, following, launched=launched)
        if due:  # what cannot be planned is not counted
            self._topology.settle_(self._optimizer)
            self._updater.plan_by_hand_(progress)
        self._before = {}
        self._clock.count_(steps)
        made = self._update_(progress, self._pass_) if due else None
        self._expect_()
        return made

    def slim_(self, example_inputs: Any) -> Slimmed:
        """Cut channels that do nothing out of the model, in place, and end the topology.

        See :func:`regrow.engine.slim.slim_` for ``example_inputs`` and errors.
        """
        check_slimmable(self._topology, LIVE)
        self._mend_()
        slimmed = slim_(self._topology.model, self._optimizer, example_inputs)
        self.remove()
        return slimmed

    def remove(self) -> None:
        """Detach from the optimizer. Weights stay as they are and are free to move again."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        LIVE.discard(self._gradients)
        self._topology.hold_(held=False)

    def state_dict(self) -> dict[str, Any]:
        """Return everything a resumed run needs: masks (one bit a weight), steps, seed, history.

        It holds tensors, numbers and strings only: ``torch.load(weights_only=True)`` reads it.
        Weights that others wrote outside the masks are set to zero first, with a warning: what is
        saved is what is reported.
        """
        self._mend_()
        return {
            "version": VERSION,
            "method": self.method.name,
            **Progress(self.steps, self.total_steps, self.seed, self.history).state_dict(),
            "execution": {layer.name: layer.execution for layer in self.plan.layers},
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
        # By name alone: drop fractions or periods may be changed on purpose in a resumed run.
        saved = read_progress(state, self.method.name)

        def resume() -> None:
            self._before, self._loaded = {}, True
            self._guard.mask_copies_()
            self.history, self.seed = list(saved.history), saved.seed
            self._clock.set_(saved.steps, settled=not self._topology.unsettled(self.method))
            self._expect_()

        # All reading and checking comes before the first change: a state that does not fit leaves
        # this run as it was, and one that does is taken over whole.
        layers = under_names(state["layers"], [layer.name for layer in self._topology.layers])
        self._topology.load_state_dict(layers, self._before, resume)
        told.warn_of_length(self.total_steps, saved.total_steps)

    # ------------------------------------------------------------------ the hooks

    def _drive_by_(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._gradients = Gradients(self._topology, optimizer)
        self._updater = Updater(self.method, self._topology, optimizer, self._gradients)
        self._guard = Guard(self._topology, optimizer)
        # Whether layers were last told to gather dense gradients; told only when that changes.
        self._expecting = False
        # The optimizer's state is looked at after two steps: a subclass may add to it after the
        # step of its parent.
        self._looks = 2

    def _hook_(self) -> None:
        # Should the user compile optimizer.step, what the hooks do is not to be traced.
        untraced: Callable[..., Any] = torch.compiler.disable
        self._handles = [
            self._optimizer.register_step_pre_hook(untraced(self._before_step)),
            self._optimizer.register_step_post_hook(untraced(self._after_step)),
            watch_others(self._guard, self._optimizer),
        ]
        LIVE.add(self._gradients)
        self._topology.hold_(held=True)

    def _before_step(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if self._captured:
            return None
        capture.refuse_capture(self.method.name, self._clock.next)
        # A step that raised (a closure that failed, say) never came to the post-hook: what it had
        # hidden is given back first.
        self._gradients.begin()
        self._guard.stepping = True
        if self._topology.seen.touched:
            self._mend_()
        # The hook is called with the arguments of step(): args[0] is the optimizer, args[1] the
        # closure.
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        self._updater.clear_()
        self._topology.settle_(self._optimizer)
        counts = self._clock.begin_(optimizer, [*args[1:], *kwargs.values()])
        if counts and self._loaded:
            self._topology.check_loaded()
        if counts:
            self._before, self._loaded = {}, False
        if not counts or not (self._clock.due or self._topology.prepares):
            return None
        if closure is None:
            self._prepare()
            return None
        # With a closure the gradients exist only once it has run, inside the step.
        return args[:1], {**kwargs, "closure": self._then_prepare(closure)}

    def _then_prepare(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> Any:
            # The closure calls zero_grad() and backward(), which must find the real gradients, and
            # the weights as a forward pass sees them.
            self._gradients.restore()
            self._topology.separate_()
            loss = closure()
            self._prepare()
            return loss

        return run

    def _prepare(self) -> None:
        if self._clock.due:
            self._updater.plan_in_step_(self._clock.progress(self._clock.next))
        self._topology.before_step_(getattr(self._optimizer, "grad_scale", None))

    def _after_step(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        # Loggers and schedulers expect gradients after a step, whether or not it was replaced.
        if self._captured:
            self._topology.apply_()
            return
        self._gradients.restore()
        # Momentum and weight decay have just moved weights outside the mask; so has the step of a
        # parent class, which is not counted.
        self._topology.apply_()
        self._guard.mask_copies_()
        self._guard.stepping = False
        if not self._clock.end_(optimizer):
            return
        # Running averages read what was kept aside, which forget() drops.
        self._updater.observe_()
        self._gradients.forget()
        self._check_slots()
        if self._clock.due:
            self._update_(self._clock.progress(self._clock.next), self._pass_)
        self._expect_()

    def _pass_(self) -> None:
        self._clock.advance_(lambda: self._topology.unsettled(self.method))

    def _check_slots(self) -> None:
        """Raise ValueError after the first steps, and not at the first update, long after them."""
        if self._looks and self._clock.next is not None:
            self._topology.check_slots(self._optimizer, self.method.on_grow)
            self._looks -= 1

    def _mend_(self) -> None:
        if self._handles:  # after remove() weights are free to move
            self._guard.mend_()

    def _expect_(self) -> None:
        """Tell the layers what the next step will read, should they have to gather it."""
        clock = self._clock
        if not (clock.near or self._expecting):
            return
        progress = clock.progress(clock.next)
        self._expecting = clock.near and self._updater.reads(progress, "gradient")
        self._topology.expect_(dense_gradients=self._expecting)

    def _update_(self, progress: float, then: Callable[[], object] = lambda: None) -> Update | None:
        """Make the update that was planned, and record it: the whole of it, or nothing."""
        # Random choices depend on seed, layer and number of the update: a resumed run and every
        # rank draw what the uninterrupted run would have drawn, and no generator state is saved.
        number = len(self.history)

        def record(update: Update | None) -> None:
            self.history[number:] = [] if update is None else [update]
            then()

        self._updater.make_(
            self.steps,
            progress,
            lambda name, role: seeded_generator(self.seed, name, number, role),
            record,
        )
        self._guard.mask_copies_()
        return self.history[number] if len(self.history) > number else None

    def __getstate__(self) -> dict[str, Any]:
        """Leave the hooks behind: they belong to one optimizer object."""
        # A deep copy of model, optimizer and sparsifier together hooks the copied optimizer; hooks
        # that were copied would drive the original.
        return self.__dict__ | {"_handles": bool(self._handles), "_before": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if state["_handles"]:
            self._hook_()
        else:
            self._handles = []
