"""Advice before training: what is timed, what is said, what stays untouched."""

import pytest
import torch
from torch import nn

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


def timing(milliseconds):
    return Timing((milliseconds / 1e3,) * 3)


def test_the_sentence_follows_from_the_numbers():
    steps = (
        StepAdvice(1.0, "dense", timing(10), 1000),
        StepAdvice(0.5, "csr", timing(20), 800),
        StepAdvice(0.1, "csr", timing(2), 100),
    )
    layers = (LayerAdvice("0.weight", 0.1, timing(3), timing(1)),)
    text = str(Advice(layers, steps, 0.1))
    assert "pays from a density of 0.1 down" in text
    assert "5.00" in text  # 10 ms over 2 ms
    assert "10.0" in text  # 1000 bytes over 100
    assert "3.00" in text
    assert "does not pay" in str(Advice(layers, steps, None))


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
