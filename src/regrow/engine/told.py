"""Numbers that a sparsifier tells of its layers, and what it may be asked."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

from regrow.engine.checks import check_number, check_type
from regrow.engine.clock import Clock
from regrow.engine.history import Update
from regrow.engine.scores import Score
from regrow.engine.sparse_layer import SparseLayer

__all__ = [
    "check_driving",
    "check_would_drop",
    "density_of",
    "metrics_of",
    "stands",
    "warn_of_length",
]

logger = logging.getLogger("regrow")


def density_of(layers: Sequence[SparseLayer]) -> float:
    """Return the fraction of weights kept, over all layers."""
    kept = sum(layer.n_kept() for layer in layers)
    return kept / sum(math.prod(layer.planned.shape) for layer in layers)


def metrics_of(layers: Sequence[SparseLayer], history: Sequence[Update]) -> dict[str, float]:
    """Return densities, the number of updates, and the share of units grown at the last one."""
    metrics = {"density/total": density_of(layers), "topology/updates": float(len(history))}
    for layer in layers:
        metrics[f"density/{layer.name}"] = layer.n_kept() / math.prod(layer.planned.shape)
    if history and (last := history[-1].layers.values()):
        active = sum(change.active for change in last)
        metrics["topology/exchanged"] = sum(change.grown for change in last) / active
    return metrics


def warn_of_length(total_steps: int, saved: int) -> None:
    """Warn where a run goes on with another length than its state was saved with."""
    if saved != total_steps:
        logger.warning(
            "resumed with total_steps=%d, saved with %d: schedules differ from the saved run's",
            total_steps,
            saved,
        )


def check_driving(hooks: Sequence[object], call: str) -> None:
    """Raise RuntimeError if a sparsifier was removed: it has no hooks then."""
    if not hooks:
        raise RuntimeError(
            f"{call} after remove(): the weights are no longer this sparsifier's to move; call "
            "sparsify() again"
        )


def stands(layers: Sequence[SparseLayer], clock: Clock, history: Sequence[Update]) -> str:
    """Return where a run stands, as text: what computes it, steps, updates, density.

    Args:
        layers: the sparse layers.
        clock: counts the steps.
        history: of the updates so far.
    """
    kernels = sorted({layer.kernels for layer in layers if layer.kernels})
    computed = f"sparse layers are computed by {', '.join(kernels)}\n" if kernels else ""
    return (
        f"{computed}step {clock.steps} of {clock.total_steps}, {len(history)} updates so far, "
        f"next at {clock.next or 'no step'}, density now {density_of(layers):.4f}"
    )


def check_would_drop(score: Score, fraction: float) -> None:
    """Raise ValueError unless a score can say which share of active units it would drop."""
    check_type(score, Score, "score", "Magnitude()")
    check_number(fraction, "fraction", "0.3")
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction={fraction}: must lie in 0..1")
    if score.observes is not None:
        raise ValueError(f"score={score!r} follows a running average, which is not kept here")
    if not score.drops:
        raise ValueError(f"score={score!r}: active weights are all worth the same to it")
