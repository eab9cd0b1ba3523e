"""Random masks with the layer densities of a score: as many as it keeps there, anywhere."""

import copy
import functools

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional

import regrow
from regrow.engine.patterns import Block, Channel, Element, Kernel


def network():
    """Layers of one shape and of others, of weights of other sizes."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.Flatten(),
        nn.Linear(128, 4),
    )
    with torch.no_grad():
        model[2].weight *= 0.5
    return model


def loss(model):
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(16, 2, 4, 4, generator=generator)
    return functional.cross_entropy(model(images), torch.arange(16) % 4)


METHODS = {
    "SNIP": (regrow.SNIP, {"loss": loss}),
    "GraSP": (regrow.GraSP, {"loss": loss}),
    "SynFlow": (regrow.SynFlow, {"inputs": torch.zeros(1, 2, 4, 4), "rounds": 3}),
    "OMP": (regrow.OMP, {}),
}


def masks(name, scope, *, seed=0, model=None, density=0.2, pattern=None):
    make, options = METHODS[name]
    model = network() if model is None else copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    method = make(density=density, scope=scope, pattern=pattern or Element(), **options)
    return regrow.sparsify(model, optimizer, method, total_steps=20, seed=seed).masks


def counts(found):
    return {name: int(mask.sum()) for name, mask in found.items()}


@pytest.mark.parametrize("pattern", [Element(), Block(2), Kernel(), Channel()], ids=str)
@pytest.mark.parametrize("name", METHODS)
def test_each_layer_has_as_many_as_the_score_keeps_there(name, pattern):
    best = masks(name, "global", pattern=pattern, density=0.4)
    for seed in range(3):
        drawn = masks(name, "ratios", pattern=pattern, density=0.4, seed=seed)
        assert counts(drawn) == counts(best)
        for mask in drawn.values():  # units are whole
            units = pattern.reduce(mask.float())
            assert pattern.expand(units > 0, mask.shape).equal(mask)
    assert len(set(counts(best).values())) > 1


@pytest.mark.parametrize("name", METHODS)
def test_masks_follow_from_the_seed(name):
    first, again, other = (masks(name, "ratios", seed=seed) for seed in (5, 5, 6))
    for layer, mask in first.items():
        assert mask.equal(again[layer])
        assert not mask.equal(other[layer])
    assert not first["2.weight"].equal(first["4.weight"])


@functools.cache
def drawn_by_seed(pattern):
    return [masks("SNIP", "ratios", seed=seed, pattern=pattern) for seed in range(160)]


@pytest.mark.parametrize("pattern", [Element(), Block(2)], ids=str)
def test_positions_are_uniform(pattern):
    """Of units that are drawn k of n, S times: Σ (c - Sp)² / Sp(1-p) · (n-1)/n is χ² of n - 1."""
    drawn = drawn_by_seed(pattern)
    seeds = len(drawn)
    for name in drawn[0]:
        units = torch.stack([pattern.reduce(found[name].float()) > 0 for found in drawn])
        often = units.flatten(1).sum(0).double().numpy()
        n, share = len(often), float(units[0].double().mean())
        variance = seeds * share * (1 - share)
        statistic = float(np.square(often - seeds * share).sum() / variance * (n - 1) / n)
        assert 0.002 < stats.chi2.sf(statistic, n - 1) < 0.998, name


def test_positions_tell_nothing_of_the_score():
    """The best weights are drawn as often as any: the overlap with SNIP is what chance gives."""
    drawn = drawn_by_seed(Element())
    for name, mask in masks("SNIP", "global").items():
        share = float(mask.double().mean())
        overlaps = [float(found[name][mask].double().mean()) for found in drawn]
        error = np.std(overlaps) / len(drawn) ** 0.5
        assert abs(np.mean(overlaps) - share) < 4 * error


@pytest.mark.parametrize("scope", ["global", "ratios"])
@pytest.mark.parametrize("name", ["SNIP", "SynFlow", "OMP"])
def test_a_layer_whose_scores_are_lowest_keeps_one_unit(name, scope):
    model = network()
    with torch.no_grad():
        model[2].weight *= 1e-4
        model[4].weight *= 1e4  # so that what follows still tells the layers before it apart
    found = counts(masks(name, scope, model=model, density=0.1))
    total = sum(parameter.numel() for parameter in model.parameters() if parameter.ndim > 1)
    assert min(found.values()) >= 1 and sum(found.values()) == round(0.1 * total)
    if name == "OMP":
        assert found["2.weight"] == 1


def test_what_is_scored_may_be_initialised_anew_in_the_loss():
    """As two studies' codes do it: the copy's weights are drawn again, and scored by the logit."""

    def anew(model):
        for parameter in model.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_normal_(parameter, generator=torch.Generator().manual_seed(3))
        generator = torch.Generator().manual_seed(1)
        images = torch.randn(16, 2, 4, 4, generator=generator)
        return functional.nll_loss(model(images), torch.arange(16) % 4)

    model, drawn = network(), network()
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    method = regrow.SNIP(density=0.2, loss=anew, scope="ratios")
    sparse = regrow.sparsify(model, torch.optim.SGD(model.parameters()), method, total_steps=20)
    value = anew(drawn)
    weights = {n: p for n, p in drawn.named_parameters() if p.ndim > 1}
    gradients = torch.autograd.grad(value, list(weights.values()))
    scores = [(w * g).abs() for w, g in zip(weights.values(), gradients, strict=True)]
    k = sum(counts(sparse.masks).values())
    threshold = torch.cat([score.flatten() for score in scores]).topk(k).values[-1]
    expected = [int((score >= threshold).sum()) for score in scores]
    assert list(counts(sparse.masks).values()) == expected
    for name, mask in sparse.masks.items():
        assert model.get_parameter(name).equal(kept[name] * mask)
