"""Units shared among layers: exact whole numbers, in proportion, under caps; alone and in runs."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import regrow
from regrow.engine.allocation import Uniform
from regrow.engine.redistribution import share_out
from regrow.engine.scores import Gradient, Momentum, Random

fast = settings(max_examples=300, deadline=None)

strengths = st.one_of(st.just(0.0), st.floats(1e-12, 1e12))
rows = st.lists(st.tuples(strengths, st.integers(0, 50)), min_size=1, max_size=7)


def water_level(total, weights, caps):
    """Shares that are not whole: min(cap, level·weight), with the level that uses up the total."""
    low, high = 0.0, 1e16
    for _ in range(300):
        level = (low + high) / 2
        used = sum(min(c, level * w) for w, c in zip(weights, caps, strict=True))
        low, high = (level, high) if used < total else (low, level)
    return [min(c, high * w) for w, c in zip(weights, caps, strict=True)]


@fast
@given(st.integers(0, 400), rows)
def test_the_sum_is_exact_and_no_cap_is_passed(total, layers):
    weights, caps = zip(*layers, strict=True)
    shares = share_out(total, weights, caps)
    assert sum(shares) == min(total, sum(caps))
    assert all(0 <= share <= cap for share, cap in zip(shares, caps, strict=True))


@fast
@given(st.integers(0, 400), st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=7))
def test_where_no_cap_binds_shares_are_in_proportion_to_one_unit(total, weights):
    shares = share_out(total, weights, [total] * len(weights))
    for share, weight in zip(shares, weights, strict=True):
        assert abs(share - total * weight / sum(weights)) < 1 + 1e-9


@fast
@given(
    st.integers(0, 400), st.lists(st.tuples(st.floats(0.01, 100), st.integers(0, 50)), min_size=1)
)
def test_shares_are_those_of_a_common_level_to_one_unit(total, layers):
    weights, caps = zip(*layers, strict=True)
    total = min(total, sum(caps))
    exact = water_level(total, weights, caps)
    for share, level in zip(share_out(total, weights, caps), exact, strict=True):
        assert abs(share - level) < 1 + 1e-6


@fast
@given(st.integers(0, 400), rows)
def test_what_is_worth_nothing_gets_nothing_before_all_others_are_full(total, layers):
    weights, caps = zip(*layers, strict=True)
    shares = share_out(total, weights, caps)
    if any(share and not weight for share, weight in zip(shares, weights, strict=True)):
        for share, weight, cap in zip(shares, weights, caps, strict=True):
            assert not weight or share == cap


@pytest.mark.parametrize(
    ("total", "weights", "caps", "shares"),
    [
        (10, [3.0, 1.0, 1.0], [100, 100, 100], [6, 2, 2]),
        (10, [3.0, 1.0, 1.0], [4, 100, 100], [4, 3, 3]),
        (10, [3.0, 1.0, 1.0], [4, 2, 100], [4, 2, 4]),
        (3, [1.0, 1.0], [5, 5], [2, 1]),  # equal remainders: in order
        (7, [0.0, 0.0], [5, 9], [3, 4]),  # by room: 2.5 and 4.5, halves in order
        (99, [1.0, 2.0], [5, 9], [5, 9]),
        (5, [0.0, 1.0], [5, 3], [2, 3]),
        (0, [1.0, 2.0], [5, 9], [0, 0]),
        (5, [], [], []),
        (6, [1e308, 1e308, 1e308], [9, 9, 9], [2, 2, 2]),
        (6, [5e-324, 5e-324, 5e-324], [9, 9, 9], [2, 2, 2]),
    ],
)
def test_by_hand(total, weights, caps, shares):
    assert share_out(total, weights, caps) == shares


@pytest.mark.parametrize(
    ("total", "weights", "caps"),
    [
        (-1, [1.0], [1]),
        (1, [-1.0], [1]),
        (1, [math.nan], [1]),
        (1, [math.inf], [1]),
        (1, [1.0], [-1]),
        (1, [1.0, 2.0], [1]),
    ],
)
def test_what_cannot_be_shared_is_refused(total, weights, caps):
    with pytest.raises(ValueError, match="caps"):
        share_out(total, weights, caps)


class TestInTraining:
    @pytest.fixture
    def trained(self, weights, step_by_hand):
        """Two layers of 80 weights at half density; the second's gradients are ten times larger."""

        def run(method, scale=10.0, steps=12):
            model = weights([(8, 10), (8, 10)])
            optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)
            sparse = regrow.sparsify(model, optimizer, method, total_steps=40, include="*")
            generator = torch.Generator().manual_seed(0)
            counts = []
            for _ in range(steps):
                for weight, size in ((model.w0, 1.0), (model.w1, scale)):
                    weight.grad = size * (1 + torch.rand(weight.shape, generator=generator))
                optimizer.step()
                counts.append([int(mask.sum()) for mask in sparse.masks.values()])
            return counts, sparse

        return run

    @pytest.mark.parametrize("signal", ["momentum", "gradient"])
    @pytest.mark.parametrize("grow", [Momentum(), Gradient(), Random()], ids=repr)
    def test_units_move_to_the_layer_that_pulls_and_none_is_lost(self, trained, signal, grow):
        method = regrow.SNFS(density=0.5, update_every=2, redistribute=signal, grow=grow)
        counts, _ = trained(method)
        assert all(sum(pair) == 80 for pair in counts)
        assert counts[0] == [40, 40]
        assert counts[-1][0] < 15
        assert all(pair[0] >= 1 for pair in counts)

    def test_the_first_update_shares_as_the_rule_says(self, trained):
        """20 of each go; of 40 the second gets 10/11, as its momentum is ten times as large."""
        method = regrow.SNFS(density=0.5, update_every=2, drop_fraction=0.5)
        _, sparse = trained(method, steps=2)
        active = [change.active for change in sparse.history[0].layers.values()]
        momenta = [
            float(sparse._optimizer.state[weight]["momentum_buffer"].mean())
            for weight in sparse.weights()
        ]
        share = momenta[0] / sum(momenta)
        assert abs(active[0] - (20 + 40 * share)) < 2
        assert sum(active) == 80

    def test_layers_stay_as_they_are_without_redistribution(self, trained):
        method = regrow.SNFS(density=0.5, update_every=2, redistribute=None)
        counts, sparse = trained(method)
        assert all(pair == [40, 40] for pair in counts)
        assert len(sparse.history) == 6

    @pytest.mark.parametrize("options", [{"threshold": "global"}, {"allocation": Uniform()}])
    def test_a_full_layer_takes_no_more(self, trained, options):
        method = regrow.SNFS(density=0.8, update_every=1, **options)
        counts, _ = trained(method, scale=1e6)
        assert all(sum(pair) == 128 for pair in counts)
        assert counts[-1] == [48, 80]

    def test_momentum_is_needed_and_its_absence_named(self, mlp, train):
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        method = regrow.RigL(density=0.5, redistribute="momentum", update_every=2)
        regrow.sparsify(model, optimizer, method, total_steps=20)
        with pytest.raises(RuntimeError, match="reads momentum, but SGD keeps none"):
            train(model, optimizer, range(3))

    def test_a_moving_density_is_refused_with_the_reason(self):
        with pytest.raises(ValueError, match=r"redistribute='gradient' .*initial_density.*two rul"):
            regrow.GMP(density=0.1, redistribute="gradient")
