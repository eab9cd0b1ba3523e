"""Metrics of continual learning, of accuracies after each task and of the tasks' masks.

An accuracy matrix R has a row a task: R[i][j] is the accuracy on task j right after task i was
learnt. Rows may end at their diagonal: what lies right of it is asked for by
:func:`forward_transfer` alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

__all__ = [
    "Masks",
    "Matrix",
    "average_incremental_accuracy",
    "backward_transfer",
    "capacity_used",
    "final_accuracy",
    "forgetting",
    "forward_transfer",
    "learning_transfer",
    "mask_overlap",
    "reused_share",
]

Matrix: TypeAlias = Sequence[Sequence[float]]
"""Accuracies: a row a task, row i at least i + 1 long."""

Masks: TypeAlias = Mapping[str, Tensor]
"""The active weights of one task: bool tensors by parameter name."""


def final_accuracy(matrix: Matrix) -> float:
    """Average the accuracies on all tasks after the last one: ACC = Σ_j R[T-1][j] / T.

    Args:
        matrix: accuracies, a row a task.

    Raises:
        ValueError: a row is missing or too short, or a value is not finite.

    Source: Lopez-Paz & Ranzato 2017 (arXiv 1706.08840), equation 2.

    Example:
        >>> final_accuracy([[0.9], [0.7, 0.8]])
        0.75
    """
    rows = _checked(matrix)
    return math.fsum(rows[-1][: len(rows)]) / len(rows)


def average_incremental_accuracy(matrix: Matrix) -> float:
    """Average, over all moments, the accuracy on the tasks learnt so far.

    Σ_i (Σ_{j≤i} R[i][j] / (i + 1)) / T.

    Args:
        matrix: accuracies, a row a task.

    Raises:
        ValueError: as for :func:`final_accuracy`.

    Source: Rebuffi et al. 2017 (arXiv 1611.07725), section 4.

    Example:
        >>> average_incremental_accuracy([[1.0], [0.5, 0.5]])
        0.75
    """
    rows = _checked(matrix)
    return math.fsum(math.fsum(row[: i + 1]) / (i + 1) for i, row in enumerate(rows)) / len(rows)


def backward_transfer(matrix: Matrix) -> float:
    """Tell what later tasks did to earlier ones: BWT = Σ_{j<T-1} (R[T-1][j] - R[j][j]) / (T-1).

    Below 0 is forgetting; where parameters are isolated it is exactly 0.

    Args:
        matrix: accuracies of at least two tasks; row i must have been measured right after task i,
            or the result says nothing.

    Raises:
        ValueError: as for :func:`final_accuracy`, or there is one task only.

    Source: Lopez-Paz & Ranzato 2017 (arXiv 1706.08840), equation 3.

    Example:
        >>> backward_transfer([[0.75], [0.5, 0.9]])
        -0.25
    """
    rows = _checked(matrix, least=2)
    last = len(rows) - 1
    return math.fsum(rows[last][j] - rows[j][j] for j in range(last)) / last


def forgetting(matrix: Matrix) -> float:
    """Tell how far each task fell from its best: F = Σ_{j<T-1} max_{j≤i<T-1} R[i][j] - R[T-1][j].

    Divided by T-1; below 0 where the last row is the best.

    Args:
        matrix: accuracies of at least two tasks.

    Raises:
        ValueError: as for :func:`backward_transfer`.

    Source: Chaudhry et al. 2018 (arXiv 1801.10112), section 3.

    Example:
        >>> forgetting([[0.5], [0.75, 0.9], [0.5, 0.9, 0.9]])
        0.125
    """
    rows = _checked(matrix, least=2)
    last = len(rows) - 1
    best = [max(rows[i][j] for i in range(j, last)) for j in range(last)]
    return math.fsum(b - rows[last][j] for j, b in enumerate(best)) / last


def forward_transfer(matrix: Matrix, start: Sequence[float]) -> float:
    """Tell what a task gains before it is learnt: FWT = Σ_{i≥1} (R[i-1][i] - b_i) / (T-1).

    It asks for accuracies on tasks that were not learnt yet, which a network with a head a task
    cannot give: see :func:`learning_transfer` for those.

    Args:
        matrix: accuracies of at least two tasks, row i at least i + 2 long, but for the last.
        start: accuracies b of the untrained network, one a task.

    Raises:
        ValueError: as for :func:`backward_transfer`, or ``start`` is of another length.

    Source: Lopez-Paz & Ranzato 2017 (arXiv 1706.08840), equation 4.

    Example:
        >>> forward_transfer([[0.9, 0.6], [0.8, 0.9]], [0.5, 0.5])
        0.09999999999999998
    """
    rows = _checked(matrix, least=2, beyond=1)
    before = _values(start, "start", len(rows))
    return math.fsum(rows[i - 1][i] - before[i] for i in range(1, len(rows))) / (len(rows) - 1)


def learning_transfer(matrix: Matrix, alone: Sequence[float]) -> float:
    """Tell what having learnt others is worth to a task: FWT = Σ_{i≥1} (R[i][i] - a_i) / (T-1).

    The forward transfer of task-incremental learning, and the negative of intransigence: what was
    learnt is compared with the same task learnt by a network that never saw another.

    Args:
        matrix: accuracies of at least two tasks.
        alone: accuracies a of a network trained on one task only, one a task.

    Raises:
        ValueError: as for :func:`backward_transfer`, or ``alone`` is of another length.

    Source: Chaudhry et al. 2018 (arXiv 1801.10112), section 3, with the sign turned around.

    Differs from the paper: its reference network is trained on all tasks up to i, not on i alone.

    Example:
        >>> learning_transfer([[0.9], [0.9, 0.75]], [0.9, 0.5])
        0.25
    """
    rows = _checked(matrix, least=2)
    apart = _values(alone, "alone", len(rows))
    return math.fsum(rows[i][i] - apart[i] for i in range(1, len(rows))) / (len(rows) - 1)


def capacity_used(masks: Sequence[Masks]) -> list[float]:
    """Return, after each task, the share of weights that any task so far uses.

    For independent random masks of density d it is 1 - (1-d)^t after t tasks.

    Args:
        masks: one a task, of the same weights.

    Raises:
        ValueError: there are none, or they are of different weights.

    Example:
        >>> a, b = ({"w": torch.tensor(m, dtype=torch.bool)} for m in ([1, 0, 0, 1], [1, 1, 0, 0]))
        >>> capacity_used([a, b])
        [0.5, 0.75]
    """
    flat = _flat(masks)
    used = torch.zeros_like(flat[0])
    shares = []
    for mask in flat:
        used |= mask
        shares.append(int(used.sum()) / used.numel())
    return shares


def reused_share(masks: Sequence[Masks]) -> list[float]:
    """Return, for each task, the share of its active weights that earlier tasks have trained.

    These are read and never changed: forward transfer through shared weights. The first task has 0.

    Args:
        masks: one a task, of the same weights.

    Raises:
        ValueError: as for :func:`capacity_used`, or a mask is empty.

    Example:
        >>> a, b = ({"w": torch.tensor(m, dtype=torch.bool)} for m in ([1, 0, 0, 1], [1, 1, 0, 0]))
        >>> reused_share([a, b])
        [0.0, 0.5]
    """
    flat = _flat(masks)
    used = torch.zeros_like(flat[0])
    shares = []
    for mask in flat:
        shares.append(int((mask & used).sum()) / _count(mask))
        used |= mask
    return shares


def mask_overlap(masks: Sequence[Masks]) -> list[list[float]]:
    """Return the Jaccard index of the active weights of every two tasks, |A ∩ B| / |A ∪ B|.

    Two independent random masks of density d have d / (2 - d).

    Args:
        masks: one a task, of the same weights.

    Returns:
        A symmetric matrix with 1 on its diagonal.

    Raises:
        ValueError: as for :func:`reused_share`.

    Example:
        >>> a, b = ({"w": torch.tensor(m, dtype=torch.bool)} for m in ([1, 1, 0, 0], [1, 0, 1, 0]))
        >>> mask_overlap([a, b])
        [[1.0, 0.3333333333333333], [0.3333333333333333, 1.0]]
    """
    flat = _flat(masks)
    sizes = [_count(mask) for mask in flat]
    overlaps = [[1.0] * len(flat) for _ in flat]
    for i, one in enumerate(flat):
        for j in range(i):
            both = int((one & flat[j]).sum())
            overlaps[i][j] = overlaps[j][i] = both / (sizes[i] + sizes[j] - both)
    return overlaps


def _checked(matrix: Matrix, *, least: int = 1, beyond: int = 0) -> list[list[float]]:
    """Return rows whose first i + 1 + beyond values (where there are so many tasks) are numbers."""
    rows = [[float(value) for value in row] for row in matrix]
    if len(rows) < least:
        raise ValueError(f"matrix has {len(rows)} rows: at least {least} tasks are needed")
    for i, row in enumerate(rows):
        wanted = min(i + 1 + beyond, len(rows))
        if not wanted <= len(row) <= len(rows):
            raise ValueError(
                f"matrix: row {i} has {len(row)} values: {wanted} to {len(rows)} are needed, "
                "measured right after that task"
            )
        for j, value in enumerate(row[:wanted]):
            if not math.isfinite(value):
                raise ValueError(f"matrix[{i}][{j}] is {value}: every accuracy must be a number")
    return rows


def _values(values: Sequence[float], name: str, n: int) -> list[float]:
    numbers = [float(value) for value in values]
    if len(numbers) != n:
        raise ValueError(f"{name} has {len(numbers)} values: {n} are needed, one a task")
    for i, value in enumerate(numbers):
        if not math.isfinite(value):
            raise ValueError(f"{name}[{i}] is {value}: every accuracy must be a number")
    return numbers


def _flat(masks: Sequence[Masks]) -> list[Tensor]:
    """Return each task's masks as one vector, the weights in the same order."""
    if not masks:
        raise ValueError("masks is empty: at least one task is needed")
    shapes = {name: mask.shape for name, mask in masks[0].items()}
    for i, one in enumerate(masks):
        if {name: mask.shape for name, mask in one.items()} != shapes:
            raise ValueError(f"masks[{i}] is not of the same weights as masks[0]")
        if any(mask.dtype != torch.bool for mask in one.values()):
            raise ValueError(f"masks[{i}]: bool tensors are needed")
    if not sum(shape.numel() for shape in shapes.values()):
        raise ValueError("masks: there is no weight in them")
    return [torch.cat([one[name].flatten() for name in shapes]) for one in masks]


def _count(mask: Tensor) -> int:
    if not (count := int(mask.sum())):
        raise ValueError("a task has no active weight: its share is not defined")
    return count
