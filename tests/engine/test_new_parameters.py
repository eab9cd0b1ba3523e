"""New parameter objects after sparsify: masks go with them, or what holds the old ones is named."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

import regrow

METHOD = regrow.SET(density=0.3, update_every=2)
READERS = {
    "step": lambda model, optimizer, sparse: step(model, optimizer),
    "metrics": lambda model, optimizer, sparse: sparse.metrics(),
    "summary": lambda model, optimizer, sparse: sparse.summary(),
    "state_dict": lambda model, optimizer, sparse: sparse.state_dict(),
    "update": lambda model, optimizer, sparse: sparse.update_(),
}


def step(model, optimizer):
    optimizer.zero_grad()
    first = next(model.parameters())
    model(torch.ones(4, 32, dtype=first.dtype)).square().sum().backward()
    optimizer.step()


def start(execution="masked"):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 32))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    sparse = regrow.sparsify(model, optimizer, METHOD, total_steps=40, execution=execution)
    for _ in range(3):
        step(model, optimizer)
    return model, optimizer, sparse


def assign(model):
    state = {k: v if "_extra" in k else torch.randn_like(v) for k, v in model.state_dict().items()}
    model.load_state_dict(state, assign=True)


def outside(model, sparse):
    return sum(
        int(model.get_parameter(n)[~mask].count_nonzero()) for n, mask in sparse.masks.items()
    )


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("execution", ["masked", "csr"])
def test_an_optimizer_of_the_old_parameters_is_named(execution, reader):
    model, optimizer, sparse = start(execution)
    masks = sparse.masks
    assign(model)
    match = r"0\.weight, 2\.weight: .*assign=True.*SGD does not hold its new weight.*sparsify\("
    with pytest.raises(RuntimeError, match=match):
        READERS[reader](model, optimizer, sparse)
    assert all(mask.equal(masks[name]) for name, mask in sparse.masks.items())


def test_what_the_message_says_is_possible():
    model, _, sparse = start()
    assign(model)
    sparse.remove()
    again = torch.optim.SGD(model.parameters(), lr=0.01)
    resumed = regrow.sparsify(model, again, METHOD, total_steps=40, state=sparse.state_dict())
    assert resumed.steps == 3
    step(model, again)
    assert outside(model, resumed) == 0


def test_masks_follow_where_the_optimizer_was_given_the_new_parameters(caplog):
    model, optimizer, sparse = start()
    assign(model)
    optimizer.param_groups[0]["params"] = list(model.parameters())
    with caplog.at_level(logging.WARNING, "regrow"):
        for _ in range(3):
            step(model, optimizer)
            assert outside(model, sparse) == 0
    assert "0.weight: 1434 weights outside its mask" in caplog.text


def test_a_new_optimizer_of_new_parameters_leaves_them_masked(caplog):
    """The masks went on to the old parameters: 2,868 weights outside them."""
    model, _, sparse = start()
    assign(model)
    again = torch.optim.SGD(model.parameters(), lr=0.01)
    with caplog.at_level(logging.WARNING, "regrow"):
        step(model, again)
    assert outside(model, sparse) == 0
    assert "they stay masked" in caplog.text


def test_memory_without_values_is_cleared_outside_the_masks(caplog):
    model, optimizer, sparse = start()
    model.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(float("nan"))
    READERS["metrics"](model, optimizer, sparse)
    assert outside(model, sparse) == 0  # and NaN times zero is NaN
    assert "2.weight: 1434 weights outside its mask" in caplog.text


@pytest.mark.parametrize("reader", READERS)
def test_a_model_without_memory_is_named_and_loses_no_mask(reader):
    """The masks went to the meta device as well, and were gone."""
    model, optimizer, sparse = start()
    masks = sparse.masks
    state = model.state_dict()
    model.to("meta")
    with pytest.raises(RuntimeError, match=r"0\.weight is sparse, and is on the meta device"):
        (
            optimizer.step
            if reader == "step"
            else lambda: READERS[reader](model, optimizer, sparse)
        )()
    assert all(mask.equal(masks[name]) for name, mask in sparse.masks.items())
    sparse.remove()
    model.to_empty(device="cpu").load_state_dict(state)
    again = torch.optim.SGD(model.parameters(), lr=0.01)
    resumed = regrow.sparsify(model, again, METHOD, total_steps=40, state=sparse.state_dict())
    assert all(mask.equal(masks[name]) for name, mask in resumed.masks.items())
    assert outside(model, resumed) == 0


CONVERSIONS = {
    "double": lambda model: model.double(),
    "bfloat16": lambda model: model.bfloat16(),
    "to": lambda model: model.to(torch.float64),
}


@pytest.mark.parametrize("conversion", CONVERSIONS)
@pytest.mark.parametrize("way", ["plain", "swapped", "overwritten"])
def test_masks_follow_a_conversion_or_it_is_named(conversion, way, monkeypatch):
    model, optimizer, sparse = start()
    optimizer.zero_grad()
    optimizer.state.clear()  # momentum of another dtype is torch's own matter
    monkeypatch.setattr(torch.__future__, "_swap_module_params_on_conversion", way == "swapped")
    monkeypatch.setattr(
        torch.__future__, "_overwrite_module_params_on_conversion", way == "overwritten"
    )
    CONVERSIONS[conversion](model)
    if way == "overwritten":
        with pytest.raises(RuntimeError, match="a conversion, and SGD does not hold"):
            step(model, optimizer)
        return
    for _ in range(3):
        step(model, optimizer)
        assert outside(model, sparse) == 0
    assert sparse._topology.layers[0].mask.dtype == model[0].weight.dtype
    assert len(sparse.history) == 3
