"""Noise and dropout from one number: both are what they say, and independent of each other."""

import math

import pytest
import torch

from regrow.features.disturbance import disturbed_, kept_share

N = 1 << 18


def drawn(noise, dropout, value=4.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return disturbed_(torch.full((N // 64, 64), value), noise, dropout, generator).flatten()


@pytest.mark.parametrize("dropout", [0.0, 0.1, 0.5, 0.77, 0.99])
def test_the_share_kept_and_the_noise_are_those_asked_for(dropout):
    noise = 0.3
    x = drawn(noise, dropout)
    kept = x[x != 0] - 4.0
    share = kept_share(dropout)
    assert abs(share - (1 - dropout)) <= 2**-17
    assert abs(len(kept) / N - share) <= 5 * math.sqrt(share * (1 - share) / N)
    assert abs(float(kept.mean())) < 5 * noise / math.sqrt(len(kept))
    # The variance of a variance of uniform numbers: (9/5 - 1) σ⁴ / n.
    assert abs(float(kept.var()) / noise**2 - 1) < 5 * math.sqrt(0.8 / len(kept))
    assert kept.abs().max() <= noise * math.sqrt(3) + 1e-5


def test_what_is_kept_does_not_tell_its_neighbours():
    """Four numbers come from one word of the generator: they are independent all the same."""
    words = drawn(0.0, 0.5).ne(0).float().view(-1, 4) * 2 - 1
    assert (words.mean(0).abs() < 5 / math.sqrt(len(words))).all()
    together = words.T @ words / len(words)
    assert ((together - torch.eye(4)).abs() < 5 / math.sqrt(len(words))).all()
    later = (words[:-1] * words[1:]).mean(0)
    assert (later.abs() < 5 / math.sqrt(len(words))).all()


def test_without_noise_and_dropout_nothing_changes():
    assert (drawn(0.0, 0.0) == 4.0).all()
    assert set(drawn(0.0, 0.3).tolist()) == {0.0, 4.0}
    assert (drawn(0.5, 0.0) != 4.0).float().mean() > 0.99


def test_a_share_below_the_finest_still_keeps_some():
    kept = drawn(0.3, 1 - 1e-9)
    assert 0 < kept.ne(0).sum() < 30
    assert (kept[kept != 0] == 4.0).all()


@pytest.mark.parametrize("shape", [(0, 5), (1, 1), (3, 7)])
def test_any_shape_will_do(shape):
    x = disturbed_(torch.ones(shape), 0.1, 0.5, torch.Generator().manual_seed(1))
    assert x.shape == shape and x.dtype == torch.float32
