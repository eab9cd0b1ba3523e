"""What became of the samples: how many are kept, seen, never seen, and of which strata."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from regrow.engine.tables import draw
from regrow.samples.store import Store

__all__ = ["drift", "metrics", "table"]

Mask = npt.NDArray[np.bool_]


def metrics(
    store: Store,
    kept: Mask,
    excluded: int,
    strata: Mapping[str, Tensor],
    lengths: npt.NDArray[np.float64] | None = None,
) -> dict[str, float]:
    """Return numbers for a logger.

    Args:
        store: what is known.
        kept: of this epoch, by position.
        excluded: how many are never kept again.
        strata: labels, by name.
        lengths: of the samples.

    Returns:
        ``samples/kept`` and ``samples/kept_share`` of this epoch; ``samples/seen`` and
        ``samples/never_seen`` so far; ``samples/excluded``; ``samples/loss``, the mean of the
        running averages of those seen; ``samples/length`` and ``samples/length_share`` of what is
        kept, where lengths are given; ``samples/drift/NAME`` of each kind of strata.
    """
    n, seen = len(kept), int(np.count_nonzero(store.seen))
    mean = float(store.average.sum(dtype=np.float64)) / max(seen, 1)
    return {
        "samples/kept": float(kept.sum()),
        "samples/kept_share": float(kept.mean()),
        "samples/seen": float(seen),
        "samples/never_seen": float(n - seen),
        "samples/excluded": float(excluded),
        "samples/loss": mean,
        **_lengths(kept, lengths),
        **{f"samples/drift/{name}": drift(kept, labels) for name, labels in strata.items()},
    }


def _lengths(kept: Mask, lengths: npt.NDArray[np.float64] | None) -> dict[str, float]:
    if lengths is None:
        return {}
    length, total = float(lengths[kept].sum()), float(lengths.sum())
    return {"samples/length": length, "samples/length_share": length / total if total else 0.0}


def drift(kept: Mask, labels: Tensor) -> float:
    """Return how far the strata of the kept are from those of all: ½ Σ |p - q|, from 0 to 1.

    Args:
        kept: bool, shape (n,).
        labels: int64 of at least 0, shape (n,).

    Example:
        >>> drift(np.array([True, False, True, False]), torch.tensor([0, 0, 1, 1]))
        0.0
        >>> drift(np.array([True, True, False, False]), torch.tensor([0, 0, 1, 1]))
        0.5
    """
    everyone = labels.bincount().double()
    chosen = labels[torch.from_numpy(kept)].bincount(minlength=len(everyone)).double()
    shares = chosen / chosen.sum().clamp(min=1) - everyone / everyone.sum().clamp(min=1)
    return float(shares.abs().sum() / 2)


def table(store: Store, kept: Mask, strata: Mapping[str, tuple[Tensor, list[str]]]) -> str:
    """Draw a table with a line a stratum: samples, of them kept and never seen, losses, visits.

    Args:
        store: what is known.
        kept: of this epoch, by position.
        strata: labels and what each is called, by name.
    """
    rows: list[tuple[str, ...]] = []
    rows.append(("", "samples", "kept", "share", "never seen", "losses a sample", "mean loss"))
    rows.append(_row("all", np.ones(len(kept), dtype=bool), store, kept))
    for name, (labels, words) in strata.items():
        rows += [
            _row(f"{name} {word}", (labels == label).numpy(), store, kept)
            for label, word in enumerate(words)
        ]
    return draw(rows)


def _row(name: str, inside: Mask, store: Store, kept: Mask) -> tuple[str, ...]:
    n, seen = int(inside.sum()), store.seen[inside]
    known = int(np.count_nonzero(seen))
    loss = float(store.average[inside].sum(dtype=np.float64)) / known if known else float("nan")
    here = int(kept[inside].sum())
    return (
        name,
        f"{n:,}",
        f"{here:,}",
        f"{here / max(n, 1):.3f}",
        f"{n - known:,}",
        f"{seen.sum() / max(n, 1):.2f}",
        f"{loss:.4f}" if known else "-",
    )
