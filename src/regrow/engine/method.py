"""What every method decides, moving or not; the dense model and the static topology."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from regrow.engine.allocation import ERK, Allocation, check_density, explicit
from regrow.engine.checks import check_type
from regrow.engine.layer import MaskedLayer
from regrow.engine.layouts import turned
from regrow.engine.moments import OnGrow
from regrow.engine.patterns import NM, Element, Pattern
from regrow.engine.planned import PlannedLayer
from regrow.engine.saliency import Start
from regrow.engine.scores import Role, Score
from regrow.engine.sparse_layer import SparseLayer
from regrow.engine.update import Moves, UpdateView

__all__ = ["Dense", "Method", "Static"]

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Method:
    """What every method has: how dense, how shared among layers, what a unit is, where to start.

    Args:
        density: the fraction of weights kept, in (0, 1]; or densities by glob over parameter names,
            tried in order, such as ``{"fc1.*": 0.5, "*": 0.1}``, which take the allocation's place.
        allocation: how one density is shared among the layers.
        pattern: what a unit is.
        start: what the first topology is chosen by; None draws it at random.
    """

    density: float | Mapping[str, float]
    allocation: Allocation = ERK()
    pattern: Pattern = Element()
    start: Start | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.density, Mapping):
            # As Python's own number: a NumPy one has another repr, and a trial another identity.
            object.__setattr__(self, "density", check_density(self.density))
        check_type(self.allocation, Allocation, "allocation", "ERK()")
        check_type(self.pattern, Pattern, "pattern", "Element()")
        if self.start is not None and not callable(getattr(self.start, "choose", None)):
            raise TypeError(f"start={self.start!r}: a start is needed, such as Snip(loss=...)")
        if isinstance(self.pattern, NM) and self.density != self.pattern.density:
            raise ValueError(
                f"density={self.density}: with pattern={self.pattern} it is "
                f"{self.pattern.density} in every layer"
            )
        if self.start is not None:
            self.start.check_pattern(self.pattern)
        if getattr(self.start, "scope", "layer") != "layer":
            self._refuse_by_glob(f"start with scope={getattr(self.start, 'scope', None)!r}")

    @property
    def name(self) -> str:
        """The method's name."""
        return type(self).__name__

    def _refuse_by_glob(self, sharing: str) -> None:
        """Raise ValueError if densities are given by glob, where units move between layers."""
        if isinstance(self.density, Mapping):
            raise ValueError(
                f"density={dict(self.density)} says how dense each layer is, but {sharing} lets "
                "all layers decide that together: use one density, or choose layer by layer"
            )

    def densities(self, shapes: Mapping[str, Shape]) -> dict[str, float]:
        """Return each layer's density at the end of training."""
        if isinstance(self.density, Mapping):
            return explicit(list(shapes), self.density)
        if isinstance(self.pattern, NM):
            return dict.fromkeys(shapes, self.density)
        return self.allocation(shapes, self.density)

    def initial_densities(self, shapes: Mapping[str, Shape]) -> dict[str, float]:
        """Return each layer's density at the start of training."""
        return self.densities(shapes)

    def layer(
        self,
        planned: PlannedLayer,
        weight: Tensor,
        generator: torch.Generator,
        units: Tensor | None = None,
        available: Tensor | None = None,
    ) -> MaskedLayer:
        """Make the mask of one weight; arguments as for the layer's class."""
        pattern = turned(self.pattern, planned.layout)
        return MaskedLayer(planned, pattern, weight, generator, units, available)

    # ------------------------------------------------------------------ what Dynamic overrides
    # A method that moves nothing answers as below, so that nobody has to ask which kind it is.

    @property
    def observes(self) -> frozenset[str] | None:
        """Which signals are followed at every step; None if nothing is."""
        return None

    @property
    def followed(self) -> Mapping[Role, Score]:
        """The scores that choose by a running average, by "drop" and "grow"."""
        return {}

    @property
    def signals(self) -> frozenset[str]:
        """Which of "gradient" and "momentum" an exchange reads, or any step follows."""
        return frozenset()

    @property
    def reserves(self) -> bool:
        """Whether dropped weights keep their values aside, so that scores can tell them apart."""
        return False

    @property
    def replaces_step(self) -> bool:
        """Whether an update takes the place of that optimizer step."""
        return False

    @property
    def on_grow(self) -> OnGrow:
        """The optimizer state of grown weights."""
        return "zero"

    def reads(self, moves: Iterable[Moves]) -> frozenset[str]:
        """Tell which of "gradient" and "momentum" an update that moves these units reads."""
        return frozenset()

    def reads_inactive(self, moves: Iterable[Moves]) -> bool:
        """Tell whether such an update reads gradients of inactive weights."""
        return False

    def gradient_share(self, density: float) -> float:
        """Return the share of a layer's weights whose gradients every step needs."""
        return density

    def next_update(self, step: int, total_steps: int) -> int | None:
        """Return the first update after this step, or None when there is none left."""
        return None

    def progress(self, step: int, total_steps: int) -> float:
        """Return how far through the window of updates a step lies, from 0 to 1."""
        return 1.0

    def fraction_at(self, progress: float) -> float:
        """Return the share of active units exchanged at some progress."""
        return 0.0

    def moves_of(self, layers: Sequence[SparseLayer], progress: float) -> dict[str, Moves]:
        """Return what an update moves in each of these layers; empty when it moves nothing."""
        return {}

    def propose(self, view: UpdateView) -> dict[str, Tensor]:
        """Return every layer's active units after an update."""
        return dict(view.active)

    def check_masking(self) -> None:
        """Raise RuntimeError if the method fails once gradients of inactive weights are zeroed."""

    def why_no_update(self, total_steps: int) -> str | None:
        """Return why a method that makes updates will make none in this run; None if it will."""
        return None


@dataclass(frozen=True, kw_only=True)
class Dense(Method):
    """Keep every weight: the run all others are compared with.

    Example:
        >>> Dense().density
        1.0
    """

    density: float | Mapping[str, float] = field(default=1.0, init=False)


@dataclass(frozen=True, kw_only=True)
class Static(Method):
    """Draw a random topology once and keep it: the control that shows what moving it is worth.

    Example:
        >>> Static(density=0.1).next_update(0, 1000) is None
        True
    """
