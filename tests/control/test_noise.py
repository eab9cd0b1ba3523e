"""Noise features: exact dimensions, distributions, what is stored, and a stream of their own."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regrow.control.noise import NoiseFeatures, total_features


@given(st.integers(1, 400), st.integers(0, 99))
def test_totals_are_exact(real, percent):
    wanted = math.ceil(real / (1 - Fraction(percent, 100)))
    assert total_features(real, percent / 100) == wanted


@pytest.mark.parametrize("wrong", [-0.1, 1.0, 0.995, math.nan])
def test_shares_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="noise="):
        total_features(5, wrong)


def drawn(noise, steps=400, d=4):
    real = torch.arange(float(d)).expand(len(noise.real), -1)
    return torch.stack([noise(real) for _ in range(steps)], 1)


def of_noise(noise, seen):
    return torch.stack([seen[r][:, ~noise.real[r]] for r in range(len(seen))])


def test_gaussian_noise_is_standard_normal_and_drawn_anew():
    noise = NoiseFeatures([0, 1, 2], 4, 0.9)
    values = of_noise(noise, drawn(noise))
    n = values.numel()
    assert abs(values.mean()) < 4 / math.sqrt(n)
    assert abs(values.var() - 1) < 4 * math.sqrt(2 / n)
    assert abs((values[:, 1:] * values[:, :-1]).mean()) < 4 / math.sqrt(n)
    assert abs((values[0] * values[1]).mean()) < 4 / math.sqrt(n / 3)


def test_autoregressive_noise_has_its_correlation_and_the_same_spread():
    noise = NoiseFeatures([0, 1], 4, 0.98, kind="autoregressive", correlation=0.8)
    values = of_noise(noise, drawn(noise))
    assert abs(values.var() - 1) < 0.05
    lag = (values[:, 1:] * values[:, :-1]).mean() / values.var()
    assert abs(lag - 0.8) < 0.02


def test_histogram_noise_takes_the_values_of_a_real_feature():
    samples = torch.tensor([[0.0, 10.0], [1.0, 11.0], [2.0, 12.0]])
    noise = NoiseFeatures([0], 2, 0.75, kind="histogram", samples=samples)
    seen = drawn(noise, d=2)[0]
    for column in range(2, 8):
        wanted = set(samples[:, column % 2].tolist())
        assert set(seen[:, column].tolist()) == wanted
    with pytest.raises(ValueError, match=r"samples=None.*\(n, 2\)"):
        NoiseFeatures([0], 2, 0.5, kind="histogram")
    with pytest.raises(ValueError, match=r"samples=\(3, 2\)"):
        NoiseFeatures([0], 3, 0.5, kind="histogram", samples=samples)


def test_permuted_features_stay_where_they_are_in_an_order_of_the_run():
    noise = NoiseFeatures([0, 1], 4, 0.9, permuted=True)
    seen = drawn(noise, 5)
    for run in range(2):
        real = seen[run][:, noise.real[run]]
        assert torch.equal(real.sort(1).values, torch.arange(4.0).expand(5, -1))
        assert torch.equal(real, real[:1].expand(5, -1))
    assert noise.real.sum(1).tolist() == [4, 4]
    assert not torch.equal(noise.real[0], noise.real[1])


@pytest.mark.parametrize("permuted", [False, True])
def test_noise_that_is_not_stored_is_another_at_every_look(permuted):
    stored = NoiseFeatures([0, 1], 4, 0.8, permuted=permuted)
    fresh = NoiseFeatures([0, 1], 4, 0.8, permuted=permuted, stored=False)
    batch = drawn(fresh, 6)
    assert torch.equal(stored.redrawn(batch), batch)
    one, two = fresh.redrawn(batch), fresh.redrawn(batch)
    real = fresh.real[:, None].expand_as(batch)
    assert torch.equal(one[real], batch[real])
    assert (one != batch)[~real].all() and (one != two)[~real].all()


def test_slow_noise_cannot_be_drawn_anew():
    with pytest.raises(ValueError, match="stored=False"):
        NoiseFeatures([0], 4, 0.5, kind="autoregressive", stored=False)


def test_a_population_learns_from_noise_that_is_not_stored(population, small):
    from regrow.control.setting import METHODS

    runs = population([METHODS["r2n"]], [0], stored=False)
    runs.run_to_(60)
    kept = runs.replay.inputs[:, :50]
    inputs = [runs._batch()[0] for _ in range(2)]
    noise = torch.cat([~runs.noise.real[0], torch.tensor([False] * 8)])
    real = torch.cat([runs.noise.real[0], torch.tensor([False] * 6 + [True] * 2)])  # no shadows
    rows = {tuple(row) for row in kept[0][:, real].tolist()}
    assert any(tuple(row) in rows for row in inputs[0][0][:, real].tolist())
    stored = {value for row in kept[0][:, noise].tolist() for value in row}
    assert not stored & {value for row in inputs[0][0][:, noise].tolist() for value in row}


def test_the_same_noise_is_seen_again_when_asked_for():
    noise = NoiseFeatures([0], 2, 0.5)
    first, again = noise(torch.zeros(1, 2)), noise(torch.ones(1, 2), again=True)
    assert torch.equal(first[:, 2:], again[:, 2:]) and again[:, :2].tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize("permuted", [False, True])
def test_places_are_where_real_features_are(permuted):
    noise = NoiseFeatures([0, 1, 7], 5, 0.9, permuted=permuted)
    observations = torch.randn(3, 5)
    assert noise(observations).gather(1, noise.places).equal(observations)
