"""Layers are stored where that is faster: what is timed, what is chosen, and why."""

import copy

import pytest
import torch
from torch import nn

import regrow
from regrow.engine.method import Static
from regrow.engine.patterns import Kernel
from regrow.engine.plan import make_plan
from regrow.execution import choose as module
from regrow.execution.choose import choose, layer_calls, time_layer
from regrow.measure.timing import Timing


class Branching(nn.Module):
    """A layer called twice, one inside, one that examples do not reach."""

    def __init__(self):
        super().__init__()
        self.first, self.twice, self.never = (nn.Linear(8, 8) for _ in range(3))
        self.drop = nn.Dropout(0.5)

    def forward(self, x, repeat):
        x = self.drop(self.first(x))
        for _ in range(repeat):
            x = self.twice(x)
        return x


def names(model):
    return [name for name, p in model.named_parameters() if p.ndim > 1]


def test_calls_are_those_the_model_makes_and_the_model_stays_as_it_was():
    model = Branching()
    model.train()
    model.drop.eval()
    inputs = (torch.randn(5, 8), 2)
    before = torch.get_rng_state()
    calls = layer_calls(model, names(model), inputs)
    assert torch.get_rng_state().equal(before)
    assert model.training and not model.drop.training
    assert [(c.shape, c.gradient) for c in calls["first.weight"]] == [((5, 8), False)]
    assert [(c.shape, c.gradient) for c in calls["twice.weight"]] == [((5, 8), True)] * 2
    assert calls["never.weight"] == []
    assert not model.first._forward_pre_hooks
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_layers_are_timed_in_the_memory_format_that_the_model_gives_them(layout):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)).to(memory_format=layout)
    x = torch.randn(2, 3, 8, 8).contiguous(memory_format=layout)
    calls = layer_calls(model, names(model), x)
    for (call,), input_, layer in zip(calls.values(), (x, model[0](x)), model, strict=True):
        made = call.like(layer.weight)
        assert made.stride() == input_.stride() and made.shape == input_.shape
        assert made.requires_grad == call.gradient


def test_what_a_model_counts_in_evaluation_is_put_back():
    class Counting(nn.Linear):
        def __init__(self):
            super().__init__(8, 8)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls += 1
            return super().forward(x)

    model = nn.Sequential(Counting())
    layer_calls(model, names(model), torch.randn(5, 8))
    assert model[0].calls == 0


def test_a_model_that_fails_keeps_no_hooks():
    model = Branching()
    with pytest.raises(TypeError):
        layer_calls(model, names(model), torch.randn(5, 8))
    assert not model.first._forward_pre_hooks
    assert model.training


@pytest.fixture
def clock(monkeypatch):
    """Fix what timing finds, in seconds; the steps are run once."""
    found = {}

    def interleaved(calls, **_):
        for call in calls.values():
            call()
        return {name: Timing(found[name]) for name in calls}

    monkeypatch.setattr(module, "interleaved", interleaved)
    return found


def chosen(model, method=Static(density=0.5), inputs=None):  # noqa: B008 (frozen)
    optimizer = torch.optim.Adam(model.parameters())
    plan = make_plan(model, method)
    inputs = torch.randn(4, 8) if inputs is None else inputs
    return {layer.name: layer for layer in choose(model, optimizer, method, plan, inputs).layers}


@pytest.mark.parametrize(
    ("stored", "execution"),
    [
        ((1.0, 1.0, 1.0), "csr"),
        ((1.92, 1.92, 1.92), "masked"),  # not by enough
        ((0.5, 1.0, 5.0), "masked"),  # not clearly
        ((3.0, 3.0, 3.0), "masked"),
    ],
)
def test_stored_is_chosen_only_where_it_is_clearly_faster(clock, stored, execution):
    clock["masked"], clock["csr"] = (2.0, 2.0, 2.0), stored
    choice = chosen(nn.Sequential(nn.Linear(8, 8)))["0.weight"]
    assert choice.execution == execution
    assert "ms as csr" in choice.why
    assert "2000.00 ms masked" in choice.why


def test_what_cannot_be_stored_or_is_not_reached_says_why(clock):
    clock["masked"], clock["csr"] = (2.0,), (1.0,)
    found = chosen(Branching(), inputs=(torch.randn(4, 8), 1))
    assert found["first.weight"].execution == "csr"
    assert found["never.weight"].execution == "masked"
    assert "do not reach" in found["never.weight"].why
    convolution = nn.Sequential(nn.Conv2d(2, 4, 3))
    found = chosen(convolution, Static(density=0.5, pattern=Kernel()), torch.randn(1, 2, 5, 5))
    assert "pattern" in found["0.weight"].why


def test_the_plan_shows_what_was_chosen_and_why(clock):
    clock["masked"], clock["csr"] = (2.0,), (1.0,)
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparse = regrow.sparsify(
        model,
        optimizer,
        regrow.SET(density=0.5),
        total_steps=1000,
        execution="auto",
        example_inputs=torch.randn(4, 8),
    )
    text = sparse.summary()
    assert "csr: 0.weight (a step takes 1000.00 ms as csr, 2000.00 ms masked)" in text
    assert "sparse layers are computed by" in text
    model(torch.randn(4, 8)).sum().backward()
    optimizer.step()


def test_a_resumed_run_computes_layers_as_it_did_whatever_timings_say_now(clock):
    def build(state=None):
        model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        sparse = regrow.sparsify(
            model,
            optimizer,
            regrow.SET(density=0.5, update_every=2),
            total_steps=1000,
            execution="auto",
            example_inputs=torch.randn(4, 8),
            state=state,
        )
        return model, optimizer, sparse

    def step(model, optimizer):
        optimizer.zero_grad()
        model(torch.ones(4, 8)).square().sum().backward()
        optimizer.step()

    clock["masked"], clock["csr"] = (2.0,), (1.0,)
    parts = build()
    for _ in range(3):
        step(*parts[:2])
    saved = [copy.deepcopy(one.state_dict()) for one in parts]
    clock["masked"], clock["csr"] = (1.0,), (2.0,)
    assert build()[2].plan.layers[0].execution == "masked"
    again = build(saved[2])
    again[0].load_state_dict(saved[0])
    again[1].load_state_dict(saved[1])
    assert {one.execution for one in again[2].plan.layers} == {"csr"}
    for run in (parts, again):
        for _ in range(3):
            step(*run[:2])
    for one, other in zip(parts[0].parameters(), again[0].parameters(), strict=True):
        assert torch.equal(one, other)


def test_auto_without_examples_says_what_it_needs():
    model = nn.Sequential(nn.Linear(8, 8))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="example_inputs"):
        regrow.sparsify(
            model, optimizer, regrow.SET(density=0.5), total_steps=1000, execution="auto"
        )
    assert type(model[0]) is nn.Linear


def test_a_layer_is_timed_with_the_users_optimizer_and_left_alone():
    model = nn.Sequential(nn.Linear(8, 8))
    before = model[0].weight.detach().clone()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.5, weight_decay=0.1)
    method = Static(density=0.25)
    layer = make_plan(model, method).layers[0]
    calls = layer_calls(model, ["0.weight"], torch.randn(3, 8))["0.weight"]
    times = time_layer(model, optimizer, method, layer, "csr", calls, seconds=0.0)
    assert set(times) == {"masked", "csr"}
    assert all(seconds > 0 for timing in times.values() for seconds in timing.seconds)
    assert model[0].weight.equal(before)
    assert not optimizer.state


class Unusual(torch.optim.SGD):
    """An optimizer that cannot be made of parameters and its options."""

    def __init__(self, parameters, needed, **options):
        super().__init__(parameters, **options)


def test_a_step_that_cannot_be_timed_is_named(clock):
    clock["masked"], clock["csr"] = (2.0,), (1.0,)
    model, method = nn.Sequential(nn.Linear(8, 8)), Static(density=0.5)
    plan = make_plan(model, method)
    for optimizer, named in (
        (Unusual(model.parameters(), 1, lr=0.1), True),
        (torch.optim.SGD(model.parameters(), lr=0.1), False),
    ):
        why = choose(model, optimizer, method, plan, torch.randn(4, 8)).layers[0].why
        assert ("without that of the optimizer: another Unusual cannot be made" in why) == named
