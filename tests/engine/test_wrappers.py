"""Wrappers around a model, or inside it, put there before or after: names lead to the weights."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

import regrow
from regrow.engine.wrappers import under_names

METHOD = regrow.SET(density=0.3, update_every=2)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8))

    def forward(self, x):
        return self.net(x)


def compiled(module):
    return torch.compile(module, backend="eager")


WRAPS = {"compile": compiled, "DataParallel": nn.DataParallel, "checkpoint": checkpoint_wrapper}


def steps(model, optimizer, n):
    for i in range(n):
        inputs = torch.randn(4, 8, generator=torch.Generator().manual_seed(i))
        optimizer.zero_grad()
        model(inputs).square().sum().backward()
        optimizer.step()


def start(wrap=lambda net: net, **options):
    model = Model()
    model.net = wrap(model.net)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return model, optimizer, regrow.sparsify(model, optimizer, METHOD, total_steps=40, **options)


@pytest.mark.parametrize("kind", WRAPS)
def test_a_part_that_is_wrapped_afterwards_is_followed(kind, caplog):
    """torch.compile of a submodule after sparsify() was a bare KeyError: '0'."""
    model, optimizer, sparse = start()
    plain, plain_optimizer, reference = start()
    steps(model, optimizer, 3)
    with caplog.at_level(logging.WARNING, "regrow"):
        model.net = WRAPS[kind](model.net)
        steps(model, optimizer, 4)
        sparse.metrics(), sparse.update_()
    steps(plain, plain_optimizer, 3), steps(plain, plain_optimizer, 4)
    reference.update_()
    assert not caplog.records
    assert sparse.history == reference.history
    for name, mask in sparse.masks.items():
        assert mask.equal(reference.masks[name])
        assert not plain.get_parameter(name)[~mask].any()
    assert all(a.equal(b) for a, b in zip(model.parameters(), plain.parameters(), strict=True))


@pytest.mark.parametrize("kind", ["compile", "checkpoint"])
def test_states_of_wrapped_parts_load_into_plain_models_and_back(kind):
    wrapped, optimizer, donor = start(WRAPS[kind])
    steps(wrapped, optimizer, 3)
    plain, plain_optimizer, sparse = start()
    assert list(donor.masks) != list(sparse.masks)
    sparse.load_state_dict(donor.state_dict())
    assert all(a.equal(b) for a, b in zip(sparse.masks.values(), donor.masks.values(), strict=True))
    steps(plain, plain_optimizer, 3)
    donor.load_state_dict(sparse.state_dict())
    assert all(a.equal(b) for a, b in zip(sparse.masks.values(), donor.masks.values(), strict=True))
    _, _, third = start(WRAPS[kind], state=sparse.state_dict())
    assert third.history == sparse.history


FRONT = ["_forward_module.", "module.", "_orig_mod.", "module._orig_mod.", "module.module."]


@pytest.mark.parametrize("front", FRONT)
def test_names_with_a_wrapper_at_the_front_are_known(front):
    model, optimizer, sparse = start()
    steps(model, optimizer, 3)
    state = sparse.state_dict()
    state["layers"] = {front + name: value for name, value in state["layers"].items()}
    sparse.load_state_dict(state)
    assert len(start(state=state)[2].history) == 1


def test_other_names_are_refused():
    _, _, sparse = start()
    state = sparse.state_dict()
    state["layers"] = {"body." + name: value for name, value in state["layers"].items()}
    with pytest.raises(ValueError, match=r"has masks of \['body\.net\.0.*use the same model"):
        sparse.load_state_dict(state)


def test_a_models_own_module_is_no_wrapper():
    assert list(under_names({"module.a": 1}, ["module.a"])) == ["module.a"]
    assert list(under_names({"module.a": 1}, ["a"])) == ["a"]
    assert list(under_names({"a": 1, "module.b": 2}, ["a", "b"])) == ["a", "module.b"]
    assert list(under_names({"b": 1, "a": 2}, ["a", "b"])) == ["b", "a"]
    assert under_names([1], ["a"]) == [1]
    assert list(under_names({1: 2, "module": 3}, ["a", "b"])) == [1, "module"]


@pytest.mark.parametrize("kind", WRAPS)
def test_averages_of_wrapped_models_are_masked(kind):
    model, optimizer, sparse = start()
    average = torch.optim.swa_utils.AveragedModel(model)
    steps(model, optimizer, 3)
    average.module.net = WRAPS[kind](average.module.net)
    sparse.apply_to_(average)
    weights = average.module.net.parameters()
    inside = dict(zip(("net.0.weight", "_", "net.2.weight"), weights, strict=False))
    for name, mask in sparse.masks.items():
        assert not inside[name][~mask].any()
