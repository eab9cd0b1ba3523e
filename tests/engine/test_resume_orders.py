"""The order in which model, optimizer, sparsify and topology come makes no difference."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from torch import nn
from torch.nn import functional

import regrow
from regrow.engine.allocation import Uniform
from regrow.engine.saliency import LargestWeights

TOTAL, STOPPED = 24, 10
ORDERS = list(permutations(("model", "optimizer", "sparsify", "sparse")))
ORDERS = [o for o in ORDERS if o.index("sparsify") < o.index("sparse")]


@pytest.fixture
def resume(mlp, optimizers):
    def run(saved, order, method, execution="masked", **options):
        model = mlp(seed=99)
        optimizer = optimizers["adamw"](model.parameters())
        made = {"model": model, "optimizer": optimizer}
        for part in order:
            if part == "sparsify":
                made["sparse"] = regrow.sparsify(
                    model, optimizer, method, total_steps=TOTAL, execution=execution, **options
                )
            else:
                made[part].load_state_dict(saved[part])
        return model, optimizer, made["sparse"]

    return run


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
@pytest.mark.parametrize("name", ["SET", "RigL", "GMP", "TopKAST", "rescaled"])
def test_any_order_gives_the_same_bits(
    order, name, mlp, train, snapshot, optimizers, assert_same, resume
):
    """Weights loaded before sparsify, the topology after it, lost what the first masks dropped."""
    options = {"rescale": True} if name == "rescaled" else {}
    kind = regrow.METHODS.get(name, regrow.SET)
    method = kind(density=0.3, update_every=4)
    model = mlp()
    optimizer = optimizers["adamw"](model.parameters())
    sparse = regrow.sparsify(model, optimizer, method, total_steps=TOTAL, **options)
    whole = (model, optimizer, sparse)
    train(model, optimizer, range(STOPPED))
    saved = snapshot(*whole)
    resumed = resume(saved, order, method, **options)
    assert_same(snapshot(*resumed), saved)
    for run in (whole, resumed):
        train(*run[:2], range(STOPPED, TOTAL))
    assert_same(snapshot(*resumed), snapshot(*whole))


def test_what_the_first_masks_took_is_forgotten_with_the_first_step(mlp, train, optimizers):
    """It is as large as the model: it is gone before the optimizer makes its state."""
    model = mlp()
    optimizer = optimizers["adamw"](model.parameters())
    sparse = regrow.sparsify(model, optimizer, regrow.SET(density=0.3), total_steps=TOTAL)
    assert sparse._before
    train(model, optimizer, range(1))
    assert not sparse._before


def test_a_start_that_chose_other_counts_names_the_way(mlp, train, snapshot, optimizers, batch):
    def loss(model):
        inputs, labels = batch(5)
        return functional.cross_entropy(model(inputs), labels)

    method = regrow.METHODS["SNIP"](density=0.3, loss=loss)
    runs = []
    for seed in (0, 1):
        model = mlp(seed)
        optimizer = optimizers["adamw"](model.parameters())
        sparse = regrow.sparsify(model, optimizer, method, total_steps=TOTAL)
        runs.append((model, optimizer, sparse))
    counts = [[layer.initial for layer in run[2].plan.layers] for run in runs]
    assert counts[0] != counts[1], "the test needs two starts that differ"
    with pytest.raises(ValueError, match=r"sparsify\(\.\.\., state=state\)"):
        runs[1][2].load_state_dict(runs[0][2].state_dict())


@pytest.mark.parametrize("missed", [range(14, 20), range(10, 13)])
@pytest.mark.parametrize("shrink", ["layer", "global"])
@pytest.mark.parametrize("stopped", [18, 19, 20, 21])
def test_a_layer_that_missed_its_last_update_resumes_as_it_went_on(
    missed, shrink, stopped, mlp, optimizers, snapshot, assert_same, batch
):
    """Going on it stayed denser for ever; resumed, it came to its end."""

    def begin(seed=0):
        model = mlp(seed)
        optimizer = optimizers["momentum"](model.parameters())
        method = regrow.GMP(density=0.2, update_every=4, allocation=Uniform(), shrink=shrink)
        return model, optimizer, regrow.sparsify(model, optimizer, method, total_steps=TOTAL)

    def train(run, steps):
        for step in steps:
            inputs, labels = batch(step)
            run[1].zero_grad()
            functional.cross_entropy(run[0](inputs), labels).backward()
            if step in missed:
                run[0][2].weight.grad = None
            run[1].step()

    whole, resumed = begin(), begin(seed=99)
    train(whole, range(stopped))
    saved = snapshot(*whole)
    for part, name in zip(resumed, ("model", "optimizer", "sparse"), strict=True):
        part.load_state_dict(saved[name])
    for run in (whole, resumed):
        train(run, range(stopped, TOTAL))
    assert_same(snapshot(*resumed), snapshot(*whole))
    total = sum(layer.final for layer in whole[2].plan.layers)
    assert sum(int(mask.sum()) for mask in whole[2].masks.values()) == total


def test_stored_weights_that_another_topology_took_are_missed_by_name(
    mlp, train, snapshot, optimizers, resume
):
    pytest.importorskip("regrow.execution")
    method = regrow.SET(density=0.3, update_every=4)
    model = mlp()
    optimizer = optimizers["adamw"](model.parameters())
    sparse = regrow.sparsify(model, optimizer, method, total_steps=TOTAL)
    train(model, optimizer, range(STOPPED))
    saved = snapshot(model, optimizer, sparse)
    with pytest.raises(RuntimeError, match=r"0\.weight.*state="):
        run = resume(saved, ("model", "optimizer", "sparsify", "sparse"), method, "csr")
        train(*run[:2], range(STOPPED, STOPPED + 1))
    assert torch.equal(saved["model"]["0.weight"], model.state_dict()["0.weight"])


def test_a_layer_that_took_no_part_keeps_its_rescaled_weights():
    """Model, then sparsify, then its state: weights that no step moved were loaded all the same."""

    def build():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
        return model, torch.optim.SGD(model[0].parameters(), lr=0.1)

    model, optimizer = build()
    optimizer.add_param_group({"params": list(model[1].parameters())})
    method = regrow.RigL(density=0.5, update_every=2)
    sparse = regrow.sparsify(model, optimizer, method, total_steps=20, rescale=True)
    for _ in range(5):
        optimizer.zero_grad()
        model[0](torch.ones(2, 8)).square().sum().backward()
        optimizer.step()
    fresh, other = build()
    other.add_param_group({"params": list(fresh[1].parameters())})
    again = regrow.sparsify(fresh, other, method, total_steps=20, rescale=True)
    fresh.load_state_dict(model.state_dict())
    other.load_state_dict(optimizer.state_dict())
    again.load_state_dict(sparse.state_dict())
    for one, two in zip(model.parameters(), fresh.parameters(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("initial", [1.0, 0.8, None])
def test_a_moving_density_resumes_alike_with_a_chosen_start(
    initial, mlp, train, snapshot, optimizers, assert_same
):
    """The state that is passed on rounded the final density to whole counts, and all before it."""
    start = LargestWeights(scope="global")
    method = regrow.GMP(density=0.3, initial_density=initial, start=start, update_every=1)

    def build(state=None):
        model = mlp()
        optimizer = optimizers["adamw"](model.parameters())
        sparse = regrow.sparsify(model, optimizer, method, total_steps=TOTAL, state=state)
        return model, optimizer, sparse

    whole = build()
    train(*whole[:2], range(STOPPED))
    saved = snapshot(*whole)
    resumed = build(saved["sparse"])
    resumed[0].load_state_dict(saved["model"])
    resumed[1].load_state_dict(saved["optimizer"])
    for run in (whole, resumed):
        train(*run[:2], range(STOPPED, TOTAL))
    assert_same(snapshot(*resumed), snapshot(*whole))
