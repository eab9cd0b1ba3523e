"""Verdicts follow their rule, and are never bolder than the seeds allow."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrow.lab.charts import verdicts_by_task
from regrow.lab.claims import Claim, Verdict, above, all_of, at_least, below, differs, within
from regrow.lab.effects import gain
from regrow.lab.records import Record
from regrow.lab.rules import gated
from regrow.lab.statistics import Interval, mean_interval, paired_interval
from regrow.lab.view import View

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
    verdicts = [above(found, bar), below(found, bar), within(found, margin), differs(found, margin)]
    assert {verdict.outcome for verdict in verdicts} == {"inconclusive"}
    assert all("fewer than 3 seeds" in str(verdict) for verdict in verdicts)
    parts = {str(i): verdict for i, verdict in enumerate(verdicts)}
    assert all_of(parts).outcome == at_least(2, parts).outcome == "inconclusive"


@pytest.mark.parametrize("outcome", ["supported", "not supported"])
@pytest.mark.parametrize("effect", [None, interval(1, 2, n=1), interval(1, 2, n=2)])
def test_nor_does_a_rule_of_ones_own(outcome, effect):
    with pytest.raises(ValueError, match="fewer than 3"):
        Verdict(outcome, effect)
    claim = Claim("", "", "", lambda _: Verdict(outcome, effect))
    verdict = claim.judge(View([]))
    assert verdict.outcome == "inconclusive"
    assert "fewer than 3" in verdict.why


@pytest.mark.parametrize(
    ("parts", "every"),
    [
        ({"a": YES, "b": YES}, "supported"),
        ({"a": YES, "b": OPEN}, "inconclusive"),
        ({"a": YES, "b": OPEN, "c": NO}, "not supported"),
        ({"a": OPEN, "b": NO}, "not supported"),
        ({"a": NO, "b": NO}, "not supported"),
        ({}, "inconclusive"),
    ],
)
def test_all_parts_must_hold(parts, every):
    verdict = all_of(parts)
    assert verdict.outcome == every
    assert verdict.effect in [None, *(part.effect for part in parts.values())]
    assert all(f"{name}: {part.outcome}" in verdict.why for name, part in parts.items())


@pytest.mark.parametrize(
    ("yes", "no", "unsure", "outcome"),
    [
        (3, 1, 0, "supported"),
        (2, 1, 1, "inconclusive"),
        (2, 2, 0, "not supported"),
        (0, 2, 2, "not supported"),
        (0, 1, 3, "inconclusive"),
    ],
)
def test_three_of_four_parts_must_hold(yes, no, unsure, outcome):
    parts = {str(i): part for i, part in enumerate([YES] * yes + [NO] * no + [OPEN] * unsure)}
    assert at_least(3, parts).outcome == outcome


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [
        (0.2, 2.0, "supported"),
        (-3.0, -0.1, "supported"),
        (-0.5, 2.0, "inconclusive"),
        (-0.5, 0.5, "not supported"),
        (0.1, 0.5, "not supported"),
    ],
)
def test_a_difference_must_leave_0_out_and_matter(low, high, outcome):
    assert differs(interval(low, high), 1.0).outcome == outcome


@pytest.mark.parametrize("one", [YES, NO, OPEN])
@pytest.mark.parametrize("first", [YES, NO, OPEN, None])
def test_behind_a_gate_the_effect_is_told_and_a_verdict_only_if_the_gate_is_supported(first, one):
    def decide(_):
        if first is None:
            raise ValueError("there are no records")
        return first

    gate = Claim("It learns.", "", "", decide)
    made, then = gated(gate, Claim("It wins.", "", "A rule.", lambda _: one))
    assert made is gate and "It learns." in then.rule
    verdict = then.judge(View([]))
    assert verdict.effect == one.effect
    if first is YES:
        assert verdict == one
    else:
        outcome = "inconclusive" if first is None else first.outcome
        assert verdict.outcome == "not judged"
        assert verdict.held == f"it is {outcome} that: It learns."


def test_a_gate_is_judged_by_the_whole_where_claims_are_judged_part_by_part():
    rows = [({"task": task}, Record("", {"seed": 0}, {}, {}, Path())) for task in ("pole", "walk")]
    view = View(rows)
    gate = Claim("It learns on pole.", "", "", lambda v: YES if v.where(task="pole") else NO)
    claims = gated(gate, Claim("It wins.", "", "", lambda _: YES))
    (section,) = verdicts_by_task(claims, view)
    assert section.table.columns == ("", "pole", "walk")
    learns, wins = section.table.rows
    assert [cell.split(":")[0] for cell in learns[1:]] == ["supported", "not supported"]
    assert [cell.split(":")[0] for cell in wins[1:]] == ["supported", "supported"]
    (section,) = verdicts_by_task(
        claims, View([({"task": t}, r) for t, (_, r) in zip("ab", rows, strict=True)])
    )
    assert all("not judged" in cell for cell in section.table.rows[1][1:])


def missing(view):
    return above(gain("RigL", "static").interval(view), 0)


def unpaired(records):
    return above(paired_interval({1: 0.1, 2: 0.2}, {1: 0.1}), 0)


@pytest.mark.parametrize(
    ("decide", "said"),
    [
        (missing, "there are no records to judge by"),
        (unpaired, "seeds 2: only one side has them"),
        (lambda view: above(mean_interval(view.values(len)), 0), "no records"),
        (lambda _: above(mean_interval([math.nan]), 0), "nan"),
        (lambda _: YES if {}["x"] else NO, "x"),
    ],
)
def test_records_that_are_missing_or_unfit_are_named(decide, said):
    verdict = Claim("", "", "", decide).judge(View([]))
    assert verdict.outcome == "inconclusive"
    assert said in verdict.why


def test_a_margin_must_leave_room():
    with pytest.raises(ValueError, match="margin=0"):
        within(interval(0, 1), 0)


def test_a_verdict_says_its_effect():
    verdict = Verdict("supported", Interval(-0.1234, -0.2, -0.05, 7), "points", "as planned")
    assert str(verdict) == "−0.123 points (95 % interval −0.2 to −0.05, n = 7); as planned"
    assert str(Verdict("inconclusive", Interval(1, math.nan, math.nan, 1))) == "1 (n = 1)"
