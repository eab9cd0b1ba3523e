"""Movement of a topology: against closed forms, hand counts and naive path searches."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import regrow
from regrow.engine.criteria import Running, WeightTimesGradient
from regrow.engine.scores import Gradient, Magnitude, Random, SignedMagnitude, Unfired
from regrow.measure.movement import (
    churn,
    density_history,
    distance,
    exploration,
    jaccard,
    reachable,
    silent_units,
)


def run(method, steps, sizes=(64, 64, 64), seed=0):
    torch.manual_seed(seed)
    layers = [nn.Linear(a, b) for a, b in itertools.pairwise(sizes)]
    model = nn.Sequential(*layers)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    sparse = regrow.sparsify(model, optimizer, method, total_steps=steps, seed=seed)
    start = sparse.masks
    for _ in range(steps):
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
    return model, sparse, start


@pytest.mark.parametrize("regrow_dropped", [True, False])
def test_exploration_by_random_growth_follows_its_closed_form(regrow_dropped):
    """An inactive weight is grown with the same chance at every update, whatever came before."""
    d, rho, updates = 0.1, 0.3, 12
    method = regrow.RandomWalk(
        density=d,
        allocation=regrow.engine.allocation.Uniform(),
        drop_fraction=rho,
        update_every=1,
        stop_at=1.0,
        regrow_dropped=regrow_dropped,
    )
    _, sparse, _ = run(method, updates + 1, sizes=(200, 200, 200))
    chance = rho * d / (1 - d + rho * d) if regrow_dropped else rho * d / (1 - d)
    expected = 1 - (1 - d) * (1 - chance) ** updates
    found = exploration(sparse)
    assert len(sparse.history) == updates
    for rate in found.values():
        assert rate == pytest.approx(expected, abs=0.01)


def test_exploration_never_falls_and_is_what_was_ever_active():
    method = regrow.SET(density=0.2, update_every=1)
    torch.manual_seed(0)
    model = nn.Linear(16, 16)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparse = regrow.sparsify(model, optimizer, method, total_steps=20)
    ever, rates = sparse.masks["weight"], [exploration(sparse)["total"]]
    for _ in range(19):
        model.weight.grad = torch.randn_like(model.weight)
        optimizer.step()
        ever = ever | sparse.masks["weight"]
        rates.append(exploration(sparse)["total"])
        assert torch.equal(sparse.fired["weight"], ever)
    assert rates == sorted(rates)
    assert rates[-1] > rates[0]


masks = st.lists(st.booleans(), min_size=1, max_size=30).map(torch.tensor)


@given(masks)
def test_a_set_is_equal_to_itself_and_as_far_from_its_complement_as_can_be(mask):
    assert jaccard({"a": mask}, {"a": mask}) == {"a": 1.0, "total": 1.0}
    assert jaccard({"a": mask}, {"a": ~mask})["total"] == 0.0
    assert distance({"a": mask}, {"a": mask})["total"] == 0.0
    assert distance({"a": ~mask}, {"a": mask})["total"] == (1.0 if mask.any() else 0.0)


def test_two_random_choices_overlap_as_chance_has_it():
    torch.manual_seed(0)
    one, other = (torch.rand(2, 100_000) < 0.3).unbind()
    assert jaccard({"a": one}, {"a": other})["a"] == pytest.approx(0.3 / 1.7, abs=0.005)


def test_totals_weigh_layers_by_their_size():
    small, large = torch.tensor([True]), torch.tensor([True, True, False, False])
    one = {"s": small, "l": large}
    other = {"s": ~small, "l": large}
    assert jaccard(one, other) == {"s": 0.0, "l": 1.0, "total": 2 / 3}


def test_other_layers_are_refused():
    with pytest.raises(ValueError, match=r"layers differ.*'a'.*'b'"):
        jaccard({"a": torch.ones(1).bool()}, {"b": torch.ones(1).bool()})


class TestWouldDrop:
    def test_it_is_what_the_update_drops(self):
        model, sparse, _ = run(regrow.Static(density=0.3), 5)
        chosen = sparse.would_drop(Magnitude(), 0.25)
        for name, mask in sparse.masks.items():
            weight = model.get_parameter(name).detach().abs()
            k = int(0.25 * mask.sum())
            limit = weight[mask].sort().values[k - 1]
            assert torch.equal(chosen[name], mask & (weight <= limit))

    @pytest.mark.parametrize(
        "score", [Magnitude(), SignedMagnitude(), WeightTimesGradient(), Random(), Gradient()]
    )
    def test_it_changes_nothing_and_repeats_itself(self, score):
        model, sparse, _ = run(regrow.SET(density=0.3, update_every=2), 5)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        one, other = sparse.would_drop(score, 0.5), sparse.would_drop(score, 0.5)
        assert jaccard(one, other)["total"] == 1.0
        assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
        for name, mask in sparse.masks.items():
            assert not (one[name] & ~mask).any()
            assert int(one[name].sum()) == int(mask.sum()) // 2

    def test_criteria_that_agree_overlap_and_others_do_not(self):
        _, sparse, _ = run(regrow.Static(density=0.3), 5)
        magnitude = sparse.would_drop(Magnitude(), 0.3)
        signed = sparse.would_drop(SignedMagnitude(), 0.3)
        random = sparse.would_drop(Random(), 0.3)
        assert jaccard(magnitude, signed)["total"] > 0.8
        assert jaccard(magnitude, random)["total"] == pytest.approx(0.3 / 1.7, abs=0.05)

    def test_bad_questions_are_refused(self):
        model, sparse, _ = run(regrow.Static(density=0.3), 2)
        with pytest.raises(ValueError, match=r"fraction=1\.5"):
            sparse.would_drop(Magnitude(), 1.5)
        with pytest.raises(ValueError, match="running average"):
            sparse.would_drop(Running(Magnitude()), 0.5)
        with pytest.raises(ValueError, match=r"score=Unfired\(\): active weights are all worth"):
            sparse.would_drop(Unfired(), 0.5)
        model.zero_grad()
        with pytest.raises(RuntimeError, match=r"call backward\(\) first"):
            sparse.would_drop(Gradient(), 0.5)


def test_churn_and_distance_tell_how_far_the_topology_went():
    method = regrow.SET(density=0.2, update_every=2, regrow_dropped=False)
    _, sparse, start = run(method, 7)
    assert [step for step, _ in churn(sparse)] == [2, 4, 6]
    assert all(share == pytest.approx(0.3, abs=0.01) for _, share in churn(sparse))
    gone = distance(start, sparse.masks)["total"]
    assert 0.3 - 0.01 <= gone <= 1 - 0.7**3 + 0.01
    assert distance(start, start)["total"] == 0.0


def test_density_history_follows_a_density_that_falls():
    method = regrow.GMP(density=0.1, update_every=2, start_at=0, stop_at=8)
    _, sparse, _ = run(method, 10)
    history = density_history(sparse)
    assert [step for step, _ in history] == [0, 2, 4, 6, 8]
    values = [density["0.weight"] for _, density in history]
    assert values[0] == 1.0
    assert values == sorted(values, reverse=True)
    assert values[-1] == pytest.approx(float(sparse.masks["0.weight"].float().mean()))


def test_silent_units_are_rows_and_columns_without_weights():
    mask = torch.zeros(4, 3, 2, 2, dtype=torch.bool)
    mask[0, 0, 1, 1] = mask[2, 0, 0, 0] = True
    assert silent_units({"w": mask}) == {"w": (2, 2)}


@pytest.mark.parametrize("seed", range(5))
def test_reachable_weights_are_those_on_a_path(seed):
    """Against a search from both ends, layer by layer."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Linear(6, 7), nn.ReLU(), nn.LayerNorm(7), nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 4)
    )
    names = ["0.weight", "3.weight", "5.weight"]
    kept = {name: torch.rand_like(model.get_parameter(name)) < 0.25 for name in names}
    fed, needed = [torch.ones(6).bool()], [torch.ones(4).bool()]
    for name in names:
        fed.append((kept[name] & fed[-1]).any(1))
    for name in reversed(names):
        needed.insert(0, (kept[name] & needed[0].unsqueeze(1)).any(0))
    found = reachable(model, kept, torch.zeros(2, 6))
    for i, name in enumerate(names):
        expected = kept[name] & fed[i] & needed[i + 1].unsqueeze(1)
        assert torch.equal(found[name], expected)


def test_a_residual_keeps_reachable_what_a_chain_would_lose():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x):
            return self.b(x + torch.relu(self.a(x)))

    none, every = torch.zeros(3, 3).bool(), torch.ones(3, 3).bool()
    found = reachable(Residual(), {"a.weight": none, "b.weight": every}, torch.zeros(1, 3))
    assert torch.equal(found["b.weight"], every)


def test_looking_for_paths_leaves_the_model_alone():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    reachable(model, {"0.weight": torch.ones(4, 1, 3, 3).bool()}, torch.zeros(2, 1, 5, 5))
    assert model.training
    assert isinstance(model[1], nn.BatchNorm2d)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
