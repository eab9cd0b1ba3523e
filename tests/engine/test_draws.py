"""Random order by hashes: one to one, uniform, and the same in every arithmetic."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from regrow.engine import draws
from regrow.engine.draws import permuted, seed_from, uniform

SEEDS = st.integers(-(2**63), 2**63 - 1)


@settings(max_examples=200)
@given(st.integers(1, 3000), SEEDS)
def test_an_order_holds_everyone_once(n, seed):
    assert np.array_equal(np.sort(permuted(np.arange(n), n, seed)), np.arange(n))


@settings(max_examples=50)
@given(st.integers(2**31, 2**45), SEEDS)
def test_domains_beyond_32_bits_stay_inside_and_collide_nowhere(n, seed):
    drawn = permuted(np.arange(500), n, seed)
    assert drawn.min() >= 0
    assert drawn.max() < n
    assert len(np.unique(drawn)) == 500


def test_a_place_alone_says_what_stands_there():
    """Whoever asks for a part, in another order or in pieces, is told the same."""
    whole = permuted(np.arange(200_000), 300_000, seed=5)
    part = np.array([199_999, 0, 77_777])
    assert np.array_equal(permuted(part, 300_000, seed=5), whole[part])


@pytest.mark.parametrize(("n", "k"), [(4, 2), (8, 4), (16, 2), (12, 3), (33, 2)])
def test_every_subset_is_drawn_equally_often(n, k, p_value):
    """With eight rounds instead of sixteen, subsets of eight are not (p below 10⁻⁹)."""
    generator, total = torch.Generator().manual_seed(n), 6000
    counts = dict.fromkeys(itertools.combinations(range(n), k), 0)
    for _ in range(total):
        counts[tuple(np.sort(permuted(np.arange(k), n, seed_from(generator))).tolist())] += 1
    observed = torch.tensor(list(counts.values()))
    assert p_value(observed, total / math.comb(n, k)) > 1e-3


@pytest.mark.parametrize("n", [2048, 40_000])
def test_neighbours_in_the_order_are_far_apart_as_often_as_near(n, p_value):
    generator = torch.Generator().manual_seed(n)
    drawn = [permuted(np.arange(2), n, seed_from(generator)) for _ in range(4000)]
    distance = torch.tensor([int(b - a) % n for a, b in drawn])
    observed = torch.bincount(distance * 50 // n, minlength=50)
    assert p_value(observed, len(drawn) / 50) > 1e-3


@settings(max_examples=50)
@given(st.integers(0, 400), SEEDS)
def test_uniform_numbers_are_the_same_in_words_and_in_64_bits(n, seed):
    """The second is how torch, which has no unsigned words, does it on a GPU."""
    low, high = seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF
    place = torch.arange(n) * draws.GOLDEN & 0xFFFFFFFF
    mixed = draws._finish_long(draws._finish_long(place ^ low) + high & 0xFFFFFFFF)
    assert uniform((n,), seed).equal((mixed >> 8).float() * 2.0**-24)


def test_uniform_numbers_fill_the_unit_interval_evenly(p_value):
    numbers = uniform((100, 200), seed=3)
    assert numbers.shape == (100, 200)
    assert 0 <= float(numbers.min()) <= float(numbers.max()) < 1
    observed = torch.bincount((numbers.reshape(-1) * 64).long(), minlength=64)
    assert p_value(observed, numbers.numel() / 64) > 1e-3
    assert not numbers.equal(uniform((100, 200), seed=4))
