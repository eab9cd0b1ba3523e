"""Scores: truth tables on eight weights, and the statistics of what is chosen."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import regrow
from regrow.engine.moments import momentum
from regrow.engine.patterns import Block, Channel, Element, Kernel
from regrow.engine.scores import (
    Gradient,
    Magnitude,
    Momentum,
    Random,
    Signals,
    SignedMagnitude,
    Unfired,
)
from regrow.engine.selection import seeded_generator

fast = settings(max_examples=60, deadline=None)

WEIGHT = torch.tensor([0.9, -0.1, 0.2, -0.8, -0.3, 0.4, 0.0, -0.5])
GRADIENT = torch.tensor([0.1, -0.9, 0.2, 0.3, -0.4, 0.9, 0.8, 0.0])
EVERYONE = torch.ones(8, dtype=torch.bool)
SCORES = (Magnitude(), SignedMagnitude(), Gradient(), Random())


def lowest(score, k, among=EVERYONE, weight=WEIGHT):
    worth = score.worth(Signals(weight, gradient=GRADIENT))
    return score.lowest(worth, k, among, int(among.sum()), seeded_generator(0)).int().tolist()


def highest(score, k, among=EVERYONE):
    worth = score.worth(Signals(WEIGHT, gradient=GRADIENT))
    return score.highest(worth, k, among, int(among.sum()), seeded_generator(0)).int().tolist()


def test_a_score_is_one_number_a_weight():
    signals = Signals(WEIGHT, gradient=GRADIENT)
    assert Magnitude()(signals).equal(WEIGHT.abs())
    assert Gradient()(signals).equal(GRADIENT.abs())
    assert not Random()(signals).any()


@pytest.mark.parametrize(
    ("score", "k", "dropped"),
    [
        (Magnitude(), 1, [0, 0, 0, 0, 0, 0, 1, 0]),
        (Magnitude(), 3, [0, 1, 1, 0, 0, 0, 1, 0]),
        (Gradient(), 2, [1, 0, 0, 0, 0, 0, 0, 1]),
        # 3 of 8 are positive: of 3 dropped, 3·3/8 + 1/2 rounds to 1 positive.
        (SignedMagnitude(), 3, [0, 1, 1, 0, 0, 0, 1, 0]),
        # 4·3/8 + 1/2 = 2 positive; zero counts with the negatives.
        (SignedMagnitude(), 4, [0, 1, 1, 0, 0, 1, 1, 0]),
        (SignedMagnitude(), 8, [1, 1, 1, 1, 1, 1, 1, 1]),
        (SignedMagnitude(), 0, [0, 0, 0, 0, 0, 0, 0, 0]),
    ],
)
def test_the_lowest(score, k, dropped):
    assert lowest(score, k) == dropped


def test_the_highest_gradients_first_of_equals_first():
    assert highest(Gradient(), 1) == [0, 1, 0, 0, 0, 0, 0, 0]
    assert highest(Gradient(), 3) == [0, 1, 0, 0, 0, 1, 1, 0]


def test_the_choice_stays_among_those_that_can_be_chosen():
    among = torch.tensor([1, 0, 1, 1, 0, 0, 0, 0], dtype=torch.bool)
    assert lowest(Magnitude(), 1, among) == [0, 0, 1, 0, 0, 0, 0, 0]
    assert highest(Gradient(), 1, among) == [0, 0, 0, 1, 0, 0, 0, 0]
    # Two of the three are positive, so of two dropped one is.
    assert lowest(SignedMagnitude(), 2, among) == [0, 0, 1, 1, 0, 0, 0, 0]


@pytest.mark.parametrize("score", SCORES)
def test_only_scores_that_read_the_gradient_ask_for_it(score):
    assert ("gradient" in score.needs) == isinstance(score, Gradient)
    assert score.observes is None


@pytest.mark.parametrize("score", SCORES)
def test_scores_of_weights_alone_cannot_grow(score):
    assert score.grows != isinstance(score, Magnitude | SignedMagnitude)


@fast
@given(
    st.sampled_from(SCORES),
    st.sampled_from([Element(), Kernel(), Channel(), Block(2)]),
    st.sampled_from(["normal", "signs", "equal", "zero"]),
    st.data(),
)
def test_exactly_k_are_chosen_among_some_whatever_the_ties(filled, score, pattern, kind, data):
    shape = data.draw(st.sampled_from([(5, 3), (4, 3, 2, 2), (1, 1), (3, 5, 1, 1)]))
    among = torch.rand(pattern.grid(shape), generator=seeded_generator(0)) < 0.6
    n = int(among.sum())
    k = data.draw(st.integers(0, n))
    gradient = filled(shape, kind, seed=1)
    worth = score.worth(Signals(filled(shape, kind), pattern, gradient=gradient))
    for choose in (score.lowest, score.highest):
        chosen = choose(worth, k, among, n, seeded_generator(1))
        assert chosen.dtype == torch.bool
        assert int(chosen.sum()) == k
        assert not (chosen & ~among).any()


def test_a_unit_is_worth_the_sum_over_its_weights():
    weight = torch.tensor([[3.0, -3.0], [4.0, 1.0]])
    signals = Signals(weight, Channel())
    two = torch.ones(2, dtype=torch.bool)
    for score in (Magnitude(), SignedMagnitude()):
        worth = score.worth(signals)
        assert worth.tolist() == [6.0, 5.0]
        assert score.lowest(worth, 1, two, 2, seeded_generator(0)).tolist() == [False, True]


class TestSigns:
    """The same share of both signs, unlike the rule that many public codes ship (table 2.4)."""

    @staticmethod
    def as_shipped(weight, rho):
        """magnitude_and_negativity: keeps the negatives *below* the k-th most negative."""
        positive, negative = weight[weight > 0].sort().values, weight[weight < 0].sort().values
        above = positive[math.ceil(rho * len(positive)) - 1]
        below = negative[math.ceil(rho * len(negative)) - 1]
        return ~((weight > above) | (weight < below))

    @staticmethod
    def ours(weight, rho):
        n = weight.numel()
        everyone = torch.ones(n, dtype=torch.bool)
        k = math.floor(rho * n)
        return SignedMagnitude().lowest(weight, k, everyone, n, seeded_generator(0))

    @pytest.mark.parametrize("rho", [0.5, 0.4, 0.25, 0.1, 0.01])
    def test_negatives_lose_their_share_not_the_rest_of_it(self, rho, filled):
        weight = filled(26_214)
        removed = {
            rule: float(rule(weight, rho)[weight < 0].float().mean())
            for rule in (self.as_shipped, self.ours)
        }
        assert removed[self.as_shipped] == pytest.approx(1 - rho, abs=0.002)
        assert removed[self.ours] == pytest.approx(rho, abs=0.002)

    @fast
    @given(st.integers(0, 30), st.integers(0, 30), st.floats(0, 1))
    def test_both_signs_lose_the_same_share_to_one_unit(self, n_positive, n_negative, rho):
        weight = torch.cat([torch.arange(n_positive) + 1.0, -torch.arange(n_negative) - 1.0])
        n, k = weight.numel(), math.floor(rho * weight.numel())
        dropped = self.ours(weight, rho)
        assert int(dropped.sum()) == k
        for part, size in ((dropped[:n_positive], n_positive), (dropped[n_positive:], n_negative)):
            assert abs(int(part.sum()) * n - k * size) * 2 <= n  # in integers: |d - k·size/n| <= ½

    @pytest.mark.parametrize("sign", [1.0, -1.0])
    def test_one_sign_alone_is_plain_magnitude(self, sign):
        weight = sign * (WEIGHT.abs() + 0.01)
        for k in range(9):
            assert lowest(SignedMagnitude(), k, weight=weight) == lowest(
                Magnitude(), k, weight=weight
            )


@pytest.mark.parametrize("end", ["lowest", "highest"])
def test_random_choices_favour_nobody(end, p_value):
    generator = seeded_generator(4)
    worth = Random().worth(Signals(WEIGHT))
    counts = sum(
        getattr(Random(), end)(worth, 3, EVERYONE, 8, generator).long() for _ in range(3000)
    )
    assert p_value(counts, 3000 * 3 / 8, (1 - 3 / 8) * 8 / 7) > 1e-3


class TestMomentum:
    """The third weight turns round, the fifth has only just begun to move."""

    STEPS = (
        torch.tensor([0.0, 1.0, 10.0, 0.0, 0.000, 0.0, -0.5, 0.0]),
        torch.tensor([0.0, 1.0, -10.0, 0.0, 0.001, 0.0, -0.5, 0.0]),
    )

    @pytest.mark.parametrize(
        ("make", "order"),
        [
            # 0.9·g₁ + g₂: 1.9, 1, 0.95, 0.001
            (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), [1, 2, 6, 4]),
            # m₁/√m₂: 4.25 twice, 3.16, 0.22
            (lambda p: torch.optim.Adam(p, lr=0.1), [1, 6, 4, 2]),
        ],
        ids=["SGD", "Adam"],
    )
    def test_grows_where_the_optimizer_is_heading(self, choose, make, order):
        weight = nn.Parameter(torch.zeros(1, 8))
        optimizer = make([weight])
        for gradient in self.STEPS:
            weight.grad = gradient.reshape(1, 8).clone()
            optimizer.step()
        heading = momentum(optimizer, weight)
        for k in range(5):
            chosen = choose(Momentum(), "grow", k, weight=torch.zeros(1, 8), momentum=heading)
            assert chosen == sorted(order[:k])

    def test_of_adamax_is_the_first_moment_over_the_largest_gradient(self, mlp, train):
        model = mlp()
        optimizer = torch.optim.Adamax(model.parameters(), lr=0.01)
        method = regrow.SNFS(density=0.5, update_every=2)
        sparse = regrow.sparsify(model, optimizer, method, total_steps=9)
        train(model, optimizer, range(4))
        assert len(sparse.history) == 2
        weight = model[0].weight
        state = optimizer.state[weight]
        expected = state["exp_avg"] / (state["exp_inf"] + 1e-8)
        assert momentum(optimizer, weight).equal(expected)

    @pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.RMSprop, torch.optim.Adagrad])
    def test_an_optimizer_without_momentum_is_named(self, mlp, train, make):
        model = mlp()
        optimizer = make(model.parameters(), lr=0.1)
        regrow.sparsify(model, optimizer, regrow.SNFS(density=0.5, update_every=2), total_steps=9)
        with pytest.raises(RuntimeError, match=rf"{make.__name__} keeps none"):
            train(model, optimizer, range(3))


class TestUnfired:
    FIRED = torch.tensor([[1, 1, 1, 0, 0, 1, 0, 1]], dtype=torch.bool)

    @pytest.mark.parametrize("seed", range(5))
    @pytest.mark.parametrize("k", [1, 2, 3])
    def test_who_never_was_active_goes_first(self, choose, k, seed):
        weight = torch.zeros(1, 8)
        chosen = choose(Unfired(), "grow", k, weight=weight, fired=self.FIRED, seed=seed)
        assert len(chosen) == k
        assert set(chosen) <= {3, 4, 6}

    @pytest.mark.parametrize("seed", range(5))
    def test_when_they_run_out_others_follow(self, choose, seed):
        mask = torch.tensor([[1, 0, 0, 0, 0, 0, 0, 0]], dtype=torch.bool)
        options = {"weight": torch.zeros(1, 8), "fired": self.FIRED, "mask": mask}
        chosen = choose(Unfired(), "grow", 5, seed=seed, **options)
        assert len(chosen) == 5
        assert {3, 4, 6} < set(chosen)
        assert 0 not in chosen
        assert choose(Unfired(), "grow", 7, seed=seed, **options) == [1, 2, 3, 4, 5, 6, 7]

    def test_favours_nobody_among_equals(self, choose, p_value):
        """Neither among those never active nor among the others."""
        mask, draws = torch.tensor([[1, 0, 0, 0, 0, 0, 0, 0]], dtype=torch.bool), 1500
        counts = torch.zeros(8)
        for seed in range(draws):
            options = {"weight": torch.zeros(1, 8), "fired": self.FIRED, "seed": seed}
            counts[choose(Unfired(), "grow", 2, **options)] += 1
            counts[choose(Unfired(), "grow", 5, mask=mask, **options)] += 1
        counts -= torch.tensor([0, 0, 0, draws, draws, 0, draws, 0])
        assert p_value(counts[[3, 4, 6]], torch.full((3,), draws * 2 / 3)) > 1e-3
        assert p_value(counts[[1, 2, 5, 7]], torch.full((4,), draws / 2)) > 1e-3

    def test_every_weight_gets_its_turn_as_soon_as_can_be(self, weights, step_by_hand):
        """8 of 80 active, 4 exchanged at a time: after 18 updates everybody was active once."""
        model = weights([(8, 10)])
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        method = regrow.Dynamic(density=0.1, grow=Unfired(), drop_fraction=0.5, update_every=1)
        sparse = regrow.sparsify(model, optimizer, method, total_steps=40, include="*")
        seen = sparse.masks["w0"]
        explored = []
        for step in range(18):
            step_by_hand(model, optimizer, "normal", step)
            seen |= sparse.masks["w0"]
            explored.append(int(seen.sum()))
        assert explored == [8 + 4 * update for update in range(1, 19)]
