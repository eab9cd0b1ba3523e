"""Metrics of continual learning, by hand examples and by numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regrow.continual.metrics import (
    average_incremental_accuracy,
    backward_transfer,
    capacity_used,
    final_accuracy,
    forgetting,
    forward_transfer,
    learning_transfer,
    mask_overlap,
    reused_share,
)

# Three tasks; above the diagonal what is not learnt yet.
HAND = [[0.9, 0.5, 0.4], [0.7, 0.8, 0.6], [0.6, 0.9, 1.0]]


def test_by_hand():
    assert final_accuracy(HAND) == pytest.approx(2.5 / 3)
    assert backward_transfer(HAND) == pytest.approx(((0.6 - 0.9) + (0.9 - 0.8)) / 2)
    assert forward_transfer(HAND, [0.5, 0.4, 0.5]) == pytest.approx((0.1 + 0.1) / 2)
    assert learning_transfer(HAND, [0.0, 0.7, 0.7]) == pytest.approx((0.1 + 0.3) / 2)
    assert forgetting(HAND) == pytest.approx((0.3 - 0.1) / 2)
    assert average_incremental_accuracy(HAND) == pytest.approx((0.9 + 0.75 + 2.5 / 3) / 3)


def test_what_lies_above_the_diagonal_matters_to_forward_transfer_alone():
    ragged = [row[: i + 1] for i, row in enumerate(HAND)]
    for metric in (final_accuracy, backward_transfer, forgetting, average_incremental_accuracy):
        assert metric(ragged) == metric(HAND)
    assert learning_transfer(ragged, [0, 0, 0]) == learning_transfer(HAND, [0, 0, 0])
    with pytest.raises(ValueError, match="row 0 has 1 values: 2 to 3 are needed"):
        forward_transfer(ragged, [0, 0, 0])


@given(st.integers(2, 6), st.integers(0, 1000))
def test_as_numpy_computes_them(tasks, seed):
    matrix = np.random.default_rng(seed).random((tasks, tasks))
    rows, diagonal = matrix.tolist(), matrix.diagonal()
    assert backward_transfer(rows) == pytest.approx((matrix[-1] - diagonal)[:-1].mean())
    assert final_accuracy(rows) == pytest.approx(matrix[-1].mean())
    above = np.array([matrix[i - 1, i] for i in range(1, tasks)])
    assert forward_transfer(rows, [0.25] * tasks) == pytest.approx((above - 0.25).mean())
    best = [matrix[j : tasks - 1, j].max() - matrix[-1, j] for j in range(tasks - 1)]
    assert forgetting(rows) == pytest.approx(np.mean(best))


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8))
def test_what_never_changes_has_exactly_no_backward_transfer(accuracies):
    rows = [accuracies[: i + 1] for i in range(len(accuracies))]
    assert backward_transfer(rows) == 0.0
    assert forgetting(rows) == 0.0


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [[0.5], [0.5]],
        [[0.5], [0.5, math.nan]],
        [[0.5], [math.inf, 0.5]],
        [[0.5, 0.5, 0.5], [0.5, 0.5]],
        [[0.5]],
    ],
)
def test_holes_are_errors(rows):
    with pytest.raises(ValueError, match="matrix"):
        backward_transfer(rows)


def test_references_are_one_a_task():
    with pytest.raises(ValueError, match="start has 2 values: 3 are needed"):
        forward_transfer(HAND, [0.5, 0.5])
    with pytest.raises(ValueError, match=r"alone\[1\] is nan"):
        learning_transfer(HAND, [0.5, math.nan, 0.5])


# ---------------------------------------------------------------------- masks


def masks_of(*rows: str) -> list[dict[str, torch.Tensor]]:
    """Make masks of words such as "110|0": two weights."""
    return [
        {str(i): torch.tensor([c == "1" for c in part]) for i, part in enumerate(row.split("|"))}
        for row in rows
    ]


def test_masks_by_hand():
    masks = masks_of("1100|0", "0110|1", "1111|1")
    assert capacity_used(masks) == [2 / 5, 4 / 5, 1.0]
    assert reused_share(masks) == [0.0, 1 / 3, 4 / 5]
    overlap = mask_overlap(masks)
    assert overlap[0] == [1.0, 1 / 4, 2 / 5]
    assert overlap[1][2] == overlap[2][1] == 3 / 5


@given(st.integers(1, 5), st.floats(0.05, 0.9), st.integers(0, 100))
def test_masks_as_sets_of_positions(tasks, density, seed):
    rng = np.random.default_rng(seed)
    drawn = [rng.random((7, 9)) < density for _ in range(tasks)]
    for one in drawn:
        one[0, 0] = True
    masks = [{"w": torch.from_numpy(one)} for one in drawn]
    sets = [set(np.flatnonzero(one)) for one in drawn]
    for i in range(tasks):
        earlier = set().union(*sets[:i])
        assert capacity_used(masks)[i] == len(earlier | sets[i]) / 63
        assert reused_share(masks)[i] == len(earlier & sets[i]) / len(sets[i])
        for j in range(tasks):
            wanted = len(sets[i] & sets[j]) / len(sets[i] | sets[j])
            assert mask_overlap(masks)[i][j] == pytest.approx(wanted)


def test_masks_of_other_weights_kinds_or_none_are_refused():
    with pytest.raises(ValueError, match="masks is empty"):
        capacity_used([])
    with pytest.raises(ValueError, match=r"masks\[1\] is not of the same weights"):
        mask_overlap(masks_of("10", "1|0"))
    with pytest.raises(ValueError, match="bool tensors"):
        capacity_used([{"w": torch.ones(3)}])
    with pytest.raises(ValueError, match="no active weight"):
        reused_share(masks_of("00"))


@pytest.mark.parametrize("masks", [[{}], [{"w": torch.zeros(0, dtype=torch.bool)}]])
@pytest.mark.parametrize("measure", [capacity_used, reused_share, mask_overlap])
def test_masks_without_a_weight_are_refused(masks, measure):
    with pytest.raises(ValueError, match="no weight in them"):
        measure(masks)
