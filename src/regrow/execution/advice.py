"""What advice says: what a training step costs, dense and stored, whether sparsity pays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from regrow.engine.tables import draw
from regrow.execution.choose import clearly_faster
from regrow.measure.timing import Timing

__all__ = ["Advice", "LayerAdvice", "StepAdvice", "Verdict"]

Verdict: TypeAlias = Literal["faster", "not faster", "too noisy to tell"]

_ALIKE = 0.05  # a difference of medians that nobody would notice
_SCATTER = 0.3  # width of the middle half beyond which a ratio is off by more than 15 % either way


@dataclass(frozen=True)
class LayerAdvice:
    """What one layer's training step costs, dense and stored.

    Args:
        name: the weight's.
        density: of this layer.
        dense: seconds of a step under a mask.
        stored: seconds of a step that computes active weights only; None if it cannot.
        reason: why it cannot.
        at: the density of the whole that it was planned for.
    """

    name: str
    density: float
    dense: Timing | None
    stored: Timing | None
    reason: str | None = None
    at: float | None = None

    @property
    def faster(self) -> bool:
        """Whether "auto" would store it."""
        return bool(self.dense and self.stored and clearly_faster(self.stored, self.dense))


@dataclass(frozen=True)
class StepAdvice:
    """What a training step of the whole model costs, one way.

    Args:
        density: over all sparse weights; 1 is the dense model.
        execution: "dense", "masked", "csr" or "block" (as many layers as can be), or "auto".
        time: of forward, backward and the optimizer's step, with the share of topology updates;
            one number a round, and round by round those of other ways beside it.
        bytes: of weights, gradients, optimizer state and topology, activations aside.
        update: seconds that a topology update adds to a step.
    """

    density: float
    execution: str
    time: Timing
    bytes: int
    update: float = 0.0


@dataclass(frozen=True)
class Advice:
    """What sparse training would cost; ``print`` it.

    Args:
        layers: each layer at each density.
        steps: the whole step at each density, each way; the dense one first.
        update_every: steps between the topology updates that steps hold their share of.
    """

    layers: tuple[LayerAdvice, ...]
    steps: tuple[StepAdvice, ...]
    update_every: int = 100

    @property
    def pays_from(self) -> float | None:
        """The largest of the densities at which a stored way is faster; None if none is."""
        faster = [density for density in self.densities if self.verdict(density) == "faster"]
        return max(faster, default=None)

    @property
    def densities(self) -> list[float]:
        """Those asked for, in their order."""
        return list(dict.fromkeys(step.density for step in self.steps[1:]))

    def verdict(self, density: float) -> Verdict:
        """Tell whether the faster of the stored ways beats the dense step at a density.

        "faster" where the middle halves of the timings do not touch; "not faster" where they do not
        touch the other way round, or medians are within 5 %; "too noisy to tell" for all else.
        """
        dense = self.steps[0].time
        stored = [
            step.time
            for step in self.steps[1:]
            if step.density == density and step.execution != "masked"
        ]
        if not stored:
            return "not faster"
        best = min(stored, key=lambda timing: timing.median)
        if best.clearly_below(dense):
            return "faster"
        alike = abs(best.median / dense.median - 1) < _ALIKE
        return "not faster" if alike or dense.clearly_below(best) else "too noisy to tell"

    def __str__(self) -> str:
        """Draw two tables and a sentence."""
        dense = self.steps[0]
        rows = [
            ("density", "execution", "ms", "updates", "× faster", "middle half", "MiB", "× smaller")
        ]
        noisy = []
        for step in self.steps:
            ratios = _ratios(dense.time, step.time)
            low, high = ratios.quartiles
            if high > (1 + _SCATTER) * low:
                noisy.append(f"{step.execution} at {step.density:g}")
            share = step.update / self.update_every / step.time.median
            rows.append(
                (
                    f"{step.density:g}",
                    step.execution,
                    f"{step.time.median * 1e3:.2f}",
                    f"{share:.1%}" if step.update else "",
                    f"{ratios.median:.2f}",
                    f"{low:.2f}-{high:.2f}",
                    f"{step.bytes / 2**20:.1f}",
                    f"{dense.bytes / step.bytes:.1f}",
                )
            )
        title = (
            "A whole training step (forward, backward, optimizer, and its share of an update every "
            f"{self.update_every} steps):"
        )
        parts = [title, draw(rows), "", "Layer by layer:", draw(self._layer_rows())]
        reasons = {layer.name: layer.reason for layer in self.layers if layer.reason}
        parts += [f"{name} stays dense: {reason}" for name, reason in reasons.items()]
        parts += ["", self._sentence()]
        if noisy:
            parts.append(
                f"Too noisy to tell by how much: {', '.join(noisy)}. The machine is busy: ask "
                "again when it is idle, or give more seconds."
            )
        return "\n".join(parts)

    def _layer_rows(self) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = [("weight", "density", "dense ms", "stored ms", "× faster")]
        for layer in self.layers:
            row = (layer.name, f"{layer.density:.4f}")
            if layer.dense is None or layer.stored is None:
                rows.append((*row, "", "", ""))
                continue
            slow, fast = layer.dense.median, layer.stored.median
            rows.append((*row, f"{slow * 1e3:.2f}", f"{fast * 1e3:.2f}", f"{slow / fast:.2f}"))
        return rows

    def _sentence(self) -> str:
        unsure = [d for d in self.densities if self.verdict(d) == "too noisy to tell"]
        untold = f" Too noisy to tell at {', '.join(f'{d:g}' for d in unsure)}." if unsure else ""
        if self.pays_from is not None:
            return f"Sparse execution pays from a density of {self.pays_from:g} down.{untold}"
        sure = [f"{d:g}" for d in self.densities if d not in unsure]
        told = "any of these densities" if not unsure else ", ".join(sure)
        return f"Sparse execution does not pay here at {told}.{untold}" if sure else untold.strip()


def _ratios(dense: Timing, other: Timing) -> Timing:
    """Return how much faster another way is, round by round: what slows the machine slows both."""
    return Timing(tuple(a / b for a, b in zip(dense.seconds, other.seconds, strict=False)))
