from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrow.engine.schedules import Constant, Cosine, Cubic, Linear, in_steps

fast = settings(max_examples=100, deadline=None)

values = st.floats(0, 1)
moving = st.sampled_from([Linear, Cosine, Cubic])


@fast
@given(moving, values, values)
def test_a_schedule_starts_at_its_start_and_ends_at_its_end(kind, start, end):
    schedule = kind(start, end)
    assert schedule(0.0) == pytest.approx(start)
    assert schedule(1.0) == pytest.approx(end)


@fast
@given(moving, values, values, values)
def test_a_falling_schedule_never_rises_nor_leaves_its_range(kind, start, one, other):
    schedule, early, late = kind(start), min(one, other), max(one, other)
    assert 0 <= schedule(late) <= schedule(early) + 1e-15 <= start + 2e-15


@fast
@given(values, values, values)
def test_linear_and_cosine_are_symmetric_about_the_middle(start, end, progress):
    for kind in (Linear, Cosine):
        schedule = kind(start, end)
        assert schedule(progress) + schedule(1 - progress) == pytest.approx(start + end)


@pytest.mark.parametrize(
    ("schedule", "at"),
    [
        (Constant(0.3), [0.3, 0.3, 0.3, 0.3, 0.3]),
        (Linear(0.4, 0.2), [0.4, 0.35, 0.3, 0.25, 0.2]),
        (Cosine(0.4), [0.4, 0.2 + 0.1 * math.sqrt(2), 0.2, 0.2 - 0.1 * math.sqrt(2), 0.0]),
        (Cubic(1.0, 0.1), [1.0, 0.1 + 0.9 * 27 / 64, 0.1 + 0.9 / 8, 0.1 + 0.9 / 64, 0.1]),
    ],
)
def test_values_at_quarters(schedule, at):
    assert [schedule(quarter / 4) for quarter in range(5)] == pytest.approx(at, abs=1e-12)


@pytest.mark.parametrize(
    ("when", "step"),
    [(0, 0), (0.0, 0), (1, 1), (1.0, 1000), (750, 750), (0.75, 750), (0.0006, 1), (1000, 1000)],
)
def test_an_int_counts_steps_and_a_float_is_a_share_of_the_run(when, step):
    assert in_steps(when, 1000, "stop_at") == step


@pytest.mark.parametrize(
    ("when", "error"),
    [
        (-1, ValueError),
        (1001, ValueError),
        (-0.1, ValueError),
        (1.5, ValueError),
        (math.nan, ValueError),
        (True, TypeError),
        ("x", TypeError),
        (None, TypeError),
    ],
)
def test_a_moment_outside_the_run_is_refused(when, error):
    with pytest.raises(error, match=rf"stop_at={when!r}: .*run"):
        in_steps(when, 1000, "stop_at")
