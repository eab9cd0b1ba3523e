"""Advice before training: what is timed, what is said, what stays untouched."""

import pytest
import torch
from torch import nn

from regrow.execution import advise as module
from regrow.execution.advise import Advice, LayerAdvice, StepAdvice, advise
from regrow.measure.timing import Timing


def perceptron():
    return nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 5))


def test_every_way_is_timed_at_every_density_and_the_model_stays_as_it_was():
    model = perceptron()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    advice = advise(model, torch.randn(8, 64), [0.5, 0.1], seconds=0.0)
    found = [(step.density, step.execution) for step in advice.steps]
    ways = ("masked", "csr", "auto")
    assert found == [(1.0, "dense"), *[(d, way) for d in (0.5, 0.1) for way in ways]]
    assert [layer.name for layer in advice.layers] == ["0.weight", "2.weight"] * 2
    assert all(layer.dense and layer.stored for layer in advice.layers)
    assert all(p.equal(before[name]) for name, p in model.named_parameters())
    assert type(model[0]) is nn.Linear


def test_bytes_fall_with_the_density():
    model = nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 256))
    advice = advise(model, torch.randn(8, 256), [0.5, 0.1, 0.01], seconds=0.0)
    stored = [step.bytes for step in advice.steps if step.execution == "csr"]
    assert stored == sorted(stored, reverse=True)
    dense = advice.steps[0].bytes
    assert dense == 4 * 4 * 2 * (256 * 256 + 256) + 4 * 4  # AdamW counts steps, once a tensor
    assert stored[-1] < dense / 10


def test_layers_that_cannot_be_stored_are_named_with_the_reason():
    model = nn.Sequential(nn.Conv1d(2, 4, 3, padding=1, padding_mode="circular"), nn.Flatten())
    model.append(nn.Linear(4 * 6, 3))
    advice = advise(model, torch.randn(2, 2, 6), [0.5], seconds=0.0)
    reasons = {layer.name: layer.reason for layer in advice.layers}
    assert "circular" in reasons["0.weight"]
    assert reasons["2.weight"] is None
    assert "circular" in str(advice)


def timing(*milliseconds):
    return Timing(tuple(one / 1e3 for one in milliseconds))


STEPS = (
    StepAdvice(1.0, "dense", timing(10, 11, 10), 1000),
    StepAdvice(0.5, "masked", timing(9, 9, 9), 1000),
    StepAdvice(0.5, "csr", timing(20, 20, 20), 800),
    StepAdvice(0.2, "csr", timing(4, 8, 30), 200),
    StepAdvice(0.1, "csr", timing(2, 2, 2), 100, update=0.04),
)


def test_the_sentence_follows_from_the_numbers():
    layers = (LayerAdvice("0.weight", 0.1, timing(3), timing(1)),)
    advice = Advice(layers, STEPS, update_every=50)
    assert advice.pays_from == 0.1
    text = str(advice)
    assert "pays from a density of 0.1 down" in text
    assert "an update every 50 steps" in text
    assert "5.00" in text  # 10 ms over 2 ms
    assert "40.0%" in text  # of 2 ms are 40 ms of an update every 50 steps
    assert "10.0" in text  # 1000 bytes over 100
    assert "3.00" in text
    assert "does not pay" in str(Advice(layers, STEPS[:3]))


@pytest.mark.parametrize(
    ("density", "verdict"),
    [(0.5, "not faster"), (0.2, "too noisy to tell"), (0.1, "faster")],
)
def test_what_is_too_noisy_is_said(density, verdict):
    advice = Advice((), STEPS)
    assert advice.verdict(density) == verdict
    said = str(advice)
    assert "Too noisy to tell at 0.2." in said
    assert "Too noisy to tell by how much: csr at 0.2." in said
    noisy = str(Advice((), (STEPS[0], STEPS[3])))
    assert "pay" not in noisy and "Too noisy to tell at 0.2." in noisy


@pytest.mark.parametrize(
    ("other", "verdict"),
    [
        ((9.8, 9.9, 10.4), "not faster"),  # within five percent
        ((8.0, 9.0, 12.0), "too noisy to tell"),
        ((12.0, 12.0, 12.0), "not faster"),
        ((8.0, 8.0, 8.0), "faster"),
    ],
)
def test_a_verdict_is_of_middle_halves(other, verdict):
    steps = (STEPS[0], StepAdvice(0.1, "auto", timing(*other), 1))
    assert Advice((), steps).verdict(0.1) == verdict


def test_the_share_of_updates_is_part_of_a_step_and_falls_with_their_number():
    model, x = (
        nn.Sequential(nn.Linear(300, 300), nn.ReLU(), nn.Linear(300, 300)),
        torch.randn(8, 300),
    )
    often, seldom = (
        [s for s in advise(model, x, [0.1], seconds=0.0, update_every=n).steps if s.update]
        for n in (2, 1000)
    )
    for steps, every in ((often, 2), (seldom, 1000)):
        assert {s.execution for s in steps} >= {"csr"}
        for one in steps:
            assert all(second > one.update / every for second in one.time.seconds)


def test_a_step_that_would_diverge_is_timed_all_the_same():
    advice = advise(
        perceptron(),
        torch.randn(8, 64),
        [0.5],
        seconds=0.0,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1e3, momentum=0.9),
    )
    assert len(advice.steps) == 4


@pytest.mark.parametrize(("every", "error"), [(0, ValueError), (1.5, TypeError)])
def test_steps_between_updates_that_are_none_are_refused(every, error):
    with pytest.raises(error, match="update_every="):
        advise(perceptron(), torch.randn(8, 64), [0.1], seconds=0.0, update_every=every)


def test_auto_mixes_what_is_faster_without_timing_again(monkeypatch):
    """The second layer is stored, the first one masked: found once, and used as found."""
    ways = {"masked": (2.0,) * 3, "0.5": (1.0,) * 3}

    def interleaved(steps, **_):
        faster = dict(ways, masked=(2.0,) * 3)
        if not calls:
            faster["0.5"] = (3.0,) * 3
        calls.append(list(steps))
        return {name: Timing(faster[name]) for name in steps}

    calls = []
    monkeypatch.setattr(module, "interleaved", interleaved)
    advice = advise(perceptron(), torch.randn(8, 64), [0.5], seconds=0.0)
    assert len(calls) == 2
    csr, auto = (s for s in advice.steps if s.execution in ("csr", "auto"))
    assert auto.time != csr.time
    assert [layer.faster for layer in advice.layers] == [False, True]


def test_a_loss_of_ones_own_and_several_inputs():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Linear(6, 4)

        def forward(self, x, y):
            return {"sum": self.one(x + y)}

    inputs = (torch.randn(3, 6), torch.randn(3, 6))
    called = []

    def loss(output):
        called.append(1)
        return output["sum"].square().mean()

    advise(Two(), inputs, [0.5], seconds=0.0, loss=loss)
    assert called
    advise(Two(), inputs, [0.5], seconds=0.0, optimizer=torch.optim.Adagrad)


@pytest.mark.parametrize("density", [0.0, 1.5])
def test_densities_out_of_range_are_refused(density):
    with pytest.raises(ValueError, match="density"):
        advise(perceptron(), torch.randn(8, 64), [density], seconds=0.0)
