"""Intervals against scipy's own and against their meaning."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from regrow.lab.statistics import (
    differences,
    mean_interval,
    paired_interval,
)

values = st.lists(st.floats(-100, 100), min_size=2, max_size=12)


@given(values)
def test_the_interval_is_scipys(sample):
    interval = mean_interval(sample)
    assert interval.mean == pytest.approx(np.mean(sample), abs=1e-9)
    if np.std(sample) > 1e-6:
        low, high = stats.ttest_1samp(sample, 0).confidence_interval(0.95)
        assert (interval.low, interval.high) == pytest.approx((low, high), rel=1e-6, abs=1e-6)


def test_it_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    samples = rng.normal(size=(2000, 5))
    covered = np.mean([not mean_interval(list(row)).excludes(0) for row in samples])
    assert 0.935 < covered < 0.965


def test_one_value_has_no_interval():
    interval = mean_interval([3.0])
    assert math.isnan(interval.low)
    assert not interval.excludes(100)


def test_pairing_removes_what_seeds_share():
    rng = np.random.default_rng(0)
    shared = rng.normal(0, 10, 8)
    ours, theirs = list(shared + 1 + rng.normal(0, 0.1, 8)), list(shared)
    assert paired_interval(ours, theirs).excludes(0)
    assert mean_interval(ours).half_width > 10 * paired_interval(ours, theirs).half_width


def test_values_by_seed_are_paired_by_seed():
    ours, theirs = {3: 1.0, 1: 2.0, 2: 4.0}, {1: 1.0, 2: 2.0, 3: 0.5}
    assert differences(ours, theirs) == {3: 0.5, 1: 1.0, 2: 2.0}
    assert paired_interval(ours, theirs) == mean_interval([0.5, 1.0, 2.0])
    assert mean_interval(ours) == mean_interval(list(ours.values()))


def test_seeds_without_partner_are_named_or_left_out():
    ours, theirs = {1: 1.0, 2: 2.0, 5: 0.0}, {1: 0.5, 2: 1.0, 4: 9.0}
    with pytest.raises(ValueError, match="seeds 4, 5: only one side"):
        paired_interval(ours, theirs)
    assert differences(ours, theirs, common=True) == {1: 0.5, 2: 1.0}
    with pytest.raises(ValueError, match="empty"):
        differences({1: 1.0}, {2: 1.0}, common=True)


@pytest.mark.parametrize("call", [mean_interval])
def test_bad_values_are_refused(call):
    with pytest.raises(ValueError, match="empty"):
        call([])
    with pytest.raises(ValueError, match="nan for seed 7"):
        call({3: 1.0, 7: math.nan})
    with pytest.raises(ValueError, match="inf for index 1"):
        call([1.0, math.inf])


def test_what_cannot_be_paired_is_refused():
    with pytest.raises(ValueError, match="2 values, but 1"):
        paired_interval([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="both by seed"):
        paired_interval({1: 1.0}, [1.0])
