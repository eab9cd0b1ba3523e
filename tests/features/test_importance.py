"""Importances against autograd."""

import pytest
import torch
from torch import nn

from regrow.features.importance import (
    attribution,
    gram_attribution,
    sampled_attribution,
    strength,
)


def network(classes=3, hidden=(7, 5), inputs=6):
    torch.manual_seed(0)
    layers = []
    for before, after in zip((inputs, *hidden), (*hidden, classes), strict=True):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1]).double()


def inside(model, x):
    """Weights, and which hidden units are active."""
    weights, active = [], []
    for layer in model:
        x = layer(x)
        if isinstance(layer, nn.ReLU):
            active.append((x > 0).to(x))
        else:
            weights.append(layer.weight.detach())
    return weights, active


def traced(function, x):
    return torch.stack([torch.autograd.functional.jacobian(function, row) for row in x])


@pytest.mark.parametrize("hidden", [(7,), (7, 5), (4, 4, 4)])
@pytest.mark.parametrize("classes", [1, 3])
def test_attribution_is_autograds(hidden, classes):
    model, x = network(classes, hidden), torch.randn(9, 6).double()
    torch.testing.assert_close(
        attribution(*inside(model, x)), traced(model, x).abs().mean(0).sum(0)
    )


def test_attribution_of_probabilities_is_autograds():
    model, x = network(), torch.randn(9, 6).double()
    expected = traced(lambda row: model(row).softmax(-1), x).abs().mean(0).sum(0)
    found = attribution(*inside(model, x), probabilities=model(x).softmax(-1).detach())
    torch.testing.assert_close(found, expected)


def test_two_probabilities_have_the_same_attribution():
    model, x = network(classes=2), torch.randn(9, 6).double()
    slopes = traced(lambda row: model(row).softmax(-1), x).abs()
    torch.testing.assert_close(slopes[:, 0], slopes[:, 1])


def test_sampled_attribution_is_right_on_average():
    model, x = network(classes=4), torch.randn(9, 6).double()
    weights, active = inside(model, x)
    generator = torch.Generator().manual_seed(0)
    draws = [sampled_attribution(weights, active, generator) for _ in range(3000)]
    expected = traced(model, x).square().mean(0).sum(0)
    mean, error = torch.stack(draws).mean(0), torch.stack(draws).std(0) / 3000**0.5
    assert ((mean - expected).abs() < 5 * error).all()


@pytest.mark.parametrize("centred", [True, False])
def test_the_gram_form_is_the_root_of_mean_squares(centred):
    models = [network(classes=3, hidden=(7,)) for _ in range(2)]
    with torch.no_grad():
        models[1][0].weight.mul_(-2)
    x = torch.randn(9, 6).double()
    found, expected = [], []
    for model in models:
        weights, active = inside(model, x)
        found.append((weights[0].T, active[0], weights[1]))
        slopes = traced(model, x)
        if centred:
            slopes = slopes - slopes.mean(1, keepdim=True)
        expected.append(slopes.square().sum(1).mean(0).sqrt())
    stacked = [torch.stack(parts) for parts in zip(*found, strict=True)]
    torch.testing.assert_close(gram_attribution(*stacked, centred=centred), torch.stack(expected))


def test_strength_sums_magnitudes_over_hidden_units():
    weight = torch.tensor([[1.0, -2.0], [-3.0, 0.0]])
    assert strength(weight).tolist() == [4.0, 2.0]
