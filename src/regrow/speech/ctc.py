"""Connectionist temporal classification: loss of each utterance, and whether it can be aligned."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from regrow.speech.units import BLANK

__all__ = ["ctc_losses", "feasible", "needed_steps", "pad_labels"]


def pad_labels(labels: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Return labels as one tensor, filled up with blanks, and how many each utterance has.

    Example:
        >>> padded, lengths = pad_labels([[3, 1], [2]])
        >>> padded.tolist(), lengths.tolist()
        ([[3, 1], [2, 0]], [2, 1])
    """
    lengths = torch.tensor([len(one) for one in labels], dtype=torch.int64)
    padded = torch.full((len(labels), max(map(len, labels), default=0)), BLANK)
    for row, one in zip(padded, labels, strict=True):
        row[: len(one)] = torch.tensor(one, dtype=torch.int64)
    return padded, lengths


def needed_steps(labels: Tensor, lengths: Tensor) -> Tensor:
    """Return the fewest steps that labels can be aligned with: their number, and one a repeat.

    Between two equal labels CTC needs a blank.

    Args:
        labels: int64, shape (n, longest).
        lengths: int64, shape (n,).

    Example:
        >>> needed_steps(torch.tensor([[1, 1, 2, 2]]), torch.tensor([4])).tolist()
        [6]
    """
    if labels.shape[1] < 2:
        return lengths.clone()
    both = torch.arange(1, labels.shape[1], device=labels.device) < lengths[:, None]
    return lengths + ((labels[:, 1:] == labels[:, :-1]) & both).sum(1)


def feasible(steps: Tensor, labels: Tensor, lengths: Tensor) -> Tensor:
    """Whether utterances can be aligned at all: at least one label, and steps enough for all.

    Args:
        steps: int64, shape (n,): of the encoder.
        labels: int64, shape (n, longest).
        lengths: int64, shape (n,): of the labels.

    Example:
        >>> feasible(torch.tensor([5, 6]), torch.tensor([[1, 1, 2, 2]] * 2), torch.tensor([4, 4]))
        tensor([False,  True])
    """
    return (lengths > 0) & (steps >= needed_steps(labels, lengths))


def ctc_losses(
    log_probs: Tensor, steps: Tensor, labels: Tensor, lengths: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the loss of each utterance, -ln p(labels | audio), and which have one.

    torch's own loss of an utterance that cannot be aligned is infinite, or with ``zero_infinity``
    the lowest of all. Here it is 0, has no gradient, and is marked.

    Args:
        log_probs: float32, shape (n, steps, units), normalised over units.
        steps: int64, shape (n,): of each utterance.
        labels: int64, shape (n, longest), from 1 on.
        lengths: int64, shape (n,): of the labels.

    Returns:
        Float32, shape (n,): the sum over labels, not the mean; and bool, shape (n,): True where it
        is the loss of an utterance that can be aligned.

    Source: Graves et al. 2006.

    Example:
        >>> even = torch.zeros(1, 5, 3).log_softmax(2)
        >>> losses, known = ctc_losses(
        ...     even, torch.tensor([5]), torch.tensor([[1, 1, 2, 2]]), torch.tensor([4])
        ... )
        >>> losses.tolist(), known.tolist()
        ([0.0], [False])
    """
    known = feasible(steps, labels, lengths)
    losses = functional.ctc_loss(
        log_probs.transpose(0, 1),
        labels,
        steps,
        lengths,
        blank=BLANK,
        reduction="none",
        zero_infinity=True,
    )
    return torch.where(known, losses, 0.0), known
