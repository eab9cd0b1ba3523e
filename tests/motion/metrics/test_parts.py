"""Rectangles against sampled areas, shapes against a truth table, precision by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrow.motion.metrics.boxes import headings, overlaps
from regrow.motion.metrics.precision import average_precision
from regrow.motion.metrics.rules import BEFORE_MARCH_2024, Rules
from regrow.motion.metrics.shapes import SHAPES, shapes_of


def inside(box, points):
    """Return which points are inside a rectangle."""
    offset = points - box[:2]
    along = offset @ [np.cos(box[4]), np.sin(box[4])]
    across = offset @ [-np.sin(box[4]), np.cos(box[4])]
    return (np.abs(along) <= box[2] / 2) & (np.abs(across) <= box[3] / 2)


def sampled(one, other):
    """Return how many points of a fine grid on the first rectangle are inside the second."""
    u, v = np.meshgrid(np.linspace(-0.5, 0.5, 201), np.linspace(-0.5, 0.5, 201))
    turn = np.array([[np.cos(one[4]), -np.sin(one[4])], [np.sin(one[4]), np.cos(one[4])]])
    points = np.stack([u.ravel() * one[2], v.ravel() * one[3]], axis=1) @ turn.T + one[:2]
    return inside(other, points).sum()


BOXES = st.tuples(
    st.floats(-3, 3), st.floats(-3, 3), st.floats(0.3, 5), st.floats(0.3, 5), st.floats(-4, 4)
).map(np.array)


@given(BOXES, BOXES)
def test_rectangles_overlap_where_sampled_points_are_in_both(one, other):
    found, points = bool(overlaps(one, other)), sampled(one, other)
    assert found == bool(overlaps(other, one))
    assert found or not points
    if found and not points:  # the shared area is smaller than what a grid sees
        smaller = one.copy()
        smaller[2:4] -= 0.1
        assert not overlaps(smaller, other) or sampled(other, one)


def test_touching_and_empty_rectangles_do_not_overlap():
    box = np.array([0.0, 0, 4, 2, 0])
    assert not overlaps(box, np.array([4.0, 0, 4, 2, 0]))
    assert not overlaps(box, np.array([0.0, 0, 0, 0, 0]))
    assert not overlaps(box, np.array([0.0, 0, 4, 0, 0.3]))
    assert overlaps(box, np.array([0.0, 0, 0.1, 0.1, 0.3]))


def test_headings_turn_through_the_cut_at_half_a_turn():
    path = np.array([[0.0, 0.0], [-1.0, 0.1], [-2.0, 0.0]])
    assert abs(abs(headings(path)[1]) - np.pi) < 1e-12
    np.testing.assert_array_equal(headings(np.zeros((3, 2))), 0)


# Way ahead, way to the left, turn in degrees, speed; and the shape by the new and the old rules.
TABLE = [
    (2.9, 0.0, 0, 1.9, "stationary", "stationary"),
    (2.9, 0.0, 0, 2.1, "straight", "straight"),
    (3.1, 0.0, 0, 1.0, "straight", "stationary"),
    (50, 2.4, 29, 9, "straight", "straight"),
    (50, 2.6, 29, 9, "straight left", "straight"),
    (50, -2.6, -29, 9, "straight right", "straight"),
    (50, 5.1, 29, 9, "straight left", "straight left"),
    (50, 9.0, -31, 9, "left turn", "left turn"),
    (50, -9.0, 31, 9, "right turn", "right turn"),
    (-1.0, -9.0, 170, 9, "right turn", "right turn"),
    (-1.0, 9.0, 170, 9, "left U-turn", "left turn"),
    (-5.1, 9.0, 170, 9, "left U-turn", "left U-turn"),
    (1.0, 9.0, 170, 9, "left turn", "left turn"),
]


@pytest.mark.parametrize("start", [0.0, 2.0, -3.1])
@pytest.mark.parametrize(("ahead", "left", "turn", "speed", "new", "old"), TABLE)
def test_shapes(ahead, left, turn, speed, new, old, start):
    states = np.zeros((1, 5, 9))
    cosine, sine = np.cos(start), np.sin(start)
    states[0, 3, :2] = ahead * cosine - left * sine, ahead * sine + left * cosine
    states[0, 1, 6], states[0, 3, 6] = start, start + np.radians(turn)
    states[0, 3, 7] = speed
    valid = np.array([[False, True, False, True, False]])
    assert SHAPES[shapes_of(states, valid, 1, Rules())[0]] == new
    assert SHAPES[shapes_of(states, valid, 1, BEFORE_MARCH_2024)[0]] == old


def test_a_future_that_is_not_known_has_no_shape():
    states, rules = np.zeros((4, 5, 9)), Rules()
    valid = np.array(
        [[1, 1, 0, 0, 0], [1, 0, 1, 1, 1], [0, 0, 0, 0, 0], [0, 1, 0, 0, 1]], dtype=bool
    )
    assert shapes_of(states, valid, 1, rules).tolist() == [-1, -1, -1, SHAPES.index("stationary")]


def test_of_equal_scores_misses_come_first():
    scores, hits = np.array([0.5, 0.5]), np.array([True, False])
    assert average_precision(scores, hits, 1) == average_precision(scores, hits[::-1], 1) == 0.5
