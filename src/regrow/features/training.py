"""Trains a perceptron: epochs, scores summed over the run, early stopping."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from regrow.engine.method import Method
from regrow.engine.selection import top_k
from regrow.features.elimination import batches, held_out_loss, live_counts
from regrow.features.inputs import Inputs
from regrow.features.perceptron import Perceptron
from regrow.features.recipe import Recipe, combine, components
from regrow.features.targets import Targets

__all__ = ["n_live", "train"]

_CURVE = 31  # points of it


def train(
    inputs: Inputs,
    targets: Targets,
    weights: Tensor,
    held_out: Tensor,
    *,
    method: Method,
    recipe: Recipe,
    importance: str,
    patience: int | None,
    generator: torch.Generator,
    report: Callable[[dict[str, Any]], None],
    keep: int,
    curve: bool = False,
) -> tuple[Tensor, int]:
    """Train one perceptron, and score the live inputs.

    Args:
        inputs: the table.
        targets: of all its rows.
        weights: of the rows, shape (n,); rows of weight zero are not learned from.
        held_out: rows to measure the loss on after each epoch; may be empty.
        method: what moves the topology.
        recipe: how the perceptron looks, learns and is read.
        importance: what scores an input.
        patience: epochs without a lower held-out loss that end the run; None: none do.
        generator: draws everything.
        report: called after each epoch with its number, the step, and the held-out loss if any.
        keep: K, where the recipe prunes inputs.
        curve: whether to report, at last, the held-out loss when only the best 1 … d inputs are
            told, and the others set to their means.

    Returns:
        Scores of shape (live,), and the steps made.
    """
    weights = weights.index_fill(0, held_out, 0.0)
    rows = weights.nonzero().squeeze(1)
    epoch = max(len(rows) // recipe.batch_size, 1)
    d, last = len(inputs.live), recipe.accumulate == "last"
    net = Perceptron(
        d, targets.outputs, recipe, method, recipe.max_epochs * epoch, epoch, generator
    )
    stream = batches(rows, recipe.batch_size, generator)
    wanted = components(importance)
    sums = {name: torch.zeros(d) for name in wanted}
    best, best_loss, best_epoch = sums, math.inf, 0
    for number in range(1, recipe.max_epochs + 1):
        for step in range(1, epoch + 1):
            chosen = next(stream)
            scored = step == epoch or not (last or step % recipe.score_every)
            x = inputs.batch(chosen)
            worth = net.step_(x, targets, chosen, weights[chosen], wanted if scored else ())
            if worth:
                sums = worth if last else {name: sums[name] + worth[name] for name in wanted}
        record: dict[str, Any] = {"epoch": number, "step": number * epoch}
        if len(held_out):
            record |= held_out_loss(net.outputs, inputs, targets, held_out)
            if record["loss"] < best_loss:
                best, best_loss, best_epoch = sums, record["loss"], number
        report(record)
        if recipe.prune_inputs is not None:
            net.prune_inputs_(n_live(d, keep, recipe.prune_inputs, number / recipe.max_epochs))
        if patience is not None and number - best_epoch >= patience:
            break
    kept = sums if last or patience is None else best
    scores = combine(importance, kept, recipe.balance)
    if not scores.isfinite().all():
        raise ValueError(
            f"learning_rate={recipe.learning_rate}: training diverged, scores are not finite; "
            "lower it"
        )
    if curve:
        for count in live_counts(d, 1, _CURVE):
            live = top_k(scores, count)
            report(
                {"n_features": count} | held_out_loss(net.outputs, inputs, targets, held_out, live)
            )
    return scores, number * epoch


def n_live(inputs: int, keep: int, share: float, progress: float) -> int:
    """Return how many inputs NeuroFS leaves live: falling from d to ζd + K at 65 % of the run.

    Args:
        inputs: d.
        keep: K.
        share: ζ.
        progress: through the run, in [0, 1].

    Source: NeuroFS (Atashgahi et al. 2023, TMLR).

    Example:
        >>> n_live(100, 10, 0.2, 0.0), n_live(100, 10, 0.2, 0.65), n_live(100, 10, 0.2, 1.0)
        (100, 30, 30)
    """
    final = min(round(share * inputs) + keep, inputs)
    return round(inputs - (inputs - final) * min(progress / 0.65, 1.0))
