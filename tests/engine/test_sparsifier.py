"""The sparsifier: what a step costs, what faults leave behind, what is held, told and offered."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import regrow
from regrow.engine.allocation import Uniform

HALF = {"density": 0.5, "allocation": Uniform()}

# ---------------------------------------------------------------------- cost


class Recorder(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.calls = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.calls[str(function)] += 1
        return function(*args, **(kwargs or {}))


@pytest.fixture
def calls(networks, weights):
    """calls(method): the operations of an ordinary step on ResNet-50's 54 layers, made narrow."""
    shapes = [tuple(-(-n // 16) for n in s[:2]) + s[2:] for s in networks["resnet50"].values()]
    assert len(shapes) == 54

    def count(method=None):
        model = weights(shapes, "equal")
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for weight in model.parameters():
            weight.grad = torch.ones_like(weight)
        if method is not None:
            regrow.sparsify(model, optimizer, method, total_steps=2000, include="*")
            for _ in range(250):  # past the first updates of GMP, which starts dense
                optimizer.step()
        optimizer.step()
        with Recorder() as recorder:
            optimizer.step()
        return recorder.calls

    return count


@pytest.mark.parametrize("method", ["Static", "SET", "RigL", "GMP"])
def test_an_ordinary_step_costs_one_foreach_multiply_and_nothing_else(method, calls):
    options = {} if method == "Static" else {"update_every": 240, "start_at": 0, "stop_at": 1000}
    if method == "RigL":
        options["update_every"] = 300  # an update would need gradients
    with_masks, without = calls(regrow.METHODS[method](density=0.1, **options)), calls()
    assert with_masks - without == Counter({"aten._foreach_mul_.List": 1})
    assert not without - with_masks


def test_a_step_with_dense_layers_only_costs_nothing(calls):
    assert calls(regrow.Dense()) == calls()


# ---------------------------------------------------------------------- faults


class TestFaults:
    @pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
    @pytest.mark.parametrize("closure", [False, True])
    @pytest.mark.parametrize("replaces_step", [True, False])
    def test_a_bad_gradient_at_an_update_changes_nothing(
        self, before_update, train, snapshot, assert_same, bad, closure, replaces_step
    ):
        model, optimizer, sparse = before_update(torch.optim.Adam, replaces_step=replaces_step)
        before = snapshot(model, optimizer, sparse)
        masks = sparse.masks

        def poison():
            for parameter in model.parameters():
                parameter.grad = torch.ones_like(parameter)
            model[2].weight.grad[0, 0] = bad

        with pytest.raises(FloatingPointError, match=r"gradient of 2\.weight holds NaN or inf"):
            if closure:
                optimizer.step(poison)
            else:
                poison()
                optimizer.step()
        assert_same(snapshot(model, optimizer, sparse), before)
        assert_same(sparse.masks, masks)
        assert all(parameter.grad is not None for parameter in model.parameters())
        train(model, optimizer, [7])  # a good batch takes the place of the bad one
        assert [update.step for update in sparse.history] == [4, 8]

    @pytest.mark.parametrize("bad", [torch.nan, torch.inf])
    def test_a_bad_weight_at_an_update_moves_no_mask(self, mlp, train, snapshot, assert_same, bad):
        model = mlp()
        optimizer = torch.optim.AdamW(model.parameters())
        sparse = regrow.sparsify(model, optimizer, regrow.SET(density=0.4), total_steps=1000)
        train(model, optimizer, range(3))
        with torch.no_grad():
            model[2].weight[tuple(sparse.masks["2.weight"].nonzero()[0])] = bad
        before, masks = snapshot(model, optimizer, sparse), sparse.masks
        with pytest.raises(FloatingPointError, match=r"weight of 2\.weight holds NaN or inf"):
            sparse.update_()
        assert_same(snapshot(model, optimizer, sparse), before)
        assert_same(sparse.masks, masks)

    def test_a_bad_weight_after_the_step_of_an_update_moves_no_mask(self, mlp, train, assert_same):
        model = mlp()
        optimizer = torch.optim.AdamW(model.parameters())
        method = regrow.SET(density=0.4, update_every=4)
        sparse = regrow.sparsify(model, optimizer, method, total_steps=1000)
        train(model, optimizer, range(3))
        masks = sparse.masks
        with torch.no_grad():
            model[2].weight.fill_(torch.nan)
        with pytest.raises(FloatingPointError, match=r"weight of .*2\.weight holds NaN"):
            train(model, optimizer, [3])
        assert_same(sparse.masks, masks)
        assert sparse.history == []

    def test_of_a_bad_gradient_that_the_step_has_spread_the_truth_is_said(
        self, mlp, train, assert_same
    ):
        """SET reads no gradient: the step is made, and only then a weight is seen to be NaN."""
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        method = regrow.SET(density=0.4, update_every=4)
        sparse = regrow.sparsify(model, optimizer, method, total_steps=1000)
        train(model, optimizer, range(3))
        masks = sparse.masks
        model[2].weight.grad[0, 0] = torch.nan
        with pytest.raises(FloatingPointError, match=r"weight of 2\.weight .*no mask was moved"):
            optimizer.step()
        assert_same(sparse.masks, masks)
        assert model[2].weight.isnan().any()

    def test_no_gradient_anywhere_at_an_update_is_refused(self, before_update):
        model, optimizer, sparse = before_update(torch.optim.Adam)
        optimizer.zero_grad()
        with pytest.raises(RuntimeError, match=r"no sparse weight has one.*call backward\(\)"):
            optimizer.step()
        assert len(sparse.history) == 1
        assert model[0].weight.grad is None

    def test_a_closure_that_fails_leaves_the_run_able_to_go_on(self, before_update, call_step):
        model, optimizer, sparse = before_update(torch.optim.Adam)

        def broken():
            raise KeyError("data")

        with pytest.raises(KeyError, match="data"):
            optimizer.step(broken)
        call_step(model, optimizer, 7, "keyword")
        assert [update.step for update in sparse.history] == [4, 8]

    def test_a_head_without_gradient_is_skipped(self, before_update, batch):
        model, optimizer, sparse = before_update(torch.optim.Adam)
        before = sparse.masks["2.weight"]
        optimizer.zero_grad()
        model[0](batch(7)[0]).sum().backward()
        optimizer.step()
        assert list(sparse.history[-1].layers) == ["0.weight"]
        assert sparse.masks["2.weight"].equal(before)


# ---------------------------------------------------------------------- who takes part


class TestTakingPart:
    """A scheduled update moves the layers that took part in the step, one by hand all it can."""

    @pytest.fixture
    def run(self, mlp, train):
        def begin(method, steps=3):
            model = mlp()
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
            sparse = regrow.sparsify(model, optimizer, method, total_steps=40)
            train(model, optimizer, range(steps))
            return model, optimizer, sparse

        return begin

    def test_a_layer_that_sat_out_comes_down_to_its_density_when_it_takes_part_again(
        self, run, train, batch
    ):
        method = regrow.GMP(**HALF, update_every=2, start_at=0, stop_at=20)
        model, optimizer, sparse = run(method)
        behind = sparse.masks["2.weight"]
        for step in range(3, 9):
            optimizer.zero_grad()
            model[0](batch(step)[0]).square().sum().backward()
            optimizer.step()
        assert sparse.masks["2.weight"].equal(behind)
        train(model, optimizer, [9])
        density = 0.5 + 0.5 * (1 - 10 / 20) ** 3
        for name, mask in sparse.masks.items():
            assert int(mask.sum()) == round(density * mask.numel()), name

    def test_the_others_exchange_among_themselves_where_all_decide_together(self, run, batch):
        """Nothing is taken from who sits out, and nothing given."""
        method = regrow.RigL(**HALF, update_every=4, threshold="global", redistribute="gradient")
        model, optimizer, sparse = run(method)
        before = sparse.masks
        optimizer.zero_grad()
        model[0](batch(3)[0]).square().sum().backward()
        optimizer.step()
        (change,) = sparse.history[-1].layers.values()
        assert change.active == int(before["0.weight"].sum())
        assert sparse.masks["2.weight"].equal(before["2.weight"])

    def test_a_large_head_that_is_not_used_takes_nothing_from_the_others(self, train):
        """Were it counted, all that is to go would go from them."""
        model = torch.nn.ModuleDict(
            {"used": torch.nn.Linear(12, 16), "not": torch.nn.Linear(50, 50)}
        )
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        method = regrow.ACDC(density=0.3, update_every=1)
        sparse = regrow.sparsify(model, optimizer, method, total_steps=20)
        for _ in range(20):
            optimizer.zero_grad()
            model["used"](torch.ones(2, 12)).square().sum().backward()
            optimizer.step()
        assert int(sparse.masks["used.weight"].sum()) == round(0.3 * 192)
        assert sparse.masks["not.weight"].all()

    @pytest.mark.parametrize("kind", ["SET", "GMP", "CHT", "SNFS"])
    def test_a_scheduled_update_without_any_gradient_moves_nothing(self, run, kind):
        _, optimizer, sparse = run(regrow.METHODS[kind](density=0.5, update_every=4))
        masks, n_updates = sparse.masks, len(sparse.history)
        optimizer.zero_grad()
        optimizer.step()
        assert len(sparse.history) == n_updates
        assert all(mask.equal(masks[name]) for name, mask in sparse.masks.items())
        assert (sparse.steps, sparse._clock.next) == (4, 8)

    @pytest.mark.parametrize(
        ("kind", "moved"),
        [
            ("SET", ["0.weight", "2.weight"]),
            ("RigL", ["2.weight"]),
            ("MEST", ["2.weight"]),
            ("SNFS", ["0.weight", "2.weight"]),
        ],
    )
    def test_an_update_by_hand_moves_all_that_have_what_it_reads(self, run, kind, moved):
        model, _, sparse = run(regrow.METHODS[kind](density=0.5))
        model[0].weight.grad = None
        assert list(sparse.update_().layers) == moved

    def test_an_update_by_hand_spares_frozen_weights_and_those_the_optimizer_never_saw(
        self, run, mlp, train
    ):
        model, _, sparse = run(regrow.SET(density=0.5))
        model[0].weight.requires_grad_(False)
        assert list(sparse.update_().layers) == ["2.weight"]
        model, optimizer, sparse = run(regrow.SNFS(density=0.5))
        del optimizer.state[model[0].weight]
        assert list(sparse.update_().layers) == ["2.weight"]

    def test_an_update_by_hand_of_what_was_removed_is_refused(self, run):
        model, _, sparse = run(regrow.SET(density=0.5))
        sparse.remove()
        weight = model[0].weight.detach().clone()
        with pytest.raises(RuntimeError, match=r"update_\(\) after remove\(\)"):
            sparse.update_()
        assert model[0].weight.equal(weight)


# ---------------------------------------------------------------------- held weights


@pytest.fixture(params=["SET", "RigL", "GMP"])
def held_method(request):
    options = {"initial_density": 0.6, "start_at": 2} if request.param == "GMP" else {}
    return regrow.METHODS[request.param](
        density=0.3, allocation=Uniform(), update_every=2, stop_at=1.0, **options
    )


@pytest.fixture(params=["momentum", "adamw"])
def held_run(request, held_method, mlp, optimizers):
    """A run whose first layer holds a third of its weights."""
    model = mlp()
    available = {"0.weight": torch.arange(192).reshape(16, 12) % 3 != 0}
    optimizer = optimizers[request.param](model.parameters())
    sparse = regrow.sparsify(model, optimizer, held_method, total_steps=60, available=available)
    return model, optimizer, sparse, available["0.weight"]


class TestFrozenWeights:
    @pytest.mark.parametrize("kind", ["momentum", "adamw"])
    @pytest.mark.parametrize("name", ["SET", "RigL", "SNFS", "MEST"])
    def test_never_move_but_come_and_go(self, kind, name, mlp, optimizers, train):
        model, where = mlp(), torch.arange(192).reshape(16, 12) % 2 == 0
        values = model[0].weight.detach().clone()
        optimizer = optimizers[kind](model.parameters())
        method = regrow.METHODS[name](density=0.4, update_every=2, stop_at=1.0)
        sparse = regrow.sparsify(
            model, optimizer, method, total_steps=60, frozen={"0.weight": where}
        )
        returned, away = 0, torch.zeros_like(where)
        for step in range(50):
            train(model, optimizer, [step])
            kept = sparse.masks["0.weight"]
            assert model[0].weight[kept & where].equal(values[kept & where])
            assert not model[0].weight[~kept].any()
            returned += int((away & kept).sum())
            away = where & ~kept
        assert returned
        if name != "SNFS":  # which refuses: it lives on momentum
            sparse.mask_gradients_()
            assert not model[0].weight.grad[where].any()


class TestHeldWeights:
    def test_stay_bit_identical_for_fifty_steps_and_take_no_part(
        self, held_run, train, nearest_count
    ):
        model, optimizer, sparse, available = held_run
        values = model[0].weight[~available].clone()
        first = sparse.masks["0.weight"]
        falls = 0.0 if sparse.method.initial_density is None else 0.3
        for step in range(1, 51):
            train(model, optimizer, [step])
            active = sparse._topology.layers[0].mask > 0
            assert model[0].weight[~available].equal(values)
            assert sparse.masks["0.weight"].equal(active | ~available)
            assert not active[~available].any()
            progress = max(step // 2 * 2 - 2, 0) / 58
            assert int(active.sum()) == nearest_count(0.3 + falls * (1 - progress) ** 3, 192)
        assert not sparse.masks["0.weight"].equal(first)

    def test_are_kept_by_masks_and_density_and_have_no_masked_gradient(self, held_run, train):
        model, optimizer, sparse, available = held_run
        train(model, optimizer, range(3))
        sparse.mask_gradients_()
        assert not model[0].weight.grad[~available].any()
        kept = int(torch.count_nonzero(sparse.masks["0.weight"]))
        assert kept == sparse._topology.layers[0].active + int((~available).sum())

    def test_held_zeros_are_no_part_of_the_network(self, mlp):
        model = mlp()
        model[0].weight.data[:4] = 0.0
        available = {"0.weight": torch.arange(16)[:, None].expand(16, 12) >= 4}
        sparse = regrow.sparsify(
            model,
            torch.optim.SGD(model.parameters(), lr=0.1),
            regrow.Static(density=0.3, allocation=Uniform()),
            total_steps=5,
            available=available,
        )
        assert not sparse.masks["0.weight"][:4].any()
        assert sparse.density == pytest.approx(0.3, abs=0.01)


# ---------------------------------------------------------------------- what it tells and offers


class TestFace:
    def test_update_can_be_forced_between_two_steps(self, before_update):
        model, optimizer, sparse = before_update(torch.optim.Adam)
        before = sparse.masks
        update = sparse.update_()
        assert update is sparse.history[-1]
        assert update.step == sparse.steps == 7
        assert not sparse.masks["0.weight"].equal(before["0.weight"])
        assert not model[0].weight[~sparse.masks["0.weight"]].any()
        assert len(optimizer.state[model[0].weight]) > 0

    def test_update_of_a_static_method_is_none(self, mlp):
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        sparse = regrow.sparsify(model, optimizer, regrow.Static(density=0.5), total_steps=5)
        assert sparse.update_() is None

    def test_metrics_and_summary_say_what_the_masks_say(self, before_update):
        model, _, sparse = before_update(torch.optim.Adam)
        metrics = sparse.metrics()
        masks = sparse.masks
        kept = {name: int(mask.sum()) for name, mask in masks.items()}
        assert metrics["density/0.weight"] == kept["0.weight"] / 192
        assert metrics["density/total"] == sparse.density == sum(kept.values()) / (192 + 128)
        assert metrics["topology/updates"] == 1
        grown = sum(change.grown for change in sparse.history[0].layers.values())
        assert metrics["topology/exchanged"] == grown / sum(kept.values())
        summary = sparse.summary()
        assert "step 7 of 40, 1 updates so far, next at 8" in summary
        assert all(name in summary for name, _ in model.named_parameters())

    def test_masks_are_a_snapshot(self, before_update):
        _, _, sparse = before_update(torch.optim.Adam)
        before = sparse.masks
        before["0.weight"].fill_(True)
        assert not sparse.masks["0.weight"].all()

    def test_removing_lets_weights_move_again(self, before_update, train):
        model, optimizer, sparse = before_update(torch.optim.Adam)
        masks, weight = sparse.masks, model[0].weight.detach().clone()
        sparse.remove()
        assert model[0].weight.equal(weight)
        train(model, optimizer, range(7, 17))
        assert model[0].weight[~masks["0.weight"]].any()
        assert len(sparse.history) == 1
        sparse.remove()  # twice is as good as once

    def test_several_sparsifiers_may_share_an_optimizer(self, mlp, train):
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        method = regrow.RigL(density=0.5, allocation=Uniform(), update_every=2)
        one, other = (
            regrow.sparsify(model, optimizer, method, total_steps=10, include=glob)
            for glob in ("0.weight", "2.weight")
        )
        train(model, optimizer, range(5))
        assert [update.step for update in one.history] == [2, 4]
        assert [update.step for update in other.history] == [2, 4]

    def test_a_step_that_calls_its_parents_step_is_one_step(self, mlp, train):
        """torch runs the hooks in both, once the parent class has been used by itself."""

        class Renamed(torch.optim.SGD):
            def step(self, closure=None):
                return super().step(closure)

        model = mlp()
        torch.optim.SGD(model.parameters(), lr=0.1)
        optimizer = Renamed(model.parameters(), lr=0.1)
        method = regrow.RigL(**HALF, update_every=2)
        sparse = regrow.sparsify(model, optimizer, method, total_steps=10)
        train(model, optimizer, range(5))
        assert sparse.steps == 5
        assert [update.step for update in sparse.history] == [2, 4]

    def test_masked_gradients_are_those_of_active_weights(self, before_update):
        model, _, sparse = before_update(torch.optim.Adam)
        before = {name: p.grad.clone() for name, p in model.named_parameters()}
        for _ in range(2):
            sparse.mask_gradients_()
            for name, parameter in model.named_parameters():
                expected = before[name] * sparse.masks.get(name, 1)
                assert parameter.grad.equal(expected)

    @pytest.mark.parametrize("micro_batches", [1, 3])
    def test_masked_gradients_change_no_update(self, mlp, batch, micro_batches):
        runs = []
        for mask in (False, True):
            model = mlp(dtype=torch.float64)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            method = regrow.RigL(density=0.4, drop_fraction=0.5, update_every=4, stop_at=1.0)
            sparse = regrow.sparsify(model, optimizer, method, total_steps=20)
            for step in range(19):
                optimizer.zero_grad()
                for part in range(micro_batches):
                    inputs, labels = batch(10 * step + part, torch.float64)
                    torch.nn.functional.cross_entropy(model(inputs), labels).backward()
                    if mask:
                        sparse.mask_gradients_()
                optimizer.step()
            assert len(sparse.history) == 4
            runs.append((model.state_dict(), sparse.masks))
        assert all(runs[0][1][name].equal(mask) for name, mask in runs[1][1].items())
        torch.testing.assert_close(runs[0][0], runs[1][0])

    def test_clipping_after_masking_sees_active_gradients_only(self, before_update):
        model, _, sparse = before_update(torch.optim.Adam)
        masks = sparse.masks
        total = sum(
            float((p.grad.double()[masks.get(name, torch.ones_like(p).bool())] ** 2).sum())
            for name, p in model.named_parameters()
        )
        dense = torch.nn.utils.get_total_norm([p.grad for p in model.parameters()])
        sparse.mask_gradients_()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.01)
        assert float(norm) == pytest.approx(math.sqrt(total), rel=1e-5)
        assert norm < 0.99 * dense
