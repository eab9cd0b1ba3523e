"""Copies and averages of models with stored layers: right, or said."""

from __future__ import annotations

import copy
import logging
import pickle

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import regrow
from regrow.engine.patterns import Block, Element

INPUTS = torch.linspace(-1, 1, 5 * 32).view(5, 32).sin()
AVERAGES = {
    "mean": AveragedModel,
    "EMA": lambda model: AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.7)),
    "buffers": lambda model: AveragedModel(model, use_buffers=True),
}


def start(execution, pattern):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 16))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    method = regrow.SET(density=0.3, pattern=pattern, update_every=2, stop_at=1.0)
    sparse = regrow.sparsify(model, optimizer, method, total_steps=40, execution=execution)
    return model, optimizer, sparse


def train(model, optimizer, n, after=lambda: None):
    for _ in range(n):
        optimizer.zero_grad()
        model(INPUTS).square().mean().backward()
        optimizer.step()
        after()


STORED = [("csr", Element()), ("block", Block(8))]


@pytest.mark.parametrize("kind", AVERAGES)
@pytest.mark.parametrize(("execution", "pattern"), STORED)
def test_an_average_of_stored_layers_is_that_of_masked_ones(kind, execution, pattern, caplog):
    """apply_to_ raised; without it, weights of other positions were averaged."""
    averages, histories = {}, {}
    with caplog.at_level(logging.WARNING, "regrow"):
        for way in (execution, "masked"):
            model, optimizer, sparse = start(way, pattern)
            average = AVERAGES[kind](model)

            def follow(average=average, model=model, sparse=sparse):
                sparse.apply_to_(average)
                average.update_parameters(model)

            train(model, optimizer, 12, follow)
            sparse.apply_to_(average)
            averages[way], histories[way] = average(INPUTS).detach(), len(sparse.history)
    assert histories[execution] == histories["masked"] > 4
    torch.testing.assert_close(averages[execution], averages["masked"], atol=1e-6, rtol=1e-4)
    assert not caplog.records


@pytest.mark.parametrize(("execution", "pattern"), STORED)
def test_an_average_that_did_not_follow_is_said(execution, pattern, caplog):
    model, optimizer, _ = start(execution, pattern)
    average = AveragedModel(model)
    train(model, optimizer, 4, lambda: average.update_parameters(model))
    with caplog.at_level(logging.WARNING, "regrow"):
        average(INPUTS)
        average(INPUTS)
    assert len(caplog.records) == 2  # one a layer
    assert "sparse.apply_to_(average) after every update" in caplog.text


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
@pytest.mark.parametrize(("execution", "pattern"), STORED)
def test_snapshots_and_copies_of_everything_say_nothing(execution, pattern, clone, caplog):
    run = start(execution, pattern)
    model, optimizer, _ = run
    train(model, optimizer, 3)
    outputs = model(INPUTS).detach()
    snapshot, twins = clone(model), clone(run)
    with caplog.at_level(logging.WARNING, "regrow"):
        train(model, optimizer, 6)
        train(*twins[:2], 6)
        assert snapshot(INPUTS).equal(outputs)
        assert twins[0](INPUTS).equal(model(INPUTS))
        snapshot.load_state_dict(model.state_dict())
        assert snapshot(INPUTS).equal(model(INPUTS))
    assert not caplog.records


@pytest.mark.parametrize(("execution", "pattern"), STORED)
def test_masks_of_stored_layers_apply_to_dense_copies(execution, pattern):
    _, _, sparse = start(execution, pattern)
    dense = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 16))
    sparse.apply_to_(dense)
    for name, mask in sparse.masks.items():
        assert dense.get_parameter(name).count_nonzero() == mask.sum()
        assert not dense.get_parameter(name)[~mask].any()


def test_another_shape_is_refused():
    _, _, sparse = start("masked", Element())
    other = nn.Sequential(nn.Linear(32, 8), nn.ReLU(), nn.Linear(8, 16))
    with pytest.raises(ValueError, match=r"0\.weight has shape \(8, 32\) in this module"):
        sparse.apply_to_(other)
