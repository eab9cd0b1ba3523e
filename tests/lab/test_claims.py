"""Verdicts follow their rule, and are never bolder than the seeds allow."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrow.lab.claims import Claim, Verdict, above, all_of, any_of, below, within
from regrow.lab.records import Records
from regrow.lab.statistics import Interval, mean_interval, paired_interval

YES, NO, OPEN = (
    Verdict("supported", Interval(1, 0.5, 1.5, 5)),
    Verdict("not supported", Interval(-1, -1.5, -0.5, 5)),
    Verdict("inconclusive", Interval(0, -1, 1, 5)),
)


def interval(low, high, n=5):
    return Interval((low + high) / 2, low, high, n)


@pytest.mark.parametrize(
    ("low", "high", "over", "under", "inside"),
    [
        (1.1, 2.0, "supported", "not supported", "not supported"),
        (0.5, 2.0, "inconclusive", "inconclusive", "inconclusive"),
        (0.2, 0.9, "not supported", "supported", "supported"),
        (-0.9, 0.9, "not supported", "supported", "supported"),
        (-1.5, 0.9, "not supported", "supported", "inconclusive"),
        (-3.0, -1.5, "not supported", "supported", "not supported"),
        (-3.0, 3.0, "inconclusive", "inconclusive", "inconclusive"),
        (1.0, 2.0, "inconclusive", "inconclusive", "inconclusive"),
        (math.nan, math.nan, "inconclusive", "inconclusive", "inconclusive"),
    ],
)
def test_an_interval_is_judged_by_where_it_lies(low, high, over, under, inside):
    found = interval(low, high)
    outcomes = [above(found, 1).outcome, below(found, 1).outcome, within(found, 1).outcome]
    assert outcomes == [over, under, inside]


numbers = st.floats(-1e3, 1e3)


@given(st.lists(numbers, min_size=1, max_size=2), numbers, st.floats(1e-3, 1e3))
def test_fewer_than_three_seeds_decide_nothing(values, bar, margin):
    found = mean_interval(values)
    verdicts = [above(found, bar), below(found, bar), within(found, margin)]
    assert {verdict.outcome for verdict in verdicts} == {"inconclusive"}
    assert all("fewer than 3 seeds" in str(verdict) for verdict in verdicts)
    parts = {str(i): verdict for i, verdict in enumerate(verdicts)}
    assert all_of(parts).outcome == any_of(parts).outcome == "inconclusive"


@pytest.mark.parametrize("outcome", ["supported", "not supported"])
@pytest.mark.parametrize("effect", [None, interval(1, 2, n=1), interval(1, 2, n=2)])
def test_nor_does_a_rule_of_ones_own(outcome, effect):
    with pytest.raises(ValueError, match="fewer than 3"):
        Verdict(outcome, effect)
    claim = Claim("", "", "", lambda _: Verdict(outcome, effect))
    verdict = claim.judge(Records([]))
    assert verdict.outcome == "inconclusive"
    assert "fewer than 3" in verdict.why


@pytest.mark.parametrize(
    ("parts", "every", "some"),
    [
        ({"a": YES, "b": YES}, "supported", "supported"),
        ({"a": YES, "b": OPEN}, "inconclusive", "supported"),
        ({"a": YES, "b": OPEN, "c": NO}, "not supported", "supported"),
        ({"a": OPEN, "b": NO}, "not supported", "inconclusive"),
        ({"a": NO, "b": NO}, "not supported", "not supported"),
        ({}, "inconclusive", "inconclusive"),
    ],
)
def test_parts_are_combined(parts, every, some):
    assert (all_of(parts).outcome, any_of(parts).outcome) == (every, some)
    for verdict in (all_of(parts), any_of(parts)):
        assert verdict.effect in [None, *(part.effect for part in parts.values())]
        assert all(f"{name}: {part.outcome}" in verdict.why for name, part in parts.items())


def missing(records):
    return above(mean_interval(records.need("accuracy", method__kind="RigL")), 0)


def unpaired(records):
    return above(paired_interval({1: 0.1, 2: 0.2}, {1: 0.1}), 0)


@pytest.mark.parametrize(
    ("decide", "said"),
    [
        (missing, "no record with method.kind=RigL has accuracy"),
        (unpaired, "seeds 2: only one side has them"),
        (lambda records: above(mean_interval(records.values("x")), 0), "empty"),
        (lambda records: above(mean_interval([math.nan]), 0), "nan"),
        (lambda records: YES if {}["x"] else NO, "x"),
    ],
)
def test_records_that_are_missing_or_unfit_are_named(decide, said):
    verdict = Claim("", "", "", decide).judge(Records([]))
    assert verdict.outcome == "inconclusive"
    assert said in verdict.why


def test_a_margin_must_leave_room():
    with pytest.raises(ValueError, match="margin=0"):
        within(interval(0, 1), 0)


def test_a_verdict_says_its_effect():
    verdict = Verdict("supported", Interval(-0.1234, -0.2, -0.05, 7), "points", "as planned")
    assert str(verdict) == "−0.123 points (95 % interval −0.2 to −0.05, n = 7); as planned"
    assert str(Verdict("inconclusive", Interval(1, math.nan, math.nan, 1))) == "1 (n = 1)"
