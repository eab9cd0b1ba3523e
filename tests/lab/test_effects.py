"""Effects: pairs by seed, means over places, and words that say what was computed."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrow.lab.effects import EVERY, HIGHEST, LOWEST, Measure, gain, level, mean_of, percent
from regrow.lab.records import Record
from regrow.lab.rules import claim, each
from regrow.lab.statistics import mean_interval
from regrow.lab.view import View

VALUE = Measure("value", lambda record: record.result["value"], "points")
RATIO = Measure("cost", lambda record: record.result["value"], "times", ratio=True)


def view(values):
    """Make records of (task, arm, density or None, seed): value."""
    rows = []
    for (task, arm, density, seed), value in values.items():
        labels = {"task": task, "arm": arm} | ({} if density is None else {"density": density})
        rows.append((labels, Record(str(len(rows)), {"seed": seed}, {"value": value}, {}, Path())))
    return View(rows)


SEEDS = (0, 1, 2)
DENSITIES = (0.1, 0.2)
values = st.lists(st.floats(-10, 10), min_size=9, max_size=9)


def one_task(numbers):
    """Make a sparse arm at two densities beside a dense one that has none."""
    places = [("sparse", 0.1), ("sparse", 0.2), ("dense", None)]
    return {
        ("t", arm, density, seed): numbers[3 * i + seed]
        for i, (arm, density) in enumerate(places)
        for seed in SEEDS
    }


@given(values)
def test_a_gain_is_the_mean_of_paired_differences(numbers):
    table = np.array(numbers).reshape(3, 3)
    made = gain("sparse", "dense", VALUE, density=EVERY).interval(view(one_task(numbers)))
    expected = mean_interval(list((table[:2] - table[2]).mean(axis=0)))
    assert made.mean == pytest.approx(expected.mean, abs=1e-9)
    assert made.low == pytest.approx(expected.low, abs=1e-9)
    assert made.n == 3


@given(values)
def test_ends_of_an_axis_and_tuples_are_places(numbers):
    here = view(one_task(numbers))

    def at(density):
        return gain("sparse", "dense", VALUE, density=density).interval(here)

    assert at(LOWEST) == at(0.1) == at((0.1,)) == at((0.1, 0.5))
    assert at(HIGHEST) == at(0.2)
    assert at(EVERY) == at((0.1, 0.2))
    both = mean_of(*(gain("sparse", "dense", VALUE, density=d) for d in DENSITIES))
    assert both.interval(here).mean == pytest.approx(at(EVERY).mean, abs=1e-9)


@given(values)
def test_levels_and_differences_agree_with_gains(numbers):
    here = view(one_task(numbers))
    by_hand = level("sparse", VALUE, density=0.1) - level("dense", VALUE)
    made = gain("sparse", "dense", VALUE, density=0.1)
    assert by_hand.interval(here).mean == pytest.approx(made.interval(here).mean, abs=1e-9)
    assert (made - made).interval(here).mean == 0


def test_only_common_seeds_are_paired():
    some = {k: v for k, v in one_task(range(9)).items() if k != ("t", "dense", None, 2)}
    assert gain("sparse", "dense", VALUE, density=0.1).interval(view(some)).n == 2


def test_tasks_weigh_the_same_and_those_without_it_are_left_out():
    two = {("a", "sparse", 0.1, s): 1.0 for s in SEEDS} | {
        ("a", "dense", None, s): 0.0 for s in SEEDS
    }
    two |= {("b", "sparse", 0.1, s): 5.0 for s in range(5)}
    two |= {("b", "dense", None, s): 0.0 for s in range(5)}
    two |= {("c", "dense", None, s): 9.0 for s in SEEDS}
    made = gain("sparse", "dense", VALUE, density=EVERY).interval(view(two))
    assert (made.mean, made.n) == (3.0, 3)


def test_costs_are_compared_by_their_geometric_mean():
    costs = {
        ("t", arm, None, s): v * (s + 1) for arm, v in (("a", 3.0), ("b", 12.0)) for s in SEEDS
    }
    made = gain("a", "b", RATIO).interval(view(costs))
    assert made.mean == pytest.approx(0.25) and made.low == pytest.approx(0.25)
    other = {("t", "a", None, s): math.exp(s) for s in SEEDS} | {
        ("t", "b", None, s): 1.0 for s in SEEDS
    }
    assert gain("a", "b", RATIO).interval(view(other)).mean == pytest.approx(math.e)


@pytest.mark.parametrize(
    ("effect", "said"),
    [
        (gain("sparse", "dense", VALUE), "seed 0 occurs twice: say which density"),
        (gain("sparse", "dense", VALUE, densty=0.1), "no records that have densty"),
        (gain("sparse", "dense", VALUE, density=0.7), "no records"),
        (
            gain("sparse", "dense", VALUE, density=(0.7,)),
            "no records to compare at mean of density 0.7",
        ),
        (gain("spares", "dense", VALUE, density=0.1), "spares over dense .*: no records"),
        (gain({"arm": "sparse", "period": LOWEST}, "dense", VALUE), "have period"),
        (level("sparse", percent("share", "test accuracy"), density=0.1), "no test accuracy"),
    ],
)
def test_what_is_not_there_is_named(effect, said):
    with pytest.raises(ValueError, match=said):
        effect.interval(view(one_task(range(9))))
    assert effect.maybe(view(one_task(range(9)))) is None


@pytest.mark.parametrize(
    ("effects", "bar", "said"),
    [
        (
            gain("SET", "dense", VALUE, density=(0.1, 0.2)),
            {"above": -1},
            (
                "SET over dense (mean of density 0.1 and 0.2): value, difference paired by seed, "
                "mean over tasks. The interval must lie above −1."
            ),
        ),
        (
            each(("SET", "RigL"), lambda arm: gain(arm, "dense", RATIO, density=EVERY)),
            {"below": 0.5},
            (
                "for each of SET, RigL: it over dense (mean over density): cost, ratio paired by "
                "seed, geometric mean over tasks. Both intervals must lie below 0.5."
            ),
        ),
        (
            gain("SET", "dense", VALUE) - gain("SET", "static", VALUE),
            {"within": 1},
            (
                "SET over dense less static: value, difference paired by seed, "
                "mean over tasks. The interval must lie within ±1."
            ),
        ),
    ],
)
def test_a_rule_says_what_it_does(effects, bar, said):
    assert claim("", "", effects, **bar).rule == said


def test_a_rule_decides_as_it_says():
    numbers = [5.0, 5.1, 5.2, 1.0, 1.1, 1.2, 3.0, 3.1, 3.2]
    here = view(one_task(numbers))
    parts = {f"{d:g}": gain("sparse", "dense", VALUE, density=d) for d in DENSITIES}
    judged = claim("", "", parts, above=0).judge(here)
    assert judged.outcome == "not supported"
    assert judged.why == "as for 0.2; 0.1: supported, 0.2: not supported"
    assert claim("", "", parts, above=0, count=1).judge(here).outcome == "supported"
    assert claim("", "", parts["0.1"], below=3).judge(here).outcome == "supported"


@pytest.mark.parametrize("bars", [{}, {"above": 0, "below": 1}, {"over": 0}])
def test_a_rule_has_one_bar(bars):
    with pytest.raises((ValueError, TypeError)):
        claim("", "", gain("a", "b"), **bars)


def test_places_without_a_seed_in_common_are_said_to_have_none():
    """An unfinished study told "tasks['t'] is empty: at least one value is needed"."""
    only = {0.1: 0, 0.2: 1}
    whole = one_task(range(9))
    apart = {place: v for place, v in whole.items() if only.get(place[2], place[3]) == place[3]}
    with pytest.raises(ValueError, match=r"sparse over dense .*: no seed has all that it compares"):
        gain("sparse", "dense", VALUE, density=EVERY).interval(view(apart))
