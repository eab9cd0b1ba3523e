"""FLOPs of a fit, counted as the papers do: 6 for each active weight and sample."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

__all__ = ["ensemble_flops", "perceptron_flops"]

_TRAIN = 6  # forward, and twice as much backward, 2 FLOPs a multiply-add
_SCORED_EVERY = 5


def ensemble_flops(selector: Any, rows: int, classes: int) -> float:
    """Count a fit of the default selector, from its history.

    Σ_steps E [6 B (a_t + H C)] + Σ_scored E [2 H² (B + d_t)]; a_t = min(a, d_t H) active links, d_t
    live inputs at step t. They are scored once a round, and every 5th step after the last. Masks
    are simulated, so while links are sparse more is computed.

    Args:
        selector: fitted.
        rows: of the training part.
        classes: C.
    """
    rounds = [r for r in selector.history_ if "step" in r and "n_features" in r]
    d, k = selector.n_features_in_, selector.n_features_
    h, e, b = selector.width, selector.n_members, min(selector.batch_size, rows)
    density = 1.0 if selector.density is None else selector.density
    links = max(round(density * d), min(d, k)) * h
    starts = [0, *(r["step"] for r in rounds), selector.n_iter_]
    live = [d, *(r["n_features"] for r in rounds)]
    total = 0.0
    for (start, end), inputs in zip(pairwise(starts), live, strict=True):
        steps = end - start
        scored = steps // _SCORED_EVERY if end == starts[-1] else 1
        total += steps * e * _TRAIN * b * (min(links, inputs * h) + h * classes)
        total += scored * e * 2 * h * h * (b + inputs)
    return total


def perceptron_flops(selector: Any, shape: tuple[int, int], classes: int) -> float:
    """Count a fit of one perceptron: 6 · active weights · samples seen, and exact attributions.

    Args:
        selector: fitted.
        shape: rows and features of the training part.
        classes: C; an autoencoder's outputs are its inputs.

    Source: Atashgahi et al. 2024, table 5 (reconstructed: 6 P N epochs gives its column STG).
    """
    rows, d = shape
    recipe = selector.recipe
    is_coder = "Unsupervised" in type(selector).__name__
    outputs = d if is_coder else classes
    layers = list(pairwise((d, *recipe.hidden, outputs)))
    if recipe.epsilon is not None:
        active = sum(min(recipe.epsilon * (i + o), i * o) for i, o in layers)
    else:
        density = getattr(selector.method, "density", 1.0)
        active = density * sum(i * o for i, o in layers)
    batch = min(recipe.batch_size, rows)
    seen = batch * selector.n_iter_
    attributed = seen / recipe.score_every if selector.importance == "attribution" else 0
    return float(active * (_TRAIN * seen + 2 * outputs * attributed))
