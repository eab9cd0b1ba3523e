"""The ensemble against one ordinary network at a time."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from regrow.features.elimination import InputScores, batches, bootstrapped, live_counts
from regrow.features.ensemble import Ensemble, EnsembleSetting
from regrow.features.inputs import Inputs, scaling
from regrow.features.targets import Reconstruction, Values

PLAIN = EnsembleSetting(members=3, width=4, noise=0.0, dropout=0.0, weight_decay=0.0)


def made(setting=PLAIN, links=12, inputs=6, outputs=3):
    return Ensemble(inputs, outputs, links, setting, torch.Generator().manual_seed(0))


def plain(ensemble, member):
    first, second = nn.Linear(6, 4), nn.Linear(4, 3)
    with torch.no_grad():
        first.weight.copy_(ensemble.first[:, member].T)
        first.bias.copy_(ensemble.first_bias[member])
        second.weight.copy_(ensemble.second[member])
        second.bias.copy_(ensemble.second_bias[member])
    return nn.Sequential(first, nn.ReLU(), second)


def test_each_network_is_an_ordinary_one():
    ensemble, x = made(), torch.randn(5, 6)
    for member, outputs in enumerate(ensemble.outputs(x)):
        torch.testing.assert_close(outputs.T, plain(ensemble, member)(x))


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_first_step_follows_autograds_gradient(smoothing):
    """After one step a parameter has moved by -rate · g / rms(g), masked, in each network."""
    ensemble, x, labels = made(), torch.randn(8, 6), torch.arange(8) % 3
    targets, weights = Values(labels, 3, smoothing), torch.rand(3, 8)
    models = [plain(ensemble, member) for member in range(3)]
    masks, before = ensemble.mask.clone(), ensemble.first.clone()
    rows = torch.arange(8)
    ensemble.step_(x.clone(), lambda outputs: targets.error(outputs, rows), weights, 1e-3)
    for member, model in enumerate(models):
        losses = F.cross_entropy(model(x), labels, reduction="none", label_smoothing=smoothing)
        (losses * weights[member] / weights[member].sum()).sum().backward()
        gradient = model[0].weight.grad.T * masks[:, member]
        wanted = before[:, member] - 1e-3 * gradient / gradient.square().mean().sqrt()
        torch.testing.assert_close(ensemble.first[:, member], wanted, rtol=1e-4, atol=1e-6)


def targets_of(kind):
    generator = torch.Generator().manual_seed(0)
    if kind == "classes":
        return Values(torch.arange(7) % 4, 4, 0.2)
    if kind == "numbers":
        return Values(torch.randn(7, 4, generator=generator), 4)
    table = torch.randn(7, 4, generator=generator).double().numpy()
    sketch, mean = (3, True) if kind == "a sketch" else (None, False)
    inputs = Inputs(table, scaling(table, np.ones(7), None), None)
    return Reconstruction(inputs, sketch, generator, mean=mean)


@pytest.mark.parametrize("kind", ["classes", "numbers", "the table", "a sketch"])
def test_errors_are_the_gradients_of_losses(kind):
    targets, rows = targets_of(kind), torch.tensor([6, 0, 3, 3, 1])
    outputs = torch.randn(2, targets.outputs, 5, requires_grad=True)
    losses = [targets.loss(one.T, rows).sum() for one in outputs]
    torch.stack(losses).sum().backward()
    with torch.no_grad():
        torch.testing.assert_close(targets.error(outputs.detach(), rows), outputs.grad)


@pytest.mark.parametrize("members", [1, 2, 10])
def test_all_networks_together_weigh_rows_as_they_were(members):
    weights = torch.tensor([0.0, 1.0, 0.25, 3.0]).repeat(100)
    drawn = bootstrapped(weights, members, torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn.mean(0), weights)
    assert (drawn >= 0).all()
    spread = (drawn / weights.clamp(min=1e-9))[:, weights > 0].std(correction=0)
    # A share of an exponential sum is Beta(1, e - 1): e of it varies by (e - 1)/(e + 1).
    assert abs(float(spread) - ((members - 1) / (members + 1)) ** 0.5) < 0.05


def test_full_networks_learn_as_those_whose_mask_is_full():
    """None for a mask is not another network: it is the same one, without the products."""
    whole, masked = made(links=24), made(links=24)
    assert whole.mask is None
    masked.mask = torch.ones_like(masked.first)
    x, targets, rows = torch.randn(8, 6), Values(torch.arange(8) % 3, 3), torch.arange(8)
    for ensemble in (whole, masked):
        for _ in range(3):
            error = lambda outputs: targets.error(outputs, rows)  # noqa: E731
            ensemble.step_(x.clone(), error, torch.ones(3, 8), 1e-2)
        ensemble.keep_(torch.tensor([0, 2, 5]))
    assert masked.mask is None
    assert torch.equal(whole.first, masked.first)
    for one, other in zip(whole.importance(), masked.importance(), strict=True):
        assert torch.equal(one, other)


def test_noise_and_dropout_are_undone_on_average():
    """Inputs that are kept count 1/(1 - p) times, so that hidden units see what they would."""
    ensemble = made(EnsembleSetting(members=3, width=4, noise=0.2, dropout=0.5), links=24)
    ensemble.first_bias.fill_(50.0)  # far from where ReLU bends
    before = ensemble._hidden(torch.ones(1, 6))
    seen = torch.zeros_like(before)
    error = torch.zeros_like  # nothing is learned
    for _ in range(40):
        ensemble.step_(torch.ones(256, 6), error, torch.ones(3, 256), 0.0)
        seen += ensemble._seen.mean(0) / 40
    torch.testing.assert_close(seen, before, rtol=0, atol=0.02)


def test_links_are_counted_exactly_while_inputs_leave():
    ensemble = made(EnsembleSetting(members=3, width=4, density=0.5), links=12)
    for live in (6, 5, 3, 2, 1):
        ensemble.keep_(torch.arange(live))
        assert ensemble.first.shape == (live, 3, 4)
        if 4 * live <= 12:
            assert ensemble.mask is None
            continue
        assert ensemble.mask.sum((0, 2)).tolist() == [12] * 3
        assert not ensemble.first[ensemble.mask == 0].any()


def test_the_strongest_links_stay():
    ensemble = made(links=12)
    largest = ensemble.first.abs().transpose(0, 1).flatten(1).topk(8).indices
    ensemble.keep_(torch.arange(6))
    assert ensemble.mask.transpose(0, 1).flatten(1).gather(1, largest).all()


def test_one_network_does_not_hear_of_another():
    ensemble, alone = made(), made()
    x, targets, rows = torch.randn(8, 6), Values(torch.arange(8) % 3, 3), torch.arange(8)
    weights = torch.ones(3, 8)
    ensemble.step_(x.clone(), lambda outputs: targets.error(outputs, rows), weights, 1e-2)
    weights[1:] = torch.rand(2, 8)
    alone.step_(x.clone(), lambda outputs: targets.error(outputs, rows), weights, 1e-2)
    torch.testing.assert_close(ensemble.first[:, 0], alone.first[:, 0])
    assert not torch.equal(ensemble.first[:, 1], alone.first[:, 1])


def test_live_counts_fall_to_k():
    counts = live_counts(1000, 7, 31)
    assert counts == sorted(counts, reverse=True)
    assert (counts[-1], len(counts)) == (7, 31)


def test_batches_hold_each_row_once_before_any_again():
    stream = batches(torch.arange(10, 20), 5, torch.Generator().manual_seed(0))
    for _ in range(3):
        assert torch.cat([next(stream), next(stream)]).sort().values.tolist() == [*range(10, 20)]


def test_scores_mix_logarithms_of_means():
    scores = InputScores("mixed")
    scores.add_((torch.tensor([[1.0, 4.0]]), torch.tensor([[1.0, 1.0]])))
    scores.add_((torch.tensor([[1.0, 4.0]]), torch.tensor([[1.0, 1.0]])))
    torch.testing.assert_close(scores.mean().exp(), torch.tensor([1.0, 2.0]))
