"""Arguments of another type or out of range are refused by name, before anything has changed."""

import copy
import math

import pytest
import torch
from torch import nn

import regrow
from regrow.engine.links import LinkPrediction
from regrow.engine.scores import Magnitude
from regrow.measure.flops import count_flops


def make():
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    return model, torch.optim.SGD(model.parameters(), lr=0.1)


RIGL = regrow.RigL(density=0.2, update_every=2)
METHODS = [
    (regrow.RigL, {"replaces_step": "yes"}),
    (regrow.RigL, {"regrow_dropped": None}),
    (regrow.SRigL, {"gamma": "0.3"}),
    (regrow.SRigL, {"ablate_last": "no"}),
    (regrow.CHT, {"chain_removal": "no"}),
    (regrow.TopKAST, {"penalty": "0"}),
    (regrow.TopKAST, {"penalty": math.inf}),
    (regrow.MEST, {"soft_memory": math.inf}),
    (regrow.SNIP, {"loss": 3}),
    (regrow.GraSP, {"loss": None}),
    (regrow.SynFlow, {"inputs": None}),
    (regrow.SynFlow, {"inputs": torch.zeros(1, 8), "rounds": 1.5}),
    (regrow.SynFlow, {"inputs": torch.zeros(1, 8), "rounds": 0}),
    (regrow.LTH, {"trained": 3}),
]


@pytest.mark.parametrize(("kind", "options"), METHODS, ids=lambda value: str(value)[:40])
def test_options_of_methods(kind, options):
    name, value = list(options.items())[-1]
    with pytest.raises((TypeError, ValueError), match=f"^{name}={value!r}"):
        kind(density=0.2, **options)


def test_options_of_scores():
    with pytest.raises(TypeError, match=r"^soft='no'"):
        LinkPrediction(soft="no")


@pytest.mark.parametrize("other", [None, "model", [nn.Linear(2, 2)], torch.optim.SGD])
def test_what_is_no_model(other):
    model, optimizer = make()
    sparse = regrow.sparsify(model, optimizer, RIGL, total_steps=10)
    inputs = torch.zeros(2, 8)
    for call in (
        lambda: regrow.sparsify(other, optimizer, RIGL, total_steps=10),
        lambda: regrow.advise(other, inputs),
        lambda: count_flops(other, inputs),
        lambda: sparse.apply_to_(other),
    ):
        with pytest.raises(TypeError, match=r"model is a .*: a torch\.nn\.Module is needed"):
            call()


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("available", torch.ones(8, 8, dtype=torch.bool)),
        ("frozen", [torch.ones(8, 8, dtype=torch.bool)]),
        ("rescale", "yes"),
    ],
)
def test_arguments_of_sparsify(argument, value):
    model, optimizer = make()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(TypeError, match=f"^{argument}="):
        regrow.sparsify(model, optimizer, RIGL, total_steps=10, **{argument: value})
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_arguments_of_advise():
    model, _ = make()
    with pytest.raises(TypeError, match=r"densities=0\.1: a list of numbers"):
        regrow.advise(model, torch.zeros(2, 8), 0.1)


@pytest.mark.parametrize("method", [RIGL, regrow.Static(density=0.2)])
@pytest.mark.parametrize("steps", [1.5, "1", None, True, 0, -1])
def test_steps_that_cannot_be_counted_are_not(method, steps):
    model, optimizer = make()
    sparse = regrow.sparsify(model, optimizer, method, total_steps=10)
    with pytest.raises((TypeError, ValueError), match=f"^steps={steps!r}"):
        sparse.advance_(steps)
    assert sparse.steps == 0


def test_a_score_by_name():
    model, optimizer = make()
    sparse = regrow.sparsify(model, optimizer, RIGL, total_steps=10)
    with pytest.raises(TypeError, match=r"score='magnitude': Score is needed"):
        sparse.would_drop("magnitude", 0.1)
    with pytest.raises(TypeError, match=r"fraction='0\.1': a number is needed"):
        sparse.would_drop(Magnitude(), "0.1")
