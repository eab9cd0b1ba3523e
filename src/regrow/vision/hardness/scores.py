"""Hardness scores from a model's outputs: pure functions of logits and labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

__all__ = ["el2n", "forgetting", "loss", "mean_over_runs", "uncertainty"]


def el2n(logits: Tensor, labels: Tensor) -> Tensor:
    """Measure how wrong the predicted probabilities are: ‖softmax(f(x)) - onehot(y)‖₂.

    Args:
        logits: shape (n, classes).
        labels: int64, shape (n,).

    Returns:
        Shape (n,), from 0 to √2.

    Raises:
        ValueError: shapes do not fit, or a label is no class.

    Source: Paul, Ganguli and Dziugaite 2021 (arXiv 2107.07075), definition 2.3, where it is the
    mean over ten models early in training.

    Example:
        >>> el2n(torch.tensor([[0.0, 0.0], [100.0, 0.0]]), torch.tensor([0, 0])).tolist()
        [0.7071067690849304, 0.0]
    """
    norms: Tensor = torch.linalg.vector_norm(_errors(logits, labels), dim=1)
    return norms


def loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Measure the cross-entropy: -log p_y.

    Args:
        logits: shape (n, classes).
        labels: int64, shape (n,).

    Returns:
        Shape (n,), at least 0.

    Raises:
        ValueError: shapes do not fit, or a label is no class.

    Example:
        >>> loss(torch.tensor([[0.0, 0.0]]), torch.tensor([1])).tolist()
        [0.6931471824645996]
    """
    labels = _check(logits, labels)
    return cross_entropy(logits.float(), labels, reduction="none")


def uncertainty(logits: Tensor, labels: Tensor) -> Tensor:
    """Measure how far the probability of the label is from certainty: 1 - p_y.

    Args:
        logits: shape (n, classes).
        labels: int64, shape (n,).

    Returns:
        Shape (n,), from 0 to 1.

    Raises:
        ValueError: shapes do not fit, or a label is no class.

    Example:
        >>> uncertainty(torch.tensor([[0.0, 0.0]]), torch.tensor([1])).tolist()
        [0.5]
    """
    return -_errors(logits, labels).gather(1, labels.long().unsqueeze(1)).squeeze(1)


def forgetting(predictions: Tensor, labels: Tensor) -> Tensor:
    """Count how often a sample was learnt and then forgotten.

    A forgetting event: right in one epoch, wrong in the next. A sample that was never right is the
    hardest: it counts as forgotten in every epoch, more often than any that was.

    Args:
        predictions: of every epoch, int64, shape (epochs, n).
        labels: int64, shape (n,).

    Returns:
        float32, shape (n,), from 0 to the number of epochs.

    Raises:
        ValueError: shapes do not fit, or there is no epoch.

    Source: Toneva et al. 2019 (arXiv 1812.05159), section 3.

    Differs from the source: a sample is looked at once an epoch, after it, and not when its batch
    is trained on; there one that was never learnt counts as forgotten infinitely often.

    Example:
        >>> seen = torch.tensor([[1, 0, 1], [0, 0, 1], [1, 0, 1]])
        >>> forgetting(seen, torch.tensor([1, 1, 1])).tolist()
        [1.0, 3.0, 0.0]
    """
    if predictions.ndim != 2 or predictions.shape[1:] != labels.shape or not len(predictions):
        raise ValueError(
            f"predictions of shape {tuple(predictions.shape)} for {len(labels)} labels: must be "
            "(epochs, n), at least one epoch"
        )
    right = predictions == labels
    events = (right[:-1] & ~right[1:]).sum(0)
    return torch.where(right.any(0), events, len(right)).float()


def mean_over_runs(scores: Sequence[Tensor]) -> Tensor:
    """Average the scores that several models gave the same samples.

    Args:
        scores: of each model, shape (n,).

    Raises:
        ValueError: there are none, or they are of different lengths.

    Example:
        >>> mean_over_runs([torch.tensor([1.0, 0.0]), torch.tensor([0.0, 0.0])]).tolist()
        [0.5, 0.0]
    """
    if not scores or len({one.shape for one in scores}) > 1:
        shapes = ", ".join(str(tuple(one.shape)) for one in scores) or "none"
        raise ValueError(f"scores of shapes {shapes}: give one a model, of the same samples")
    return torch.stack(list(scores)).mean(0)


def _errors(logits: Tensor, labels: Tensor) -> Tensor:
    """Return softmax(logits) - onehot(labels), in float32 or finer."""
    labels = _check(logits, labels)
    exact = logits if logits.dtype == torch.float64 else logits.float()
    return exact.softmax(1) - one_hot(labels, logits.shape[1])


def _check(logits: Tensor, labels: Tensor) -> Tensor:
    """Return labels as int64, if they are classes of the logits."""
    if logits.ndim != 2 or logits.shape[:1] != labels.shape:
        raise ValueError(
            f"logits of shape {tuple(logits.shape)} for labels of shape {tuple(labels.shape)}: "
            "must be (n, classes) and (n,)"
        )
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < logits.shape[1]:
        span = f"{int(labels.min())}..{int(labels.max())}"
        raise ValueError(f"labels {span}: must lie in 0..{logits.shape[1] - 1}")
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise TypeError(f"labels of dtype {labels.dtype}: must be integers, one class a sample")
    return labels.long()
