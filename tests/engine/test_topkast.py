"""Top-KAST against the same training written out with all weights in one tensor."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

import regrow
from regrow.engine.allocation import Uniform
from regrow.engine.patterns import Kernel
from regrow.engine.scores import Random
from regrow.engine.selection import top_k

D, B = 0.2, 0.5


def start(model, make=None, **options):
    options = {"density": D, "backward_density": B, "allocation": Uniform()} | options
    optimizer = (make or (lambda p: torch.optim.SGD(p, lr=0.5)))(model.parameters())
    method = regrow.TopKAST(**options)
    return optimizer, regrow.sparsify(model, optimizer, method, total_steps=40)


def all_weights(model, sparse):
    """Those in the model and those kept aside."""
    return {
        layer.name: model.get_parameter(layer.name).detach() + layer.reserve
        for layer in sparse._topology.layers
    }


def count(share, tensor):
    return round(share * tensor.numel())


@pytest.mark.parametrize("update_every", [1, 3])
@pytest.mark.parametrize("penalty", [0.0, 0.01])
def test_a_run_is_that_of_the_papers_rule(mlp, batch, penalty, update_every):
    """θ - η(∇L(θ·A)·B + λ(θ on A + θ/D on B\\A)), A and B chosen anew at every update."""
    model = mlp(dtype=torch.float64)
    dense = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer, sparse = start(model, penalty=penalty, update_every=update_every)
    names = list(sparse.masks)

    def choose():
        return {
            n: [top_k(dense[n].abs(), count(s, dense[n])).double() for s in (D, B)] for n in names
        }

    chosen = choose()
    for step in range(12):
        inputs, labels = batch(step, torch.float64)
        parts = {n: (v * chosen[n][0] if n in chosen else v).clone() for n, v in dense.items()}
        for value in parts.values():
            value.requires_grad_()
        hidden = (inputs @ parts["0.weight"].T + parts["0.bias"]).relu()
        loss = functional.cross_entropy(hidden @ parts["2.weight"].T + parts["2.bias"], labels)
        loss.backward()
        for name, value in parts.items():
            gradient = value.grad
            if name in chosen:
                forward, backward = chosen[name]
                share = forward + (backward - forward) / forward.mean()
                gradient = gradient * backward + penalty * share * dense[name]
            dense[name] = dense[name] - 0.5 * gradient
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
        if (step + 1) % update_every == 0:
            chosen = choose()
        found = all_weights(model, sparse)
        for name in names:
            torch.testing.assert_close(found[name], dense[name], rtol=1e-9, atol=1e-12)
            assert sparse.masks[name].equal(chosen[name][0] > 0)
    assert len(sparse.history) == 12 // update_every


class TestSets:
    @pytest.fixture(params=["sgd", "momentum", "adamw", "fused"])
    def run(self, request, mlp, optimizers):
        model = mlp()
        return model, *start(model, optimizers[request.param])

    def test_the_model_holds_the_largest_of_all_weights_and_nothing_else(self, run, train):
        model, optimizer, sparse = run
        for step in range(15):
            values = all_weights(model, sparse)
            for name, value in values.items():
                weight, largest = model.get_parameter(name), top_k(value.abs(), count(D, value))
                assert (weight != 0).equal(largest)
                assert weight[largest].equal(value[largest])
            train(model, optimizer, [step])

    def test_weights_without_gradient_are_bit_identical_and_some_others_move(self, run, train):
        model, optimizer, sparse = run
        moved = 0
        for step in range(15):
            layers = sparse._topology.layers
            before = all_weights(model, sparse)
            outside = {layer.name: layer.backward == 0 for layer in layers}
            between = {layer.name: (layer.backward - layer.mask) > 0 for layer in layers}
            assert all(int(o.sum()) == o.numel() - count(B, o) for o in outside.values())
            train(model, optimizer, [step])
            after = all_weights(model, sparse)
            for name, value in after.items():
                assert value[outside[name]].equal(before[name][outside[name]])
                moved += int((value != before[name])[between[name]].sum())
        assert moved > 100

    def test_a_weight_that_comes_back_has_its_own_value(self, run, train):
        """Active weights are made tiny: the largest of the others take their places."""
        model, optimizer, sparse = run
        train(model, optimizer, range(5))
        masks = sparse.masks
        with torch.no_grad():
            for weight in sparse.weights():
                weight.mul_(1e-6)
        before = all_weights(model, sparse)
        sparse.update_()
        for name, mask in sparse.masks.items():
            assert not (mask & masks[name]).any()
            weight = model.get_parameter(name)
            assert weight[mask].equal(before[name][mask])
            assert all_weights(model, sparse)[name].equal(before[name])


def test_masked_gradients_change_no_run(mlp, batch, assert_same):
    """Clipping needs gradients masked before the step; those of the backward set are needed."""
    runs = []
    for mask in (False, True):
        model = mlp(dtype=torch.float64)
        optimizer, sparse = start(model)
        for step in range(10):
            inputs, labels = batch(step, torch.float64)
            optimizer.zero_grad()
            functional.cross_entropy(model(inputs), labels).backward()
            if mask:
                sparse.mask_gradients_()
            optimizer.step()
        runs.append((model.state_dict(), all_weights(model, sparse), sparse.masks))
    assert_same(*runs)


def test_every_evaluation_of_a_closure_sees_the_active_weights_only(mlp, batch):
    model = mlp()
    optimizer, sparse = start(
        model, lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=4), update_every=2
    )
    seen = []

    def closure():
        optimizer.zero_grad()
        seen.append([int(torch.count_nonzero(weight)) for weight in sparse.weights()])
        loss = functional.cross_entropy(model(inputs), labels)
        loss.backward()
        return loss

    for step in range(3):
        inputs, labels = batch(step)
        optimizer.step(closure)
    assert len(seen) > 6
    assert {tuple(counts) for counts in seen} == {(count(D, sparse.masks["0.weight"]), 26)}


def test_a_layer_without_gradient_keeps_its_weights(mlp, batch):
    model = mlp()
    before = model[2].weight.detach().clone()
    optimizer, sparse = start(model)
    for step in range(4):
        optimizer.zero_grad()
        model[0](batch(step)[0]).square().sum().backward()
        optimizer.step()
    assert all_weights(model, sparse)["2.weight"].equal(before)
    assert int(torch.count_nonzero(model[2].weight)) == count(D, before)


def test_the_state_holds_the_reserve_and_gives_it_back(mlp, train, assert_same):
    model = mlp()
    optimizer, sparse = start(model)
    train(model, optimizer, range(7))
    fresh = mlp(seed=9)
    _, resumed = start(fresh)
    fresh.load_state_dict(model.state_dict())
    resumed.load_state_dict(sparse.state_dict())
    assert_same(all_weights(fresh, resumed), all_weights(model, sparse))
    train(model, optimizer, range(7, 9))  # what was loaded is a copy
    with pytest.raises(AssertionError):
        assert_same(all_weights(fresh, resumed), all_weights(model, sparse))


class TestRefuses:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"backward_density": 0.1}, r"backward_density=0\.1: must be at least density=0\.2"),
            ({"backward_density": 0.0}, r"backward_density=0\.0: must lie in \(0, 1\]"),
            ({"penalty": -1.0}, r"penalty=-1\.0: must be at least 0"),
            ({"pattern": Kernel()}, r"pattern=Kernel\(\): Top-KAST works on single weights"),
            ({"regrow_dropped": False}, "regrow_dropped"),
            ({"drop": Random()}, "drop"),
        ],
    )
    def test_what_top_kast_is_not(self, options, message):
        with pytest.raises((ValueError, TypeError), match=message):
            regrow.TopKAST(density=D, **options)

    def test_held_weights_and_changes_nothing(self, mlp, assert_same):
        model = mlp()
        available = {"0.weight": torch.arange(192).reshape(16, 12) > 10}
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with pytest.raises(ValueError, match=r"available: 0\.weight cannot hold weights"):
            regrow.sparsify(
                model, optimizer, regrow.TopKAST(density=D), total_steps=9, available=available
            )
        assert_same(dict(model.state_dict()), dict(mlp().state_dict()))

    def test_a_start(self):
        start = regrow.engine.saliency.LargestWeights()
        with pytest.raises(ValueError, match="starts with the largest weights"):
            regrow.TopKAST(density=D, start=start)


def test_a_dense_backward_set_lets_every_weight_learn(mlp, train):
    model = mlp()
    optimizer, sparse = start(model, backward_density=1.0, penalty=0.0)
    before = all_weights(model, sparse)
    train(model, optimizer, range(3))
    moved = {name: (value != before[name]) for name, value in all_weights(model, sparse).items()}
    assert moved["2.weight"].all()
