"""From scores of units to units: the best path, or the best text by a beam over prefixes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor

from regrow.speech.units import BLANK

__all__ = ["LanguageScore", "beam", "collapse", "greedy"]

LanguageScore = Callable[[tuple[int, ...], int], float]
"""Of the units so far and a next one, ln of its probability; 0 (the blank) stands for the end."""


def collapse(path: Sequence[int]) -> list[int]:
    """Return the labels of a path: units said twice in a row count once, blanks not at all.

    Example:
        >>> collapse([0, 3, 3, 0, 3, 1, 1])
        [3, 3, 1]
    """
    before, labels = BLANK, []
    for unit in path:
        if unit not in (before, BLANK):
            labels.append(int(unit))
        before = unit
    return labels


def greedy(log_probs: Tensor, steps: Tensor) -> list[list[int]]:
    """Return the labels of each utterance's most probable path.

    Args:
        log_probs: shape (n, steps, units).
        steps: int64, shape (n,): of each utterance.
    """
    best = log_probs.argmax(2).cpu()
    return [collapse(path[:n].tolist()) for path, n in zip(best, steps.tolist(), strict=True)]


def beam(
    log_probs: Tensor,
    width: int = 16,
    *,
    language: LanguageScore | None = None,
    weight: float = 0.3,
    bonus: float = 0.0,
    least: float = 1e-4,
) -> list[int]:
    """Return the labels of an utterance that are most probable over all their paths.

    Maximises ln p(labels | audio) + weight · ln p(labels) + bonus · labels, over prefixes, of which
    the best ``width`` are kept at each step.

    Args:
        log_probs: shape (steps, units), of one utterance.
        width: prefixes kept; with enough of them the search is exact.
        language: scores a next unit; None: nothing does.
        weight: of the language.
        bonus: of each label, which a language model makes too costly.
        least: probability of a unit at a step for it to be tried.

    Raises:
        ValueError: the width is below 1.

    Source: Graves and Jaitly 2014; Hannun et al. 2014, algorithm 1.

    Example:
        >>> import torch
        >>> even = torch.tensor([[0.4, 0.6], [0.6, 0.4]]).log()  # one path of "1" beats none
        >>> beam(even)
        [1]
    """
    if width < 1:
        raise ValueError(f"width={width}: must be at least 1")
    table: npt.NDArray[np.float64] = log_probs.detach().double().cpu().numpy()
    floor = math.log(least) if least > 0 else -math.inf
    # Of each prefix ln p of all paths that end in a blank, and in its last label.
    beams: dict[tuple[int, ...], tuple[float, float]] = {(): (0.0, -math.inf)}
    extra: dict[tuple[int, ...], float] = {(): 0.0}  # what language and bonus give a prefix

    def valued(prefix: tuple[int, ...]) -> float:
        return _sum(*beams[prefix]) + extra[prefix]

    for row in table:
        tried = [int(u) for u in np.flatnonzero(row >= floor) if u != BLANK]
        found: dict[tuple[int, ...], tuple[float, float]] = {}

        def add(prefix: tuple[int, ...], blank: float, label: float) -> None:
            old = found.get(prefix, (-math.inf, -math.inf))  # noqa: B023
            found[prefix] = _sum(old[0], blank), _sum(old[1], label)  # noqa: B023

        for prefix, (blank, label) in beams.items():
            both = _sum(blank, label)
            last = prefix[-1] if prefix else BLANK
            add(prefix, both + row[BLANK], label + row[last] if prefix else -math.inf)
            for unit in tried:
                longer = (*prefix, unit)
                add(longer, -math.inf, (blank if unit == last else both) + row[unit])
                if longer not in extra:
                    said = weight * language(prefix, unit) if language is not None else 0.0
                    extra[longer] = extra[prefix] + said + bonus
        beams = found
        kept = sorted(beams, key=valued, reverse=True)[:width]
        beams = {prefix: beams[prefix] for prefix in kept}
    if language is not None:
        for prefix in beams:
            extra[prefix] += weight * language(prefix, BLANK)
    best = max((valued(prefix), prefix) for prefix in beams)
    return list(best[1])


def _sum(a: float, b: float) -> float:
    """Return ln(eᵃ + eᵇ)."""
    if a < b:
        a, b = b, a
    return a if b == -math.inf else a + math.log1p(math.exp(b - a))
