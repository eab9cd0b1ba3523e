"""Stability of selected sets: bounds, chance, and equal ways to the same number."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import jaccard_score

from regrow.features.stability import jaccard, kuncheva

D = 12
SETS = st.sets(st.integers(0, D - 1))
PAIRS = st.integers(1, D - 1).flatmap(
    lambda k: st.tuples(*[st.permutations(range(D)).map(lambda order: order[:k])] * 2)
)


@given(SETS, SETS)
def test_jaccard_is_scikit_learns(a, b):
    masks = [np.isin(np.arange(D), list(one)) for one in (a, b)]
    expected = jaccard_score(*masks, zero_division=1.0)
    assert jaccard(a, b) == pytest.approx(expected) == pytest.approx(jaccard(b, a))
    assert (jaccard(a, b) == 1) == (a == b)


@given(PAIRS)
def test_kuncheva_is_the_overlap_less_chance_over_the_most_less_chance(pair):
    a, b = pair
    k = len(a)
    chance = k * k / D
    expected = (len(set(a) & set(b)) - chance) / (k - chance)
    assert kuncheva(a, b, D) == pytest.approx(expected)
    assert -1 <= kuncheva(a, b, D) <= 1
    assert (kuncheva(a, b, D) == 1) == (set(a) == set(b))


def test_sets_drawn_at_random_are_not_alike():
    rng = np.random.default_rng(0)
    for k in (3, 30, 90):
        drawn = [rng.permutation(100)[:k] for _ in range(200)]
        pairs = combinations(drawn, 2)
        assert abs(np.mean([kuncheva(one, other, 100) for one, other in pairs])) < 0.02


def test_nothing_is_chosen_where_all_or_none_are():
    assert kuncheva([], [], 5) == kuncheva(range(5), range(5), 5) == 0


def test_errors():
    with pytest.raises(ValueError, match="sets of 1 and 2 features"):
        kuncheva([1], [1, 2], 5)
    with pytest.raises(ValueError, match="feature 5: there are 5, counted from 0"):
        kuncheva([5], [1], 5)
