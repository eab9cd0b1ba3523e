"""SRigL against its rule spelled out in loops: constant fan-in, and neurons that come and go."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import regrow
from regrow.engine.allocation import Uniform
from regrow.engine.patterns import NM, Element, FanIn
from regrow.engine.scores import Random, SignedMagnitude
from regrow.engine.selection import seeded_generator
from regrow.engine.update import Moves


def by_the_rule(weight, active, gradient, exchange, budget, gamma, spared):
    """One update in plain loops: (rows × inputs) lists of 0 and 1."""
    rows, inputs = active.shape
    places = [(r, c) for r in range(rows) for c in range(inputs)]
    ours = [p for p in places if active[p]]
    largest = sorted(ours, key=lambda p: (-abs(float(weight[p])), -p[0], -p[1]))
    # Of equal weights the first goes first.
    kept = set(largest[: len(ours) - exchange])
    by_gradient = sorted(places, key=lambda p: (-abs(float(gradient[p])), p))
    salient = kept | set(by_gradient[:exchange])
    counts = [sum((r, c) in salient for c in range(inputs)) for r in range(rows)]
    left = list(range(rows))
    if not spared:
        threshold = max(1, int(gamma * (budget // rows)))
        needed = -(-budget // inputs)
        threshold = min(threshold, sorted(counts, reverse=True)[needed - 1])
        left = [r for r in range(rows) if counts[r] >= threshold]
    fan_in = budget // len(left)
    mask = torch.zeros(rows, inputs, dtype=torch.bool)
    for r in left:
        row = sorted(
            ((r, c) for c in range(inputs) if (r, c) in kept),
            key=lambda p: (-abs(float(weight[p])), p),
        )[:fan_in]
        others = [p for p in by_gradient if p[0] == r and p not in row]
        for p in row + others[: fan_in - len(row)]:
            mask[p] = True
    return mask


@pytest.fixture(scope="module")
def proposed(layer, proposal):
    def propose(weight, gradient, exchange, budget, active=None, last=False, **options):
        active = weight != 0 if active is None else active
        n = int(active.sum())
        masked = layer(tuple(weight.shape), n, FanIn(), mask=active, final=budget, last=last)
        signals = {"w": {"weight": weight, "gradient": gradient}}
        method = regrow.SRigL(density=0.5, **options)
        return proposal(method, [masked], signals, {"w": Moves(exchange=exchange)})["w"]

    return propose


class TestByHand:
    weight = torch.tensor([[5.0, 4.0, 0.0, 0.0], [-3.0, 0.0, 2.0, 0.0], [0.2, -0.1, 0.0, 0.0]])
    gradient = torch.tensor([[0.0, 0.0, 9.0, 1.0], [0.0, 1.0, 0.0, -8.0], [1.0, 2.0, 3.0, 4.0]])

    def test_a_neuron_without_anything_salient_goes_and_its_fan_in_is_dealt_out(self, proposed):
        """Both of the third neuron's weights go; the two largest gradients are elsewhere."""
        found = proposed(self.weight, self.gradient, exchange=2, budget=6)
        assert found.int().tolist() == [[1, 1, 1, 0], [1, 0, 1, 1], [0, 0, 0, 0]]

    @pytest.mark.parametrize("options", [{"last": True}, {"gamma": 0.0, "exchange": 1}])
    def test_it_stays_in_the_last_layer_and_while_one_weight_of_it_does(self, proposed, options):
        """It then grows where its own gradients are largest."""
        options = {"exchange": 2} | options
        found = proposed(self.weight, self.gradient, budget=6, **options)
        third = [0, 0, 1, 1] if options["exchange"] == 2 else [1, 0, 0, 1]
        assert found.int().tolist() == [[1, 1, 0, 0], [1, 0, 1, 0], third]

    def test_the_last_layer_is_not_spared_if_told_to(self, proposed):
        found = proposed(
            self.weight, self.gradient, exchange=2, budget=6, last=True, ablate_last=True
        )
        assert not found[2].any()

    def test_never_so_many_go_that_the_others_could_not_hold_the_weights(self, proposed):
        """The first neuron has all that is salient, but room for four of six."""
        gradient = torch.tensor([[9.0] * 4, [0.0] * 4, [0.0] * 4])
        found = proposed(self.weight, gradient, exchange=4, budget=6, gamma=1.0)
        assert found.sum(1).tolist() == [2, 2, 2]

    def test_an_ablated_neuron_comes_back_when_gradients_call_it(self, proposed):
        active = torch.tensor([[1, 1, 1, 0], [1, 0, 1, 1], [0, 0, 0, 0]]).bool()
        weight = active * torch.tensor([[5.0, 4.0, 0.5, 0.0], [3.0, 0.0, 2.0, 1.0], [0.0] * 4])
        gradient = torch.tensor([[0.0] * 4, [0.0] * 4, [1.0, 2.0, 3.0, 4.0]])
        found = proposed(weight, gradient, exchange=1, budget=6, active=active)
        # Three neurons of two: the others are cut down to their largest.
        assert found.int().tolist() == [[1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 1, 1]]


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 6),
    st.integers(1, 6),
    st.data(),
    st.floats(0, 1),
    st.booleans(),
    st.sampled_from(["normal", "signs", "equal"]),
)
def test_every_update_is_that_of_the_rule(
    filled, proposed, rows, inputs, data, gamma, spared, kind
):
    fan_in = data.draw(st.integers(1, inputs))
    left = data.draw(st.integers(-(-rows * fan_in // inputs), rows))
    now = rows * fan_in // left
    keys = torch.rand(rows, inputs, generator=seeded_generator(data.draw(st.integers(0, 99))))
    active = keys.argsort(1).argsort(1) < now
    active[left:] = False
    weight = filled((rows, inputs), kind) * active
    gradient = filled((rows, inputs), kind, seed=1)
    exchange = data.draw(st.integers(0, int(active.sum())))
    found = proposed(
        weight, gradient, exchange, rows * fan_in, active=active, last=spared, gamma=gamma
    )
    expected = by_the_rule(weight, active, gradient, exchange, rows * fan_in, gamma, spared)
    counts = found.sum(1)
    assert counts[counts > 0].unique().numel() == 1
    assert rows * fan_in - int((counts > 0).sum()) < int(counts.sum()) <= rows * fan_in
    assert not spared or (counts == fan_in).all()
    if kind == "normal":
        assert found.equal(expected)
    else:
        assert counts.tolist() == expected.sum(1).tolist()


class TestInTraining:
    @pytest.fixture
    def run(self, weights, filled):
        """run(pulled): the alive neurons after each update; gradients pull these rows."""

        def train(pulled, **options):
            model = weights([(6, 8), (6, 8)])
            with torch.no_grad():
                model.w0[4:] *= 1e-3
                model.w1[4:] *= 1e-3
            optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
            method = regrow.SRigL(
                density=0.25, allocation=Uniform(), update_every=1, stop_at=1.0, **options
            )
            sparse = regrow.sparsify(model, optimizer, method, total_steps=100, include="*")
            alive = []
            for step, rows in enumerate(pulled):
                for weight in model.parameters():
                    weight.grad = torch.zeros(6, 8)
                    weight.grad[rows] = filled((6, 8), seed=step)[rows]
                optimizer.step()
                alive.append({name: mask.any(1).tolist() for name, mask in sparse.masks.items()})
            return alive, sparse, model

        return train

    def test_neurons_go_and_come_back_and_the_last_layer_keeps_all(self, run):
        upper, lower = slice(0, 4), slice(4, 6)
        alive, sparse, model = run([upper, upper, lower, lower], drop_fraction=0.5)
        assert [step["w0"] for step in alive[:2]] == [[True] * 4 + [False] * 2] * 2
        assert alive[2]["w0"] == [True] * 6
        assert all(all(step["w1"]) for step in alive)
        assert [u.layers["w0"].active for u in sparse.history] == [12, 12, 12, 12]
        assert not model.w0[~sparse.masks["w0"]].any()

    def test_the_fan_in_is_dealt_out_anew_each_time(self, run):
        _, sparse, _ = run([slice(0, 4)], drop_fraction=0.5)
        assert sparse.masks["w0"].sum(1).tolist() == [3, 3, 3, 3, 0, 0]
        _, sparse, _ = run([slice(0, 4), slice(4, 6)], drop_fraction=0.5)
        assert sparse.masks["w0"].sum(1).tolist() == [2] * 6

    def test_a_bias_outlives_its_neuron(self, mlp, train):
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        method = regrow.SRigL(density=0.25, update_every=2, gamma=1.0, drop_fraction=0.5)
        sparse = regrow.sparsify(model, optimizer, method, total_steps=40)
        train(model, optimizer, range(20))
        dead = ~sparse.masks["0.weight"].any(1)
        assert dead.any()
        assert model[0].bias[dead].all()
        assert sparse.masks["2.weight"].any(1).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": 1.5}, r"gamma=1\.5: must lie in 0\.\.1"),
        ({"gamma": -0.1}, "gamma=-0.1"),
        ({"pattern": Element()}, r"pattern=Element\(\): SRigL needs FanIn\(\)"),
        ({"pattern": NM(1, 10)}, "SRigL needs FanIn"),
        ({"initial_density": 0.5}, "equally many units in every group"),
        ({"redistribute": "gradient"}, "equally many units in every group"),
        ({"regrow_dropped": False}, "equally many units in every group"),
    ],
)
def test_what_does_not_go_together_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        regrow.SRigL(density=0.1, **options)


@pytest.mark.parametrize("role", ["drop", "grow"])
def test_other_scores_choose_by_their_own_rule_or_are_refused(proposed, role):
    """Random scores, all zero, must not come down to the first in order."""
    try:
        regrow.SRigL(density=0.5, **{role: Random()})
    except ValueError:
        return
    weight = torch.ones(4, 8) * (torch.arange(8) < 4)
    found = proposed(weight, torch.ones(4, 8), 8, 16, last=True, **{role: Random()})
    masks = [found[row] for row in range(4)]
    assert not all(mask.equal(masks[0]) for mask in masks)


def test_the_sign_rule_drops_small_weights_of_each_sign_or_is_refused(proposed):
    try:
        regrow.SRigL(density=0.5, drop=SignedMagnitude())
    except ValueError:
        return
    weight = torch.tensor([[-9.0, 1.0, 0.0, 0.0], [8.0, -0.5, 0.0, 0.0]])
    gradient = 1.0 - (weight != 0).float()
    found = proposed(weight, gradient, 2, 4, last=True, drop=SignedMagnitude())
    assert found[0, 0]
    assert found[1, 0]
