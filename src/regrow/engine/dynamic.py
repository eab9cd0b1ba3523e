"""The general dynamic method: a frozen dataclass of all choices about drop, grow and when."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from regrow.engine.allocation import check_density
from regrow.engine.checks import check_choice, check_type
from regrow.engine.method import Method
from regrow.engine.moments import OnGrow, check_policy
from regrow.engine.schedules import Cosine, Cubic, Schedule, in_steps
from regrow.engine.scores import Gradient, Magnitude, Role, Score
from regrow.engine.sparse_layer import SparseLayer
from regrow.engine.update import Moves, UpdateView, plan_moves, propose

__all__ = ["Dynamic"]

Shape = tuple[int, ...]
Scope = Literal["layer", "global"]

_PROPOSED = 10  # updates in a run that is too short for the period


@dataclass(frozen=True, kw_only=True)
class Dynamic(Method):
    """Drop the units worth least and grow others, again and again.

    At an update a layer with a active of n units and a target of c drops max(a - c, 0) + e and
    grows max(c - a, 0) + e, where e = ⌊drop_fraction · min(a, c)⌋. Grown weights start at zero.

    A layer stays as it is if its weight took no part in the step (it has no gradient: an unused
    head) or is frozen. Nor does it count: where all layers decide together, the others decide as if
    it were not there. If the density moves, its own is where the schedule wants it at the next
    update it takes part in; if it takes part in none, it keeps the density it has.

    Args:
        density: the fraction of weights kept at the end, or densities by glob.
        allocation: how one density is shared among the layers.
        pattern: what a unit is.
        start: what the first topology is chosen by; None draws it at random.
        drop: the score whose lowest units are dropped.
        grow: the score whose highest units are grown.
        drop_fraction: the share of active units exchanged at an update, as a function of progress
            through the updates; a float is constant.
        update_every: optimizer steps between updates.
        start_at: no update before this, in steps (int) or as a fraction of the run (float).
        stop_at: no exchange at or after this, in steps or as a fraction of the run.
        initial_density: the density at the start; None is ``density``. In between, a layer's
            density is final + (initial - final) · ``density_path``; at ``stop_at`` it is final.
        density_path: the weight of the initial density, from 1 to 0 as a function of progress.
        threshold: whether exchanged units are the lowest of their layer, or of all layers together;
            each layer then grows as many as it lost.
        shrink: whether a falling density takes the lowest of each layer down to the layer's own
            target, or the lowest of all layers together.
        redistribute: None: each layer grows as many as it dropped. "momentum" or "gradient": what
            all layers dropped is shared in proportion to the mean magnitude of that signal over a
            layer's active weights.
        regrow_dropped: whether a unit just dropped may be grown in the same update; it then keeps
            its weight and optimizer state.
        replaces_step: whether an update takes the place of that optimizer step, which then changes
            no parameter.
        on_grow: the optimizer state of grown weights: "zero", "keep" or "mean"
            (:func:`regrow.engine.moments.first_moments`).

    Raises:
        TypeError: an argument is of another type.
        ValueError: an argument lies outside its range, or two do not go together; the message says
            which and what is allowed.

    Example:
        >>> method = Dynamic(density=0.1, update_every=10, stop_at=0.5)
        >>> method.next_update(0, 100), method.next_update(45, 100)
        (10, None)
    """

    drop: Score = Magnitude()
    grow: Score = Gradient()
    drop_fraction: Schedule | float = Cosine(0.3)
    update_every: int = 100
    start_at: int | float = 0
    stop_at: int | float = 0.75
    initial_density: float | None = None
    density_path: Schedule = Cubic(1.0)
    threshold: Scope = "layer"
    shrink: Scope = "layer"
    redistribute: Literal["momentum", "gradient"] | None = None
    regrow_dropped: bool = True
    replaces_step: bool = False
    on_grow: OnGrow = "zero"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_type(self.drop, Score, "drop", "Magnitude()")
        check_type(self.grow, Score, "grow", "Gradient()")
        check_type(self.update_every, int, "update_every", "100")
        check_type(self.regrow_dropped, bool, "regrow_dropped", "False")
        check_type(self.replaces_step, bool, "replaces_step", "True")
        if self.update_every < 1:
            raise ValueError(f"update_every={self.update_every}: must be at least 1")
        if not callable(self.drop_fraction):
            check_type(self.drop_fraction, (int, float), "drop_fraction", "Cosine(0.3)")
            if not 0 <= self.drop_fraction <= 1:
                raise ValueError(f"drop_fraction={self.drop_fraction}: must lie in 0..1")
        if not callable(self.density_path):
            raise TypeError(f"density_path={self.density_path!r}: a schedule, such as Cubic(1.0)")
        if self.initial_density is not None:
            initial = check_density(self.initial_density, "initial_density")
            object.__setattr__(self, "initial_density", initial)
        check_choice(self.threshold, ("layer", "global"), "threshold")
        check_choice(self.shrink, ("layer", "global"), "shrink")
        check_choice(self.redistribute, (None, "momentum", "gradient"), "redistribute")
        check_policy(self.on_grow)
        self._check_combination()

    def _check_combination(self) -> None:
        for score in (self.drop, self.grow):
            score.check_pattern(self.pattern)
        moves_between_layers = (
            self.redistribute is not None or self.threshold == "global" or self.shrink == "global"
        )
        density_moves = self.initial_density is not None
        # Combinations that would run, but not do what their words say, are refused together here: a
        # message can then name both arguments.
        refused = {
            f"drop={self.drop!r}: active weights are all worth the same to this score; use "
            "Magnitude() or Random()": not self.drop.drops,
            f"grow={self.grow!r}: inactive weights are all zero and so are all worth the same to "
            "this score; use Gradient() or Random()": not (self.grow.grows or self.reserves),
            f"redistribute={self.redistribute!r} together with initial_density: units would be "
            "shared by two rules; use one": self.redistribute is not None and density_moves,
            f"drop={self.drop!r} does not drop an exact number, and so cannot be combined with a "
            "moving density, redistribute, a global threshold or regrow_dropped=False": (
                not self.drop.exact
                and (moves_between_layers or density_moves or not self.regrow_dropped)
            ),
            f"pattern={self.pattern} keeps equally many units in every group, which rules out a "
            "moving density, redistribute, global thresholds and regrow_dropped=False": (
                self.pattern.group((1, 4)) is not None
                and (moves_between_layers or density_moves or not self.regrow_dropped)
            ),
        }
        for reason, is_refused in refused.items():
            if is_refused:
                raise ValueError(reason)
        if self.redistribute is not None:
            self._refuse_by_glob(f"redistribute={self.redistribute!r}")
        if self.shrink == "global" and density_moves:
            self._refuse_by_glob("shrink='global'")

    # ------------------------------------------------------------------ what it reads

    def reads(self, moves: Iterable[Moves]) -> frozenset[str]:
        """Tell which of "gradient" and "momentum" an update that moves these units reads.

        Example:
            >>> Dynamic(density=0.1).reads([Moves(exchange=3)])
            frozenset({'gradient'})
            >>> Dynamic(density=0.1).reads([Moves(shrink=3)])
            frozenset()
        """
        read: frozenset[str] = frozenset()
        for move in moves:
            if move.shrink or move.exchange:
                read |= self.drop.needs
            if move.exchange or move.expand:
                read |= self.grow.needs | ({self.redistribute} if self.redistribute else set())
        return read & {"gradient", "momentum"}

    def reads_inactive(self, moves: Iterable[Moves]) -> bool:
        """Tell whether such an update reads gradients of inactive weights."""
        return "gradient" in self.grow.needs and any(m.exchange or m.expand for m in moves)

    def gradient_share(self, density: float) -> float:
        """Return the share of a layer's weights whose gradients every step needs."""
        always = "momentum" in self.grow.needs or "gradient" in (self.grow.observes or ())
        return 1.0 if always else density

    @property
    def observes(self) -> frozenset[str] | None:
        """Which signals are followed at every step; None if nothing is."""
        followed = [s.observes for s in (self.drop, self.grow) if s.observes is not None]
        return frozenset().union(*followed) if followed else None

    @property
    def signals(self) -> frozenset[str]:
        """Which of "gradient" and "momentum" an exchange reads, or any step follows."""
        followed = self.observes or frozenset()
        if self.drop_fraction == 0:
            return self.drop.needs | followed
        return self.reads([Moves(exchange=1)]) | followed

    @property
    def followed(self) -> Mapping[Role, Score]:
        """The scores that choose by a running average, by "drop" and "grow"."""
        scores: dict[Role, Score] = {"drop": self.drop, "grow": self.grow}
        return {role: score for role, score in scores.items() if score.observes is not None}

    def check_masking(self) -> None:
        """Raise RuntimeError if growth lives on momentum, which zeroed gradients would starve."""
        if "momentum" in self.grow.needs:
            raise RuntimeError(
                f"mask_gradients_() would starve grow={self.grow!r}, which lives on the "
                "gradients of inactive weights: clip without it"
            )

    # ------------------------------------------------------------------ when, how dense, how many

    def initial_densities(self, shapes: Mapping[str, Shape]) -> dict[str, float]:
        """Return each layer's density at the start of training."""
        if self.initial_density is None:
            return self.densities(shapes)
        return self.allocation(shapes, self.initial_density)

    def window(self, total_steps: int) -> tuple[int, int]:
        """Return the steps at which updates may start and must have stopped."""
        start = in_steps(self.start_at, total_steps, "start_at")
        stop = in_steps(self.stop_at, total_steps, "stop_at")
        if start > stop:
            raise ValueError(
                f"start_at={self.start_at!r} is step {start}, after stop_at={self.stop_at!r}, "
                f"step {stop}, of total_steps={total_steps}: start before stopping"
            )
        return start, stop

    def next_update(self, step: int, total_steps: int) -> int | None:
        """Return the first update after this step, or None when there is none left.

        Updates fall on multiples of ``update_every`` inside the window; a density that moves
        settles exactly at the window's end.
        """
        start, stop = self.window(total_steps)
        following = math.ceil(max(step + 1, start) / self.update_every) * self.update_every
        if self.initial_density is not None and step < stop:
            return min(following, stop)
        return following if following < stop else None

    def progress(self, step: int, total_steps: int) -> float:
        """Return how far through the window a step lies, from 0 to 1."""
        start, stop = self.window(total_steps)
        return min(max((step - start) / (stop - start), 0.0), 1.0) if stop > start else 1.0

    def density_at(self, progress: float, initial: float, final: float) -> float:
        """Return a layer's density at some progress through the window."""
        remaining = self.density_path(progress) if progress < 1 else 0.0
        return final + (initial - final) * remaining

    def fraction_at(self, progress: float) -> float:
        """Return the share of active units exchanged at some progress; at 1 nothing is any more."""
        # A schedule need not come to zero by itself; the window's end does.
        if progress >= 1:
            return 0.0
        fraction = self.drop_fraction
        if callable(fraction):
            fraction = fraction(progress)
        if not 0 <= fraction <= 1:
            raise ValueError(
                f"drop_fraction={self.drop_fraction} gives {fraction} at progress {progress:.3g}: "
                "must lie in 0..1"
            )
        return fraction

    def moves(self, active: int, target: int, units: int, fraction: float) -> Moves:
        """Return how many units to drop and to grow in a layer.

        Args:
            active: units active now.
            target: units to be active after the update.
            units: units that exist.
            fraction: the share of active units to exchange.

        Example:
            >>> Dynamic(density=0.1).moves(active=10, target=10, units=100, fraction=0.3)
            Moves(shrink=0, exchange=3, expand=0)
        """
        # Of the smaller of the two, so that units that shrink or expand anyway are not exchanged on
        # top.
        exchange = math.floor(fraction * min(active, target))
        inactive = units - max(active, target)
        # Grown units come from those inactive and, where that is allowed, from those just dropped.
        # In a full layer there are only the latter: an exchange would grow back what it had
        # dropped.
        if not self.regrow_dropped or inactive == 0:
            exchange = min(exchange, inactive)
        return Moves(max(active - target, 0), exchange, max(target - active, 0))

    def why_no_update(self, total_steps: int) -> str | None:
        """Return why no update falls into this run; None if one does."""
        if self.next_update(0, total_steps) is not None:
            return None
        return (
            f"none falls before stop_at={self.stop_at} of total_steps={total_steps} with "
            f"update_every={self.update_every}{self._shorter_period(total_steps)}"
        )

    def _shorter_period(self, total_steps: int) -> str:
        """Propose a period at which about ten updates fall into a run; empty if none can."""
        stop = self.stop_at * total_steps if isinstance(self.stop_at, float) else self.stop_at
        period = max(1, int(min(stop, total_steps)) // _PROPOSED)
        shorter, step, updates = replace(self, update_every=period), 0, 0
        while (found := shorter.next_update(step, total_steps)) is not None:
            step, updates = found, updates + 1
        return f"; update_every={period} makes up to {updates}" if updates else ""

    # ------------------------------------------------------------------ an update

    def moves_of(self, layers: Sequence[SparseLayer], progress: float) -> dict[str, Moves]:
        """Return what an update moves in each of these layers; empty when it moves nothing."""
        return plan_moves(self, layers, progress)

    def propose(self, view: UpdateView) -> dict[str, Tensor]:
        """Return every layer's active units after an update."""
        return propose(self, view)
