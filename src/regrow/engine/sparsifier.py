"""The Sparsifier: moves the topology from hooks on the optimizer's own steps.

An ordinary step costs one foreach multiply of the weights by their masks. At an update step

* before it, dense gradients are checked, and hidden if the update takes the step's place;
* after it, masks are applied and the topology moves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from regrow.engine import capture, told
from regrow.engine.clock import Clock
from regrow.engine.drivers import check_optimizer, check_together, driver, hook
from regrow.engine.gradients import LIVE, Gradients
from regrow.engine.history import VERSION, Progress, Update, read_progress
from regrow.engine.method import Method
from regrow.engine.others import Guard, watch_others
from regrow.engine.planned import Plan
from regrow.engine.scores import Score
from regrow.engine.slim import Slimmed, check_slimmable, slim_
from regrow.engine.topology import Topology
from regrow.engine.updater import Updater
from regrow.engine.wrappers import under_names

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
        self._handles: list[Any] = []
        self._loaded = self._captured = False
        # Should a saved topology come after trained weights, what the first masks take from them
        # is wanted back; the first step forgets it, before the optimizer's own state is made.
        self._before: Mapping[str, Tensor] = before or {}
        self._drive_by_(optimizer, state)

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
        now = told.stands(self._topology.layers, self._clock, self.history)
        return f"{self.method}\n{self.plan}\n{now}"

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
        return self._updater.would_drop(score, fraction, self.seed, self.steps)

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

    def apply_to_(self, module: nn.Module) -> None:
        """Set the dropped weights of another module with the same parameter names to zero.

        An average of weights (EMA, SWA) fills up as the topology moves: apply the masks before use.
        An average of stored layers (``execution="csr"`` or ``"block"``) is moved to where the
        weights are: call it after every update, before more is averaged.

        Args:
            module: such as ``copy.deepcopy(model)`` or an ``AveragedModel`` of it.
        """
        self._topology.apply_to_(module)

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
        progress = self._clock.progress(self._clock.next)
        due = capture.check_advance(steps, self._clock, self.method, self._topology)
        if due:  # what cannot be planned is not counted
            self._topology.settle_(self._optimizer)
            self._updater.plan_by_hand_(progress)
        self._before = {}
        self._clock.count_(steps)
        made = self._update_(progress, self._pass_) if due else None
        self._updater.expect_(self._clock)
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
            self._updater.expect_(self._clock)

        # All reading and checking comes before the first change: a state that does not fit leaves
        # this run as it was, and one that does is taken over whole.
        layers = under_names(state["layers"], [layer.name for layer in self._topology.layers])
        self._topology.load_state_dict(layers, self._before, resume)
        told.warn_of_length(self.total_steps, saved.total_steps)

    # ------------------------------------------------------------------ the hooks

    def _drive_by_(self, optimizer: Optimizer, state: Mapping[str, Any] | None = None) -> None:
        self._optimizer = optimizer
        self._gradients = Gradients(self._topology, optimizer)
        self._updater = Updater(self.method, self._topology, optimizer, self._gradients)
        self._guard = Guard(self._topology, optimizer)
        self._topology.settle_(optimizer)
        # A resumed run must not be masked by a topology of its own first: weights loaded before
        # would be lost under it.
        if state is None:
            self._topology.apply_()
            self._updater.expect_(self._clock)
        else:
            self.load_state_dict(state)
        self._hook_()  # last: what failed before has left no trace

    def _hook_(self) -> None:
        self._handles = [
            *hook(self._optimizer, self._before_step, self._after_step),
            watch_others(self._guard, self._optimizer),
        ]
        LIVE.add(self._gradients)
        self._topology.hold_(held=True)

    def _before_step(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if self._captured:
            return None
        capture.refuse_capture(self.method.name, self._clock.next)
        # A step that raised (a closure that failed, say) never came to the post-hook: what it had
        # hidden is given back first.
        self._gradients.begin()
        self._guard.stepping = True
        if self._topology.seen.touched:
            self._mend_()
        self._updater.clear_()
        self._topology.settle_(self._optimizer)
        counts = self._clock.begin_(optimizer, [*args[1:], *kwargs.values()])
        if counts and self._loaded:
            self._topology.check_loaded()
        if counts:
            self._before, self._loaded = {}, False
        if counts and (self._clock.due or self._topology.prepares):
            return self._updater.prepare_(self._clock, args, kwargs)
        return None

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
        if self._clock.next is not None:
            self._updater.check_slots_()
        if self._clock.due:
            self._update_(self._clock.progress(self._clock.next), self._pass_)
        self._updater.expect_(self._clock)

    def _pass_(self) -> None:
        self._clock.advance_(lambda: self._topology.unsettled(self.method))

    def _mend_(self) -> None:
        if self._handles:  # after remove() weights are free to move
            self._guard.mend_()

    def _update_(self, progress: float, then: Callable[[], object] = lambda: None) -> Update | None:
        made = self._updater.make_(self.steps, progress, self.seed, self.history, then)
        self._guard.mask_copies_()
        return made

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
