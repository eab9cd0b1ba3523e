"""Selection against naive oracles: full stable sorts, loops and counting."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from regrow.engine import selection
from regrow.engine.selection import (
    _select_on_device,
    bottom_k,
    nth_allowed,
    random_k,
    sample,
    seeded_generator,
    top_k,
)

fast = settings(max_examples=150, deadline=None)

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INF, NAN = float("inf"), float("nan")
SAMPLED_ABOVE, STRIDE = 1_000_000, 61  # where top_k starts to bound the threshold by a sample


def ranking(scores, allowed=None):
    """Allowed positions, best first, ties by index: a full stable sort in float64."""
    values = scores.double().numpy().ravel()
    positions = np.arange(values.size) if allowed is None else np.flatnonzero(allowed.numpy())
    return positions[np.argsort(-values[positions], kind="stable")]


def chosen(mask):
    return np.flatnonzero(mask.numpy())


@st.composite
def contests(draw, least_k=0):
    """Few distinct scores, so nearly everything ties; an allowed set; k up to all of it."""
    n = draw(st.integers(1, 40))
    values = st.sampled_from([-INF, -2.0, -0.0, 0.0, 0.5, 1.0, INF])
    scores = draw(st.lists(values, min_size=n, max_size=n))
    allowed = draw(st.lists(st.booleans(), min_size=n, max_size=n))
    allowed[draw(st.integers(0, n - 1))] = True
    k = draw(st.integers(least_k, sum(allowed)))
    return torch.tensor(scores, dtype=draw(st.sampled_from(DTYPES))), k, torch.tensor(allowed)


class TestTopK:
    @fast
    @given(contests())
    def test_equals_a_full_stable_sort(self, contest):
        scores, k, allowed = contest
        assert set(chosen(top_k(scores, k, allowed))) == set(ranking(scores, allowed)[:k])
        assert set(chosen(top_k(scores, k))) == set(ranking(scores)[:k])

    @fast
    @given(contests())
    def test_bottom_k_is_top_k_of_the_negated_scores(self, contest):
        scores, k, allowed = contest
        assert set(chosen(bottom_k(scores, k, allowed))) == set(ranking(-scores, allowed)[:k])

    @fast
    @given(contests(least_k=1))
    def test_the_form_for_devices_selects_what_the_form_for_hosts_selects(self, contest):
        scores, k, allowed = contest
        assert _select_on_device(scores, k, allowed).equal(top_k(scores, k, allowed))
        assert _select_on_device(scores, k, None).equal(top_k(scores, k))

    @pytest.mark.parametrize(
        "scores",
        [
            torch.rand(6, 5).t(),
            torch.rand(4, 12)[:, ::3],
            torch.ones(1).expand(3, 4),
            torch.rand(3, 4, requires_grad=True),
        ],
        ids=["transposed", "strided", "expanded", "requires grad"],
    )
    def test_any_layout_is_read_in_order_of_its_flat_index(self, scores):
        mask = top_k(scores, 5)
        assert mask.shape == scores.shape
        assert set(chosen(mask.reshape(-1))) == set(ranking(scores.detach())[:5])

    def test_minus_infinity_inside_the_allowed_set_is_chosen_before_anything_outside(self):
        allowed = torch.tensor([False, True, True, False])
        assert top_k(torch.tensor([9.0, -INF, 1.0, 9.0]), 2, allowed).equal(allowed)

    @pytest.mark.parametrize("k", [-1, 4])
    def test_refuses_a_k_that_does_not_fit(self, k):
        with pytest.raises(ValueError, match=rf"k={k}: must lie in 0\.\.3"):
            top_k(torch.zeros(3), k)

    def test_refuses_more_than_the_allowed_positions(self):
        with pytest.raises(ValueError, match="k=2 of 1 allowed"):
            top_k(torch.zeros(3), 2, torch.tensor([True, False, False]))

    @pytest.mark.parametrize(
        "scores",
        [[NAN, 0.0, 1.0, 2.0], [NAN, NAN, NAN, NAN], [NAN, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, NAN]],
        ids=["distinct", "all", "before ties", "after ties"],
    )
    def test_refuses_nan_among_the_scores_it_compares(self, scores):
        with pytest.raises(ValueError, match="NaN"):
            top_k(torch.tensor(scores), 2)

    def test_does_not_look_outside_the_allowed_set(self):
        allowed = torch.tensor([False, True, True])
        mask = top_k(torch.tensor([NAN, 1.0, 2.0]), 1, allowed)
        assert mask.tolist() == [False, False, True]


def large_scores(kind, n):
    shuffled = np.random.default_rng(0).permutation(n).astype(np.float32)
    sampled = np.arange(n) % STRIDE == 0
    return torch.from_numpy(
        {
            "distinct": shuffled,
            "few values": shuffled % 4,
            "one value": shuffled * 0,
            "ascending": np.sort(shuffled),
            "the sample sees only the highest": shuffled + 2e6 * sampled,
            "the sample sees only the lowest": shuffled - 2e6 * sampled,
        }[kind]
    )


KINDS = (
    "distinct",
    "few values",
    "one value",
    "ascending",
    "the sample sees only the highest",
    "the sample sees only the lowest",
)


class TestLongArrays:
    """Both sides of the size from which the threshold is bounded by a sample."""

    @pytest.mark.parametrize("n", [SAMPLED_ABOVE, SAMPLED_ABOVE + 1])
    @pytest.mark.parametrize("kind", KINDS)
    def test_equal_a_full_stable_sort(self, kind, n):
        scores = large_scores(kind, n)
        order = ranking(scores)
        for k in (1, 1000, n // STRIDE + 1, n // 2, n):
            assert np.array_equal(chosen(top_k(scores, k)), np.sort(order[:k]))

    @pytest.mark.parametrize("kind", ["few values", "the sample sees only the lowest"])
    @pytest.mark.parametrize("allowed_set", ["half", "sampled", "never sampled"])
    def test_equal_a_full_stable_sort_of_the_allowed(self, kind, allowed_set):
        n = SAMPLED_ABOVE + 1
        positions = torch.arange(n)
        allowed = {
            "half": torch.rand(n, generator=torch.Generator().manual_seed(0)) < 0.5,
            "sampled": positions % STRIDE == 0,
            "never sampled": positions % STRIDE != 0,
        }[allowed_set]
        scores = large_scores(kind, n)
        order = ranking(scores, allowed)
        for k in (1, 1000, len(order) // 2, len(order)):
            assert np.array_equal(chosen(top_k(scores, k, allowed)), np.sort(order[:k]))
        with pytest.raises(ValueError, match="allowed positions"):
            top_k(scores, len(order) + 1, allowed)


class TestInParts(TestLongArrays):
    """Very long arrays, which are looked at in parts: here all are."""

    @pytest.fixture(autouse=True)
    def _in_parts(self, monkeypatch):
        monkeypatch.setattr(selection, "_IN_PARTS_FROM", 0)
        monkeypatch.setattr(selection, "_PART", 300_007)

    @fast
    @given(contests())
    def test_ties_and_infinities_are_chosen_as_in_short_arrays(self, contest):
        scores, k, allowed = contest
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(selection, "_PART", 7)
            for inside in (allowed, None):
                assert set(chosen(top_k(scores, k, inside))) == set(ranking(scores, inside)[:k])
                lowest = set(ranking(-scores, inside)[:k])
                assert set(chosen(bottom_k(scores, k, inside))) == lowest


class TestRandomK:
    @fast
    @given(st.lists(st.booleans(), min_size=1, max_size=60), st.data())
    def test_holds_exactly_k_allowed_positions(self, allowed, data):
        allowed = torch.tensor(allowed)
        n = int(allowed.sum())
        k, seed = data.draw(st.integers(0, n)), data.draw(st.integers(0, 99))
        mask = random_k(k, allowed, seeded_generator(seed))
        assert int(mask.sum()) == k
        assert not (mask & ~allowed).any()
        assert mask.equal(random_k(k, allowed, seeded_generator(seed), n_allowed=n))

    def test_keeps_the_shape(self):
        assert random_k(3, torch.ones(2, 3, 4, dtype=torch.bool), seeded_generator(0)).shape == (
            2,
            3,
            4,
        )

    @pytest.mark.parametrize("k", [-1, 3])
    def test_refuses_a_k_that_does_not_fit(self, k):
        with pytest.raises(ValueError, match=rf"k={k}: must lie in 0\.\.2"):
            random_k(k, torch.tensor([True, False, True]), seeded_generator(0))

    @pytest.mark.parametrize("k", [3, 8], ids=["drawn", "drawn as complement"])
    def test_includes_every_position_equally_often(self, k, p_value):
        draws, generator = 4000, seeded_generator(1)
        allowed = torch.arange(15) % 3 != 0
        counts = sum(random_k(k, allowed, generator).long() for _ in range(draws))
        assert not counts[~allowed].any()
        n = int(allowed.sum())
        # Positions compete: one draw's inclusions have covariance (1 - k/n)·n/(n-1) times that of
        # independent counts.
        assert p_value(counts[allowed], draws * k / n, (1 - k / n) * n / (n - 1)) > 1e-3

    @pytest.mark.parametrize("k", [3, 4], ids=["drawn", "drawn as complement"])
    def test_draws_every_subset_equally_often(self, k, p_value):
        draws, generator = 6000, seeded_generator(2)
        everyone = torch.ones(6, dtype=torch.bool)
        counts = dict.fromkeys(combinations(range(6), k), 0)
        for _ in range(draws):
            counts[tuple(chosen(random_k(k, everyone, generator)))] += 1
        observed = torch.tensor(list(counts.values()))
        assert p_value(observed, draws / len(counts)) > 1e-3


class TestSample:
    @fast
    @given(st.integers(0, 200), st.data())
    def test_is_sorted_distinct_and_in_range(self, n, data):
        k = data.draw(st.integers(0, n))
        drawn = sample(n, k, seeded_generator(n, k)).tolist()
        assert len(drawn) == k
        assert drawn == sorted(set(drawn))
        assert set(drawn) <= set(range(n))

    @pytest.mark.parametrize(("n", "k"), [(3, 4), (3, -1), (0, 1)])
    def test_refuses_a_k_that_does_not_fit(self, n, k):
        with pytest.raises(ValueError, match=rf"k={k}: must lie in 0\.\.{n}"):
            sample(n, k, seeded_generator(0))

    @fast
    @given(st.lists(st.booleans(), min_size=1, max_size=60), st.data())
    def test_nth_allowed_equals_counting(self, allowed, data):
        positions = [position for position, free in enumerate(allowed) if free]
        ranks = data.draw(st.lists(st.integers(0, max(len(positions) - 1, 0)), max_size=9))
        ranks = ranks if positions else []
        excluded = np.flatnonzero(~np.array(allowed))
        found = nth_allowed(torch.tensor(ranks, dtype=torch.int64), excluded)
        assert found.tolist() == [positions[rank] for rank in ranks]


class TestSeededGenerator:
    def test_is_a_cpu_generator_so_every_device_draws_the_same(self):
        assert seeded_generator(0).device == torch.device("cpu")

    def test_every_part_of_the_key_counts(self):
        keys = [(0, "a", 1), (1, "a", 1), (0, "b", 1), (0, "a", 2), (0, "a", "1"), (0, "a1")]
        draws = {torch.rand((), generator=seeded_generator(*key)).item() for key in keys}
        assert len(draws) == len(keys)

    def test_draws_the_same_in_a_process_that_hashes_strings_differently(self, python):
        printed = python(
            "from regrow.engine.selection import sample, seeded_generator as seeded\n"
            "print(hash('fc1.weight'), *sample(10**9, 5, seeded(3, 'fc1.weight', 7)).tolist())",
            PYTHONHASHSEED="12345",
        ).split()
        assert int(printed[0]) != hash("fc1.weight")
        ours = sample(10**9, 5, seeded_generator(3, "fc1.weight", 7))
        assert [int(number) for number in printed[1:]] == ours.tolist()


@pytest.mark.parametrize("size", [50, 40_000])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.7, 0.99, 1.0])
@pytest.mark.parametrize("masked", [False, True])
def test_most_of_many_are_selected_by_what_is_left_out(size, share, masked):
    """Looking for the smaller half changes nothing: counts, and which of equal scores go first."""
    generator = torch.Generator().manual_seed(size)
    scores = torch.randint(40, (size,), generator=generator).float()
    allowed = torch.rand(size, generator=generator) < 0.8 if masked else None
    everyone = torch.ones(size, dtype=torch.bool) if allowed is None else allowed
    k = int(share * int(everyone.sum()))
    for select, sign in ((top_k, -1), (bottom_k, 1)):
        order = (sign * scores).masked_fill(~everyone, torch.inf).sort(stable=True).indices
        expected = torch.zeros(size, dtype=torch.bool).index_fill_(0, order[:k], True)
        assert select(scores, k, allowed).equal(expected)
