"""Starts: the scores against autograd, what is kept, and that the model is left as it was."""

from __future__ import annotations

import copy
import dataclasses
import math

import pytest
import torch
from torch import nn
from torch.nn import functional

import regrow
from regrow.engine import saliency
from regrow.engine.allocation import ERK, Uniform
from regrow.engine.patterns import NM, Channel, FanIn, Kernel
from regrow.engine.saliency import Grasp, LargestWeights, Snip, SynapticFlow
from regrow.engine.selection import top_k

NAMES = ["0.weight", "2.weight"]


def tiny():
    """Few enough weights for a full Hessian; float64."""
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def tiny_loss(model):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(12, 4, generator=generator).to(model[0].weight.dtype)
    labels = torch.randint(3, (12,), generator=generator)
    return functional.cross_entropy(model(inputs), labels)


def begin(model, method, **options):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return regrow.sparsify(model, optimizer, method, total_steps=20, **options)


def counts(sparse):
    return [int(mask.sum()) for mask in sparse.masks.values()]


class TestScores:
    def test_snip_is_the_first_order_change_of_the_loss(self):
        model = tiny()
        scores = Snip(loss=tiny_loss).scores(model, NAMES)
        gradients = torch.autograd.grad(tiny_loss(model), [model[0].weight, model[2].weight])
        for name, gradient in zip(NAMES, gradients, strict=True):
            assert scores[name].equal((model.get_parameter(name) * gradient).abs())

    def test_grasp_equals_the_full_hessian(self):
        """w·(Hg), H over the sparse weights; the largest are kept."""
        model = tiny()
        weights = [model[0].weight, model[2].weight]
        flat = torch.cat([weight.detach().flatten() for weight in weights])

        def loss(vector):
            parts = vector.split([weight.numel() for weight in weights])
            named = {n: p.reshape(w.shape) for n, p, w in zip(NAMES, parts, weights, strict=True)}
            return tiny_loss(Called(model, named))

        hessian = torch.autograd.functional.hessian(loss, flat)
        gradient = torch.autograd.functional.jacobian(loss, flat)
        expected = flat * (hessian @ gradient)
        scores = Grasp(loss=tiny_loss).scores(model, NAMES)
        found = torch.cat([scores[name].detach().flatten() for name in NAMES])
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-14)
        sparse = begin(model, regrow.GraSP(density=0.4, loss=tiny_loss))
        kept = torch.cat([mask.flatten() for mask in sparse.masks.values()])
        assert kept.equal(top_k(expected, 14))

    def test_synflow_is_the_flow_of_magnitudes(self):
        """|w| times the sum over all paths through it, from an input of ones; R = 1ᵀΠ|W|1.

        A bias would let flow begin in the middle, and the first layers would be cut off.
        """
        model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)).double()
        start = SynapticFlow(inputs=torch.zeros(7, 2), rounds=1)
        scores = start.scores(copy.deepcopy(model), NAMES)
        first, second = model[0].weight.detach().abs(), model[2].weight.detach().abs()
        torch.testing.assert_close(scores[NAMES[0]], first * second.sum(0).unsqueeze(1))
        torch.testing.assert_close(scores[NAMES[1]], second * first.sum(1))


class Called(nn.Module):
    """A model with some weights given from outside."""

    def __init__(self, model, weights):
        super().__init__()
        self.model, self.weights = [model], weights

    def __getitem__(self, place):
        return self.model[0][place]

    def forward(self, inputs):
        return torch.func.functional_call(self.model[0], self.weights, inputs)


class TestScopes:
    @pytest.fixture
    def model(self):
        """The second layer has the smaller weights."""
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(10, 10), nn.ReLU(), nn.Linear(10, 10))
        with torch.no_grad():
            model[2].weight *= 0.7
        return model

    def test_global_keeps_the_best_of_all_layers_together(self, model):
        magnitudes = [model[0].weight.detach().abs(), model[2].weight.detach().abs()]
        sparse = begin(model, regrow.OMP(density=0.3))
        lowest_kept = min(
            float(m[k].min()) for m, k in zip(magnitudes, sparse.masks.values(), strict=True)
        )
        highest_gone = max(
            float(m[~k].max()) for m, k in zip(magnitudes, sparse.masks.values(), strict=True)
        )
        assert lowest_kept >= highest_gone
        assert sum(counts(sparse)) == 60
        assert counts(sparse)[0] > counts(sparse)[1]

    @pytest.mark.parametrize("allocation", [Uniform(), ERK()])
    def test_layer_keeps_the_best_of_each_layer_as_many_as_allocated(self, model, allocation):
        magnitudes = {name: model.get_parameter(name).abs() for name in NAMES}
        sparse = begin(model, regrow.OMP(density=0.3, scope="layer", allocation=allocation))
        assert counts(sparse) == [30, 30]
        for name, mask in sparse.masks.items():
            assert mask.equal(top_k(magnitudes[name], 30))

    def test_ratios_keep_as_many_as_global_but_drawn_at_random(self, model):
        chosen = begin(copy.deepcopy(model), regrow.OMP(density=0.3))
        drawn = [
            begin(copy.deepcopy(model), regrow.OMP(density=0.3, scope="ratios"), seed=seed)
            for seed in (0, 0, 1)
        ]
        assert all(counts(sparse) == counts(chosen) for sparse in drawn)
        first = [sparse.masks["0.weight"] for sparse in (chosen, *drawn)]
        assert first[1].equal(first[2])
        assert not first[1].equal(first[0])
        assert not first[1].equal(first[3])

    def test_no_layer_is_left_without_a_weight(self, model):
        with torch.no_grad():
            model[2].weight *= 1e-6
        assert counts(begin(model, regrow.OMP(density=0.02))) == [3, 1]

    def test_the_plan_says_what_was_chosen(self, model):
        sparse = begin(model, regrow.OMP(density=0.3))
        assert [layer.initial for layer in sparse.plan.layers] == counts(sparse)
        assert [layer.final for layer in sparse.plan.layers] == counts(sparse)

    @pytest.mark.parametrize("pattern", [Kernel(), Channel()])
    def test_units_of_several_weights_are_chosen_whole(self, pattern):
        model = nn.Sequential(nn.Conv2d(2, 6, 3), nn.Flatten(), nn.Linear(6, 4))
        magnitudes = pattern.reduce(model[0].weight.detach().abs())
        sparse = begin(model, regrow.OMP(density=0.5, scope="layer", pattern=pattern))
        (layer, _) = sparse.plan.layers
        expected = pattern.expand(top_k(magnitudes, layer.final), layer.shape)
        assert sparse.masks["0.weight"].equal(expected)

    @pytest.mark.parametrize(
        "make", [regrow.OMP, lambda **options: regrow.SNIP(loss=tiny_loss, **options)]
    )
    def test_refuses_other_scopes_and_patterns_with_groups(self, make):
        with pytest.raises(ValueError, match=r"scope='all': must be 'global', 'layer' or 'ratios'"):
            make(density=0.5, scope="all")
        for pattern in (FanIn(), NM(2, 4)):
            with pytest.raises(ValueError, match="which scope='layer' does"):
                make(density=0.5, pattern=pattern)
            assert make(density=0.5, pattern=pattern, scope="layer").start.scope == "layer"

    @pytest.mark.parametrize("pattern", [FanIn(), NM(2, 4)])
    def test_layer_by_layer_groups_keep_their_best(self, pattern):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
        weights = {name: model.get_parameter(name).detach().clone() for name in NAMES}
        options = {"density": 0.5, "scope": "layer", "pattern": pattern, "allocation": Uniform()}
        sparse = begin(model, regrow.OMP(**options))
        for name, mask in sparse.masks.items():
            size = pattern.group(tuple(mask.shape))
            rows, kept = weights[name].abs().reshape(-1, size), mask.reshape(-1, size)
            for row, own in zip(rows, kept, strict=True):
                assert row[own].min() > row[~own].max()
                assert int(own.sum()) == size // 2
        sparse.remove()
        flow = regrow.SynFlow(inputs=torch.zeros(1, 8), rounds=3, **options)
        sparse = begin(model, flow)
        assert all(pattern.allows(mask) for mask in sparse.masks.values())
        assert counts(sparse) == [32, 16]


class TestSynFlow:
    @pytest.fixture
    def deep(self):
        """Six layers, the middle one with weights a thousand times smaller."""
        torch.manual_seed(0)
        model = nn.Sequential(*(m for _ in range(6) for m in (nn.Linear(20, 20), nn.ReLU())))
        with torch.no_grad():
            model[4].weight *= 1e-3
        return model

    @staticmethod
    def flow(model, sparse):
        """How many paths lead from inputs to outputs."""
        paths = torch.ones(1, 20, dtype=torch.float64)
        for mask in sparse.masks.values():
            paths = paths @ mask.double().T
        return float(paths.sum())

    def test_stays_connected_where_magnitude_over_all_layers_collapses(self, deep):
        density = 0.02
        inputs = torch.zeros(1, 20)
        flowing = begin(copy.deepcopy(deep), regrow.SynFlow(density=density, inputs=inputs))
        collapsed = begin(copy.deepcopy(deep), regrow.OMP(density=density))
        assert sum(counts(flowing)) == sum(counts(collapsed)) == 48
        assert self.flow(deep, flowing) > 0
        assert self.flow(deep, collapsed) == 0
        assert min(counts(collapsed)) == 1 < min(counts(flowing))

    def test_rounds_matter(self, deep):
        inputs = torch.zeros(1, 20)
        runs = {
            rounds: begin(
                copy.deepcopy(deep), regrow.SynFlow(density=0.05, inputs=inputs, rounds=rounds)
            )
            for rounds in (1, 100)
        }
        assert sum(counts(runs[1])) == sum(counts(runs[100])) == 120
        one, many = (run.masks for run in runs.values())
        assert not all(one[name].equal(mask) for name, mask in many.items())
        # All at once a layer may be left with nothing but the one weight that is guaranteed.
        assert min(counts(runs[100])) > min(counts(runs[1]))

    def test_neither_signs_of_weights_nor_the_inputs_play_a_part(self, deep):
        signs = copy.deepcopy(deep)
        with torch.no_grad():
            for parameter in signs.parameters():
                parameter.mul_(torch.randn(parameter.shape).sign())
        runs = [
            begin(model, regrow.SynFlow(density=0.05, inputs=inputs, rounds=5)).masks
            for model, inputs in (
                (copy.deepcopy(deep), torch.zeros(1, 20)),
                (copy.deepcopy(deep), torch.randn(3, 20)),
                (signs, torch.full((2, 20), torch.nan)),
            )
        ]
        for other in runs[1:]:
            assert all(mask.equal(other[name]) for name, mask in runs[0].items())

    def test_a_round_is_needed(self, deep):
        with pytest.raises(ValueError, match="rounds=0: must be at least 1"):
            begin(deep, regrow.SynFlow(density=0.1, inputs=torch.zeros(1, 20), rounds=0))


class TestTickets:
    def test_the_mask_is_of_the_trained_weights_the_values_of_the_first(self, mlp, train):
        first, trained = mlp(), mlp()
        train(trained, torch.optim.Adam(trained.parameters(), lr=0.05), range(20))
        model = copy.deepcopy(first)
        method = regrow.LTH(density=0.2, trained=trained.state_dict(), scope="layer")
        sparse = begin(model, method)
        for layer in sparse.plan.layers:
            mask = sparse.masks[layer.name]
            assert mask.equal(top_k(trained.get_parameter(layer.name).abs(), layer.final))
            assert not mask.equal(top_k(first.get_parameter(layer.name).abs(), layer.final))
            weight = model.get_parameter(layer.name)
            assert weight.equal(first.get_parameter(layer.name) * mask)

    def test_tickets_of_tickets_are_nested(self, mlp, train):
        """Iterative pruning: the trained ticket's zeros stay zero."""
        first = mlp()
        trained = {name: value.clone() for name, value in first.state_dict().items()}
        before = None
        for density in (0.8, 0.64, 0.512):
            model = copy.deepcopy(first)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            method = regrow.LTH(density=density, trained=trained)
            sparse = regrow.sparsify(model, optimizer, method, total_steps=20)
            train(model, optimizer, range(5))
            masks = sparse.masks
            assert before is None or not any((m & ~before[n]).any() for n, m in masks.items())
            before, trained = masks, copy.deepcopy(model.state_dict())
            sparse.remove()
        assert sum(int(mask.sum()) for mask in before.values()) == math.floor(0.512 * 320 + 0.5)

    def test_a_missing_weight_is_named(self, mlp):
        trained = mlp().state_dict()
        del trained["2.weight"]
        model = mlp()
        with pytest.raises(ValueError, match=r"trained has no 2\.weight"):
            begin(model, regrow.LTH(density=0.2, trained=trained))
        assert model[0].weight.all()


def everything(model):
    return copy.deepcopy(
        (
            model.state_dict(),
            [parameter.grad for parameter in model.parameters()],
            [module.training for module in model.modules()],
            torch.get_rng_state(),
        )
    )


def net():
    """What a scoring pass could disturb: batch statistics, dropout, a module in eval mode."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3)
    )
    model[1].running_mean += 0.5
    model[3].eval()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    return model


def net_loss(model):
    torch.rand(1)
    return model(torch.linspace(-1, 1, 24).reshape(4, 6)).square().mean()


STARTS = {
    "SNIP": Snip(loss=net_loss),
    "GraSP": Grasp(loss=net_loss),
    "SynFlow": SynapticFlow(inputs=torch.zeros(1, 6), rounds=3),
    "OMP": LargestWeights(),
    "LTH": LargestWeights(trained=net().state_dict()),
}


@pytest.mark.parametrize("name", STARTS)
class TestTheModel:
    def test_is_left_as_it_was_but_for_the_weights_outside_the_mask(self, name, assert_same):
        model = net()
        before = everything(model)
        sparse = begin(model, regrow.Static(density=0.4, start=STARTS[name]))
        for key, mask in sparse.masks.items():
            before[0][key] *= mask
        after = everything(model)
        if name in ("SNIP", "GraSP"):  # whose loss drew a number: the user's own doing
            before, after = before[:3], after[:3]
        assert_same(after, before)

    def test_may_have_starts_in_dynamic_methods_too(self, name):
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        method = regrow.RigL(density=0.4, start=STARTS[name], update_every=2)
        sparse = regrow.sparsify(model, optimizer, method, total_steps=20)
        first, sizes = sparse.masks, counts(sparse)
        for _ in range(8):
            optimizer.zero_grad()
            net_loss(model).backward()
            optimizer.step()
        assert counts(sparse) == sizes
        assert not all(mask.equal(first[key]) for key, mask in sparse.masks.items())

    def test_with_a_weight_that_is_no_number_is_refused_and_left_alone(self, name, assert_same):
        model = net()
        trained = model.state_dict() | {"4.weight": torch.full((3, 8), torch.nan)}
        start = STARTS[name]
        if name == "LTH":
            start = LargestWeights(trained=trained)
        else:
            model[4].weight.data.fill_(torch.nan)
        before = everything(model)
        with pytest.raises(FloatingPointError, match="weight"):
            begin(model, regrow.Static(density=0.4, start=start))
        assert_same(everything(model)[:3], before[:3])


# ---------------------------------------------------------------------- held weights


class TestAvailable:
    """Who is chosen is chosen among the free units, and as many as the plan says."""

    FREE = torch.arange(48).reshape(8, 6) % 2 == 0

    @pytest.mark.parametrize("scope", ["global", "layer", "ratios"])
    @pytest.mark.parametrize("name", STARTS)
    def test_units_alone_are_chosen_and_counted(self, name, scope):
        start = dataclasses.replace(STARTS[name], scope=scope)
        method = regrow.Static(density=0.4, start=start, allocation=Uniform())
        sparse = begin(net(), method, available={"0.weight": self.FREE})
        active = [layer.mask > 0 for layer in sparse._topology.layers]
        assert not (active[0] & ~self.FREE).any()
        found = [int(mask.sum()) for mask in active]
        assert found == [layer.initial for layer in sparse.plan.layers]
        assert found == [layer.active for layer in sparse._topology.layers]
        assert sum(found) == 19 + 10
        if scope == "layer":
            assert found == [19, 10]

    def test_the_best_of_the_free_ones_are_kept(self):
        model = net()
        magnitude = model[0].weight.detach().abs()
        method = regrow.OMP(density=0.4, scope="layer", allocation=Uniform())
        sparse = begin(model, method, available={"0.weight": self.FREE})
        mask = sparse._topology.layers[0].mask > 0
        assert mask.equal(top_k(magnitude, 19, self.FREE))

    def test_held_weights_go_on_carrying_the_flow(self):
        """The only path to the second output is held: what follows it is worth keeping."""
        model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
        with torch.no_grad():
            model[0].weight.copy_(torch.tensor([[1.0, 1.0], [9.0, 9.0]]))
            model[1].weight.fill_(1.0)
        available = {"0.weight": torch.tensor([[True, True], [False, False]])}
        method = regrow.SynFlow(density=0.5, inputs=torch.zeros(1, 2), rounds=20, scope="layer")
        sparse = begin(model, method, available=available)
        assert sparse.masks["1.weight"].tolist() == [[False, True], [False, True]]

    def test_a_layer_that_is_held_whole_is_refused(self):
        available = {"0.weight": torch.zeros(8, 6, dtype=torch.bool)}
        with pytest.raises(ValueError, match=r"no unit of 0\.weight is free: exclude it"):
            begin(net(), regrow.OMP(density=0.4), available=available)


# ---------------------------------------------------------------------- on several ranks


def half_loss(rank):
    """On this rank's half of the batch of tiny_loss."""

    def loss(model):
        generator = torch.Generator().manual_seed(0)
        inputs = torch.randn(12, 4, generator=generator).double().chunk(2)[rank]
        labels = torch.randint(3, (12,), generator=generator).chunk(2)[rank]
        return functional.cross_entropy(model(inputs), labels)

    return loss


def noisy_loss(rank):
    """With dropout, which no two ranks draw alike."""
    return lambda model: half_loss(rank)(nn.Sequential(*model, nn.Dropout(0.5)))


def methods_of(loss):
    inputs = torch.zeros(1, 4)
    for scope in ("global", "layer", "ratios"):
        yield f"SNIP {scope}", regrow.SNIP(density=0.4, loss=loss, scope=scope)
        yield f"GraSP {scope}", regrow.GraSP(density=0.4, loss=loss, scope=scope)
        yield f"SynFlow {scope}", regrow.SynFlow(density=0.4, inputs=inputs, rounds=5, scope=scope)


def choose_and_train(rank):
    """Masks and weights after three steps, with the model wrapped before the choice or after it."""
    torch.manual_seed(0)
    whole, found = tiny(), {}
    torch.manual_seed(rank)
    for when in ("before", "after", "noisy"):
        loss = noisy_loss(rank) if when == "noisy" else half_loss(rank)
        for name, method in methods_of(loss):
            model = copy.deepcopy(whole)
            if when != "after":
                model = nn.parallel.DistributedDataParallel(model)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            sparse = regrow.sparsify(model, optimizer, method, total_steps=20)
            if when == "after":
                model = nn.parallel.DistributedDataParallel(model)
            for _ in range(3):
                optimizer.zero_grad()
                half_loss(rank)(model).backward()
                optimizer.step()
            inner = model.module
            found[f"{when} {name}"] = {"masks": sparse.masks, "weights": dict(inner.state_dict())}
    return found


def choose_apart(rank):
    """Each rank its own weights, and no wrapper: two models, one on each."""
    torch.manual_seed(rank)
    model = tiny()
    alone = copy.deepcopy(model)
    masks = begin(model, regrow.SNIP(density=0.4, loss=half_loss(rank))).masks
    scores = Snip(loss=half_loss(rank)).scores(alone, NAMES)
    best = top_k(torch.cat([score.detach().flatten() for score in scores.values()]), 14)
    return {"chosen": torch.cat([mask.flatten() for mask in masks.values()]), "best": best}


@pytest.fixture(scope="module")
def found(two_ranks):
    return two_ranks(choose_and_train)


@pytest.mark.slow
class TestRanks:
    @pytest.mark.parametrize("when", ["before", "after", "noisy"])
    @pytest.mark.parametrize("name", [name for name, _ in methods_of(net_loss)])
    def test_that_see_different_batches_choose_and_train_one_network(
        self, found, assert_same, when, name
    ):
        one, other = (rank[f"{when} {name}"] for rank in found)
        assert_same(one, other)

    @pytest.mark.parametrize("when", ["before", "after"])
    def test_choose_what_one_process_chooses_on_the_batches_of_both(self, found, when):
        torch.manual_seed(0)
        model = tiny()
        for name, method in methods_of(tiny_loss):
            masks = begin(copy.deepcopy(model), method).masks
            for key, mask in found[0][f"{when} {name}"]["masks"].items():
                assert mask.equal(masks[key]), name

    def test_that_hold_different_models_choose_apart(self, two_ranks):
        one, other = two_ranks(choose_apart)
        for rank in (one, other):
            assert rank["chosen"].equal(rank["best"])
        assert not one["chosen"].equal(other["chosen"])


def test_a_trained_weight_of_another_shape_is_named():
    trained = net().state_dict() | {"4.weight": torch.ones(3, 3)}
    with pytest.raises(ValueError, match=r"trained\['4\.weight'\] has shape \(3, 3\).*\(3, 8\)"):
        begin(net(), regrow.LTH(density=0.4, trained=trained))


def test_what_is_no_start_is_refused():
    with pytest.raises(TypeError, match="start='snip'"):
        regrow.Static(density=0.1, start="snip")


def test_weights_that_take_no_part_in_the_loss_are_worth_nothing():
    model = nn.ModuleDict({"used": nn.Linear(4, 4), "unused": nn.Linear(4, 4)})
    loss = lambda model: model["used"](torch.ones(1, 4)).square().sum()  # noqa: E731
    sparse = begin(model, regrow.SNIP(density=0.5, loss=loss))
    assert counts(sparse) == [15, 1]


@pytest.mark.parametrize("scope", ["global", "ratios"])
def test_the_total_is_rounded_once(scope):
    """A density of .1 of 216 weights is 21.6, so 22; layer by layer it was three times 7."""
    torch.manual_seed(0)
    shapes = [(8, 9), (9, 8), (8, 9)]
    model = nn.Sequential(*(nn.Linear(i, o, bias=False) for i, o in shapes))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    method = regrow.OMP(density=0.1, allocation=Uniform(), scope=scope)
    sparse = regrow.sparsify(model, optimizer, method, total_steps=10)
    assert sum(int(mask.sum()) for mask in sparse.masks.values()) == 22


def test_every_round_of_synflow_keeps_the_density_it_says(monkeypatch):
    """In round r of n the density is d^(r/n) of the whole; under ERK it was that of the layers."""
    seen = []
    best = saliency._best_over_all
    monkeypatch.setattr(
        saliency, "_best_over_all", lambda worth, k: (seen.append(k), best(worth, k))[1]
    )
    model = nn.Sequential(nn.Linear(8, 40, bias=False), nn.Linear(40, 4, bias=False))
    total = 8 * 40 + 40 * 4
    method = regrow.SynFlow(density=0.1, inputs=torch.zeros(1, 8), rounds=10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    regrow.sparsify(model, optimizer, method, total_steps=10)
    assert seen == [math.ceil(total * 0.1 ** (r / 10)) for r in range(1, 10)] + [total // 10]
