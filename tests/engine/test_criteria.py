"""The drop scores of the pruning-criteria study: truth tables on eight weights and gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

import regrow
from regrow.engine.criteria import (
    AverageGradient,
    GradientStep,
    LegacySign,
    MagnitudePlusGradient,
    ReciprocalSensitivity,
    Running,
    Sensitivity,
    Taylor,
    WeightTimesGradient,
)
from regrow.engine.links import LinkPrediction, RelativeImportance, Soft
from regrow.engine.patterns import Kernel
from regrow.engine.scores import (
    Gradient,
    Magnitude,
    Momentum,
    Random,
    Signals,
    SignedMagnitude,
)
from regrow.engine.selection import seeded_generator

WEIGHT = torch.tensor([[0.9, -0.1, 0.2, -0.8, -0.3, 0.4, 0.0, -0.5]])
GRADIENT = torch.tensor([[0.1, -0.9, 0.2, 0.3, -0.4, 0.9, 0.8, 0.0]])


@pytest.mark.parametrize(
    ("score", "order"),
    [
        # |w| and |g|, as they stand above
        (Magnitude(), [6, 1, 2, 4, 5, 7, 3, 0]),
        (Gradient(), [7, 0, 2, 3, 4, 6, 1, 5]),
        # |w| + 0.2|g|: .92 .28 .24 .86 .38 .58 .16 .50
        (MagnitudePlusGradient(0.2), [6, 2, 1, 4, 7, 5, 3, 0]),
        # |w| + 3|g|: 1.2 2.8 .8 1.7 1.5 3.1 2.4 .5
        (MagnitudePlusGradient(3.0), [7, 2, 0, 4, 3, 6, 1, 5]),
        (MagnitudePlusGradient(0.0), [6, 1, 2, 4, 5, 7, 3, 0]),
        # |wg|: .09 .09 .04 .24 .12 .36 0 0; of equals the first
        (WeightTimesGradient(), [6, 7, 2, 0, 1, 4, 3, 5]),
        (Taylor(), [6, 7, 2, 0, 1, 4, 3, 5]),
        # |g|/|w|: .11 9 1 .38 1.3 2.3 8·10⁷ 0
        (Sensitivity(), [7, 0, 3, 2, 4, 5, 1, 6]),
        # |w|/|g|: 9 .11 1 2.7 .75 .44 0 5·10⁷
        (ReciprocalSensitivity(), [6, 1, 5, 4, 2, 3, 0, 7]),
        # |w - g/2|: .85 .35 .10 .95 .10 .05 .40 .50
        (GradientStep(0.5), [5, 2, 4, 1, 6, 7, 0, 3]),
        # |w - 2g|: .7 1.7 .2 1.4 .5 1.4 1.6 .5
        (GradientStep(2.0), [2, 4, 7, 0, 3, 5, 6, 1]),
    ],
    ids=repr,
)
def test_the_order_in_which_weights_are_dropped(choose, score, order):
    for k in range(9):
        chosen = choose(score, "drop", k, weight=WEIGHT, gradient=GRADIENT)
        if k in (0, 8) or _apart(score, order[k - 1], order[k]):
            assert chosen == sorted(order[:k])
        assert len(chosen) == k


def _apart(score, one, other):
    """Whether two scores differ by more than rounding."""
    worth = score(Signals(WEIGHT, gradient=GRADIENT)).flatten()
    return not math.isclose(worth[one], worth[other], rel_tol=1e-5)


@pytest.mark.parametrize(
    ("score", "dropped"),
    [
        # A sum of squares prefers one large product to two of middling size.
        (WeightTimesGradient(), [1]),
        (Taylor(), [0]),
    ],
    ids=repr,
)
def test_units_of_several_weights_are_worth_the_sum(choose, score, dropped):
    weight, gradient = torch.ones(1, 2, 1, 2), torch.tensor([[[[2.0, 2.0]], [[3.0, 0.0]]]])
    found = choose(score, "drop", 1, weight=weight, gradient=gradient, pattern=Kernel())
    assert found == dropped


@pytest.mark.parametrize(
    "score",
    [
        WeightTimesGradient(),
        Taylor(),
        Sensitivity(),
        ReciprocalSensitivity(),
        GradientStep(),
        MagnitudePlusGradient(),
        LegacySign(),
        RelativeImportance(),
        Soft(Magnitude()),
        Running(Magnitude()),
        Running(WeightTimesGradient()),
    ],
    ids=repr,
)
def test_scores_of_weights_that_are_zero_cannot_grow(score):
    with pytest.raises(ValueError, match=r"grow=.*worth the same.*Gradient\(\) or Random\(\)"):
        regrow.Dynamic(density=0.5, grow=score)


class TestLegacySign:
    @pytest.mark.parametrize(
        ("k", "dropped"),
        [
            # Three positive, four negative: of 2/8 ⌈¾⌉ positive goes and ⌈1⌉ negative stays.
            (2, [1, 2, 4, 7]),
            (4, [1, 2, 4, 5]),
            (6, [0, 1, 2, 5]),
        ],
    )
    def test_all_but_the_most_negative_go(self, k, dropped):
        everyone = torch.ones(1, 8, dtype=torch.bool)
        found = LegacySign().lowest(WEIGHT, k, everyone, 8, seeded_generator(0))
        assert found.flatten().nonzero().flatten().tolist() == dropped

    def test_what_it_drops_is_grown_again_so_that_the_count_holds(self, weights, step_by_hand):
        model = weights([(20, 30)])
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        method = regrow.SET(density=0.2, legacy=True, update_every=1, drop_fraction=0.05)
        sparse = regrow.sparsify(model, optimizer, method, total_steps=40, include="*")
        for step in range(30):
            step_by_hand(model, optimizer, "normal", step)
            assert int(sparse.masks["w0"].sum()) == 120
        assert len(sparse.history) == 30


# ---------------------------------------------------------------------- running averages


def run_by_hand(model, optimizer, steps, before=lambda step: None):
    """steps: a (weight, gradient) for each."""
    for step, (weight, gradient) in enumerate(steps):
        before(step)
        with torch.no_grad():
            model.w0.copy_(weight)
        model.w0.grad = gradient.clone()
        optimizer.step()


class TestRunning:
    # |w| or |w·g| in three steps; halved at every step their averages are
    # 1.0 2.0 0.875 1.75 2.625 3.5 4.375 5.25
    SEEN = torch.tensor(
        [
            [8.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
            [0.0, -8.0, 1.0, 2.0, 3.0, -4.0, 5.0, 6.0],
            [0.0, 0.0, -1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
        ]
    )

    @pytest.fixture
    def dropped(self, weights):
        def run(score, steps, **options):
            model = weights([(1, 8)])
            optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
            options = {"density": 5 / 8, "stop_at": 3} | options
            method = regrow.Dynamic(
                drop=score, drop_fraction=0.0, initial_density=1.0, update_every=3, **options
            )
            sparse = regrow.sparsify(model, optimizer, method, total_steps=9, include="*")
            run_by_hand(model, optimizer, steps)
            return (~sparse.masks["w0"]).flatten().nonzero().flatten().tolist()

        return run

    @pytest.mark.parametrize(
        ("score", "gone"),
        [
            (Magnitude(), [0, 1, 2]),
            (Running(Magnitude(), beta=0.5), [0, 2, 3]),
            (Running(Magnitude(), beta=0.0), [0, 1, 2]),
        ],
        ids=repr,
    )
    def test_magnitude(self, dropped, score, gone):
        assert dropped(score, [(row, torch.zeros(1, 8)) for row in self.SEEN.unsqueeze(1)]) == gone

    @pytest.mark.parametrize(
        ("score", "gone"),
        [
            (WeightTimesGradient(), [0, 1, 2]),
            (Running(WeightTimesGradient(), beta=0.5), [0, 2, 3]),
            (Running(WeightTimesGradient(), beta=0.0), [0, 1, 2]),
        ],
        ids=repr,
    )
    def test_weight_times_gradient(self, dropped, score, gone):
        ones = torch.ones(1, 8)
        assert dropped(score, [(ones, row) for row in self.SEEN.unsqueeze(1)]) == gone

    def test_starts_again_after_an_update(self, dropped):
        """Seen over all six steps the second weight would be worth less than the fifth."""
        zero = torch.zeros(1, 8)
        first = [(row, zero) for row in self.SEEN.unsqueeze(1)]
        late = torch.tensor([[0.0, 5.6, 0.0, 0.0, 5.5, 9.0, 9.0, 9.0]])
        found = dropped(
            Running(Magnitude(), beta=0.99),
            [*first, *[(late, zero)] * 3],
            stop_at=6,
            density=4 / 8,
            density_path=lambda progress: 0.25 if progress < 1 else 0.0,
        )
        assert found == [0, 2, 3, 4]

    def test_average_of_gradients_is_taken_with_their_signs(self, weights):
        """Averages .5·g₃ + .25·g₂ + .125·g₁ of the last four: -.5, .875, .75, .8."""
        gradients = torch.zeros(3, 1, 8)
        gradients[:, 0, 4:] = torch.tensor(
            [[4.0, 1.0, 0.0, 6.4], [-4.0, 1.0, 0.0, 0.0], [0.0, 1.0, 1.5, 0.0]]
        )
        grown = {}
        for score in (AverageGradient(beta=0.5), Gradient()):
            model = weights([(1, 8)])
            optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
            method = regrow.Dynamic(
                density=6 / 8,
                initial_density=4 / 8,
                grow=score,
                drop_fraction=0.0,
                update_every=3,
                stop_at=3,
                start=FirstFour(),
            )
            sparse = regrow.sparsify(model, optimizer, method, total_steps=9, include="*")
            run_by_hand(model, optimizer, [(torch.ones(1, 8), g) for g in gradients])
            grown[type(score)] = sparse.masks["w0"].flatten().nonzero().flatten().tolist()
        assert grown[AverageGradient] == [0, 1, 2, 3, 5, 7]
        assert grown[Gradient] == [0, 1, 2, 3, 5, 6]

    @pytest.mark.parametrize("make", [AverageGradient, lambda beta: Running(Magnitude(), beta)])
    def test_a_beta_that_is_no_number_is_refused(self, make):
        with pytest.raises(TypeError, match=r"beta='x': int or float is needed, such as 0\.9"):
            make("x")

    @pytest.mark.parametrize("beta", [1.0, -0.1, math.nan])
    @pytest.mark.parametrize("make", [AverageGradient, lambda beta: Running(Magnitude(), beta)])
    def test_a_beta_outside_its_range_is_refused(self, make, beta):
        with pytest.raises(ValueError, match=rf"beta={beta}: must lie in \[0, 1\)"):
            make(beta)

    def test_an_average_of_an_average_is_refused(self):
        with pytest.raises(ValueError, match="is a running average already"):
            Running(AverageGradient())


class FirstFour(regrow.engine.saliency.Start):
    """Start with the first four weights."""

    def scores(self, model, names):
        return {name: -torch.arange(8.0).reshape(1, 8) for name in names}


AVERAGED = [
    Magnitude(),
    SignedMagnitude(),
    LegacySign(),
    Random(),
    MagnitudePlusGradient(),
    WeightTimesGradient(),
    Sensitivity(),
    GradientStep(),
    RelativeImportance(),
    Soft(Magnitude()),
    Momentum(),
    LinkPrediction("CH2", by="node"),
]


@pytest.mark.parametrize("score", AVERAGED, ids=repr)
def test_the_average_of_what_never_changes_chooses_as_the_score_itself(weights, score):
    """Or it is refused: an average may not silently choose by another rule."""
    try:
        running = Running(score)
    except ValueError:
        return
    masks = []
    for drop in (score, running):
        model = weights([(6, 8)])
        weight, gradient = model.w0.detach().clone(), torch.linspace(-2, 1, 48).reshape(6, 8)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)
        method = regrow.Dynamic(density=0.5, drop=drop, grow=Random(), update_every=3, stop_at=1.0)
        sparse = regrow.sparsify(model, optimizer, method, total_steps=9, include="*")
        first = sparse.masks["w0"]
        run_by_hand(model, optimizer, [(weight * first, gradient)] * 3)
        assert len(sparse.history) == 1
        masks.append(sparse.masks["w0"])
    assert masks[0].equal(masks[1])


@pytest.mark.parametrize("score", [Running(Gradient()), AverageGradient()], ids=repr)
class TestGrowingByAnAverage:
    def method(self, score, **options):
        return regrow.RigL(density=0.4, grow=score, update_every=4, stop_at=1.0, **options)

    def test_a_layer_that_takes_no_part_is_skipped(self, mlp, batch, score):
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        sparse = regrow.sparsify(model, optimizer, self.method(score), total_steps=40)
        before = sparse.masks["2.weight"]
        for step in range(9):
            optimizer.zero_grad()
            model[0](batch(step)[0]).square().sum().backward()
            optimizer.step()
        assert [list(update.layers) for update in sparse.history] == [["0.weight"]] * 2
        assert sparse.masks["2.weight"].equal(before)

    def test_an_update_before_anything_was_seen_is_refused_with_the_reason(self, mlp, score):
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        sparse = regrow.sparsify(model, optimizer, self.method(score), total_steps=40)
        with pytest.raises(RuntimeError, match="average"):
            sparse.update_()

    @pytest.mark.parametrize("fused", [True, False])
    def test_the_loss_scale_of_the_step_that_is_replaced_is_taken_out(
        self, mlp, batch, score, fused
    ):
        """An update is decided by the average of four gradients, one of them of a replaced step."""
        masks = []
        for scaled in (True, False):
            model = mlp()
            optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, fused=fused)
            sparse = regrow.sparsify(model, optimizer, self.method(score), total_steps=40)
            scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16, enabled=scaled)
            for step in range(8):
                inputs, labels = batch(step)
                optimizer.zero_grad()
                loss = functional.cross_entropy(model(inputs), labels)
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
            assert [update.step for update in sparse.history] == [4, 8]
            masks.append(sparse.masks)
        assert all(mask.equal(masks[1][name]) for name, mask in masks[0].items())


class TestSoft:
    WEIGHT = torch.tensor([[1.0, 2.0, 3.0, 4.0]])

    def test_one_is_kept_in_proportion_to_its_score(self, p_value):
        """Three of four go; the fourth is drawn with probability w/10, or w³/100 at the end."""
        everyone, draws = torch.ones(1, 4, dtype=torch.bool), 3000
        for progress, expected in ((0.0, [1, 2, 3, 4]), (1.0, [1, 8, 27, 64])):
            worth = Soft(Magnitude()).worth(Signals(self.WEIGHT, progress=progress))
            generator = seeded_generator("soft")
            kept = sum(
                (~Soft(Magnitude()).lowest(worth, 3, everyone, 4, generator)).long().flatten()
                for _ in range(draws)
            )
            shares = torch.tensor(expected, dtype=torch.float64)
            assert p_value(kept, draws * shares / shares.sum()) > 1e-3

    def test_two_are_kept_as_by_drawing_twice_without_return(self, p_value):
        everyone, draws = torch.ones(1, 4, dtype=torch.bool), 3000
        worth = Soft(Magnitude()).worth(Signals(self.WEIGHT))
        generator, share = seeded_generator("soft"), (self.WEIGHT / 10).flatten().tolist()
        found = torch.zeros(6)
        pairs = [(i, j) for i in range(4) for j in range(i + 1, 4)]
        for _ in range(draws):
            kept = ~Soft(Magnitude()).lowest(worth, 2, everyone, 4, generator)
            found[pairs.index(tuple(kept.flatten().nonzero().flatten().tolist()))] += 1
        expected = torch.tensor(
            [share[i] * share[j] * (1 / (1 - share[i]) + 1 / (1 - share[j])) for i, j in pairs]
        )
        assert expected.sum() == pytest.approx(1.0)
        assert p_value(found, draws * expected) > 1e-3

    def test_a_zero_goes_before_all_others(self, choose):
        weight = torch.tensor([[0.0, 1e-6, 5.0, 0.0, -2.0, 1e-3, 3.0, 0.0]])
        for seed in range(20):
            assert choose(Soft(Magnitude()), "drop", 3, weight=weight, seed=seed) == [0, 3, 7]


@pytest.mark.parametrize("kind", [GradientStep, MagnitudePlusGradient])
@pytest.mark.parametrize("gamma", [math.nan, math.inf, "x", None, True])
def test_a_gamma_that_is_no_finite_number_is_refused(kind, gamma):
    with pytest.raises((TypeError, ValueError), match=rf"gamma={gamma!r}"):
        kind(gamma)
