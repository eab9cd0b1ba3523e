"""Shadows: their distribution and slowness are a feature's, and they know nothing of now."""

import pytest
import torch

from regrow.control.elimination import autocorrelation
from regrow.control.noise import NoiseFeatures
from regrow.control.setting import METHODS, Setting
from regrow.control.shadows import Shadows


def test_a_shadow_is_what_its_feature_was_some_time_ago():
    shadows = Shadows([3, 4], 5, 7, longest=12)
    past = torch.randn(40, 2, 5)
    seen = torch.stack([shadows(one) for one in past])
    assert torch.equal(seen[..., :5], past)
    assert ((shadows.lags >= 6) & (shadows.lags < 12)).all()
    for run in range(2):
        for place in range(7):
            lag, source = int(shadows.lags[run, place]), int(shadows.sources[run, place])
            assert torch.equal(seen[lag:, run, 5 + place], past[:-lag, run, source])
            assert not seen[:lag, run, 5 + place].any()


def test_first_steps_are_filled_with_what_comes_later_and_others_stay():
    """As if the steps lay in a circle: every value of a feature comes once in its shadow."""
    shadows, n = Shadows([3, 4], 5, 7, longest=12), 30
    first = shadows(torch.randn(2, 5))
    steps = [first, *[shadows(torch.randn(2, 5)) for _ in range(n)]]
    inputs, following = torch.stack(steps[:-1], 1), torch.stack(steps[1:], 1)
    before = following.clone()
    shadows.fill_(inputs, following)
    assert torch.equal(inputs[:, 1:], following[:, :-1])
    assert torch.equal(following[:, 12:], before[:, 12:])
    assert torch.equal(following[..., :5], before[..., :5])
    circle = torch.cat([inputs[:, :1], following], 1)
    for run in range(2):
        for place in range(7):
            lag, source = int(shadows.lags[run, place]), int(shadows.sources[run, place])
            wanted = circle[run, :, source].roll(lag)
            assert torch.equal(circle[run, :, 5 + place], wanted)


def test_slow_noise_has_slow_shadows_that_do_not_follow_it():
    noise = NoiseFeatures([0], 1, 0.95, kind="autoregressive", correlation=0.9)
    shadows = Shadows([0], 20, 20, longest=200)
    seen = torch.stack([shadows(noise(torch.zeros(1, 1)))[0] for _ in range(4000)])[200:]
    slowness = autocorrelation(seen[None, :-1], seen[None, 1:])[0]
    chosen = shadows.sources[0] > 0
    assert (slowness[20:][chosen] - 0.9).abs().max() < 0.06
    both = torch.corrcoef(seen[:, 1:].T)
    assert both[:19, 19:][:, chosen].abs().max() < 0.3


def test_the_first_state_of_an_episode_has_the_shadows_of_the_last():
    shadows = Shadows([0], 2, 3, longest=4)
    for _ in range(9):
        last = shadows(torch.randn(1, 2))
    again = shadows(torch.ones(1, 2), again=True)
    assert torch.equal(again[:, 2:], last[:, 2:]) and again[:, :2].eq(1).all()


def test_a_run_has_the_same_shadows_alone_and_goes_on_from_a_state():
    both, alone = Shadows([1, 2], 3, 4, longest=6), Shadows([2], 3, 4, longest=6)
    past = torch.randn(30, 2, 3)
    for one in past[:20]:
        assert torch.equal(both(one)[1:], alone(one[1:]))
    again = Shadows([2], 3, 4, longest=6)
    again.load_state_dict(alone.state_dict())
    for one in past[20:]:
        assert torch.equal(again(one[1:]), alone(one[1:]))


def test_redrawn_shadows_are_values_of_their_features_in_the_batch():
    shadows = Shadows([0, 1], 3, 4, longest=4)
    batch = torch.randn(2, 50, 3)
    found = shadows.redrawn(batch)
    for run in range(2):
        for place in range(4):
            values = batch[run, :, shadows.sources[run, place]]
            assert torch.isin(found[run, :, place], values).all()
    assert not torch.equal(found, shadows.redrawn(batch))


def test_as_many_as_are_needed():
    none, some = [METHODS["r2n"]], [METHODS["r2n"], METHODS["elimination"]]
    assert Setting().shadows_for(none) == 0 and Setting().shadows_for(some) == 20
    assert Setting(shadows=7).shadows_for(none) == 7
    with pytest.raises(ValueError, match=r"shadows=4.*at least 5"):
        Setting(shadows=4).shadows_for(some)
    seen = torch.ones(1, 3)
    assert Shadows([0], 3, 0, longest=9)(seen) is seen
