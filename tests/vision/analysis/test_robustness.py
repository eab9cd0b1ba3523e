"""Robustness measures by numpy and by hand, and what they refuse."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrow.vision.analysis import (
    gains,
    mean_corruption_error,
    relative_mean_corruption_error,
    robustness_accuracy,
)

NAMES = ["fog", "snow", "frost"]
tables = st.lists(st.lists(st.floats(0.01, 1), min_size=5, max_size=5), min_size=3, max_size=3).map(
    np.array
)


def named(table, names=NAMES):
    return {name: dict(enumerate(row, 1)) for name, row in zip(names, table.tolist(), strict=True)}


@given(tables, tables)
def test_means_are_those_of_numpy(one, other):
    assert robustness_accuracy(named(one)) == pytest.approx(one.mean())
    ratio = (one.sum(1) / other.sum(1)).mean()
    assert mean_corruption_error(named(one), named(other)) == pytest.approx(ratio)
    added = ((one - 0.25).sum(1) / (other + 1 - 0.5).sum(1)).mean()
    found = relative_mean_corruption_error(named(one), 0.25, named(other + 1), 0.5)
    assert found == pytest.approx(added)


@given(tables, tables)
def test_gains_are_differences_and_quotients_in_the_order_asked_for(one, other):
    order = ["snow", "frost", "fog"]
    for relative, wanted in ((False, one - other), (True, one / other - 1)):
        found = gains(named(one), named(other), relative=relative, order=order)
        assert list(found) == order
        rows = [[found[name][s] for s in range(1, 6)] for name in NAMES]
        np.testing.assert_allclose(rows, wanted, atol=1e-12)
    assert list(gains(named(one), named(other))) == NAMES


@given(tables, tables, st.floats(0.1, 100))
def test_units_do_not_matter_to_ratios(one, other, unit):
    ratio = mean_corruption_error(named(one), named(other))
    assert mean_corruption_error(named(unit * one), named(unit * other)) == pytest.approx(ratio)
    assert mean_corruption_error(named(one), named(one)) == pytest.approx(1)
    relative = gains(named(unit * one), named(unit * other), relative=True)
    assert relative["fog"][1] == pytest.approx(one[0, 0] / other[0, 0] - 1)


def test_every_corruption_counts_alike_however_hard():
    """The mean of ratios, not the ratio of means: 1/2 (0.1/0.2 + 0.9/0.6) = 1."""
    errors, reference = {"a": {3: 0.1}, "b": {3: 0.9}}, {"a": {3: 0.2}, "b": {3: 0.6}}
    assert mean_corruption_error(errors, reference, severities=[3]) == pytest.approx(1)


def test_severities_come_in_any_order():
    assert (
        robustness_accuracy({"a": {5: 0.5, 1: 1}, "b": {1: 1, 5: 0.5}}, severities=(5, 1)) == 0.75
    )
    found = gains({"a": {5: 0.5, 1: 1}}, {"a": {1: 0.5, 5: 0.5}})
    assert list(found["a"].items()) == [(1, 0.5), (5, 0)]


WHOLE = named(np.full((3, 5), 0.5))


@pytest.mark.parametrize(
    "change, said",
    [
        ({"fog": {1: 0.5}}, r"\['fog'\] has the severities \[1\]: must be \[1, 2, 3, 4, 5\]"),
        ({"fog": WHOLE["fog"] | {6: 0.5}}, r"\[1, 2, 3, 4, 5, 6\]"),
        ({"snow": WHOLE["snow"] | {2: math.nan}}, r"\['snow'\]\[2\] is nan"),
        ({"snow": WHOLE["snow"] | {2: math.inf}}, "is inf"),
        ({"snow": WHOLE["snow"] | {2: -0.1}}, "at least 0"),
    ],
)
def test_a_hole_is_an_error_and_not_a_mean_of_the_rest(change, said):
    broken = WHOLE | change
    for call in (
        lambda: robustness_accuracy(broken),
        lambda: mean_corruption_error(broken, WHOLE),
        lambda: mean_corruption_error(WHOLE, broken),
        lambda: relative_mean_corruption_error(WHOLE, 0.1, broken, 0.1),
        lambda: gains(WHOLE, broken),
    ):
        with pytest.raises(ValueError, match=said):
            call()


def test_unlike_corruptions_are_not_compared():
    less = {name: WHOLE[name] for name in NAMES[:2]}
    for call in (gains, mean_corruption_error):
        with pytest.raises(ValueError, match="differ in frost"):
            call(WHOLE, less)
        with pytest.raises(ValueError, match="differ in frost"):
            call(less, WHOLE)


@pytest.mark.parametrize("order", [["fog"], [*NAMES, "fog"], ["fog", "snow", "ice"]])
def test_an_order_names_each_once(order):
    with pytest.raises(ValueError, match="each of fog, snow, frost once"):
        gains(WHOLE, WHOLE, order=order)


def test_nothing_is_told_in_units_of_nothing():
    zero = named(np.zeros((3, 5)))
    with pytest.raises(ValueError, match=r"reference\['fog'\] .* not above 0"):
        mean_corruption_error(WHOLE, zero)
    with pytest.raises(ValueError, match=r"not above 0\.5"):
        relative_mean_corruption_error(WHOLE, 0.1, WHOLE, 0.5)
    with pytest.raises(ValueError, match=r"other\['fog'\]\[1\] is 0"):
        gains(WHOLE, zero, relative=True)
    assert gains(WHOLE, zero)["fog"][1] == 0.5
    for clean in (math.nan, -1):
        with pytest.raises(ValueError, match="clean is"):
            relative_mean_corruption_error(WHOLE, clean, WHOLE, 0.1)
    for call in (robustness_accuracy, lambda none: gains(none, none)):
        with pytest.raises(ValueError, match="is empty"):
            call({})
    with pytest.raises(ValueError, match="is empty"):
        robustness_accuracy({"fog": {}}, severities=())
