"""What a population tells, asks and gets, against what is computed from its buffer by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from regrow.control.environments import PointMass
from regrow.control.evaluation import mean_returns
from regrow.control.looks import attended, correlations, late_returns
from regrow.control.setting import METHODS, Arm
from regrow.control.teachers import TEACHERS


class Counted(PointMass):
    """Pays the number of the step, and ends after as many as the run's seed."""

    def __init__(self, seeds):
        super().__init__(seeds, episode=100)
        self.asked = []

    def advance_(self, actions):
        super().advance_(actions)
        self.asked.append(actions.copy())
        number = self._steps + 1
        return number.astype(float), number >= np.array(self.seeds)


def test_every_run_counts_as_many_episodes_as_asked_for():
    """A run of short episodes goes on while others are played; what it then gets is left out."""
    seen = []
    found = mean_returns(
        lambda shown: np.full((2, 2), 0.5), Counted([2, 7]), 3,
        lambda shown, over: seen.append((shown.copy(), over.tolist())), 0,
    )  # fmt: skip
    assert found == [3.0, 28.0]  # 1 + 2, and 1 + … + 7
    assert len(seen) == 21
    assert [over for _, over in seen[:2]] == [[False, False], [True, False]]
    assert [over[1] for _, over in seen] == [n % 7 == 0 for n in range(1, 22)]
    other = Counted([2, 7])
    other.reset()
    np.testing.assert_array_equal(seen[0][0], other.step(np.full((2, 2), 0.5)).observations)


def test_late_returns_are_of_ten_episodes():
    assert late_returns([[100.0, *range(10)], [3.0]]) == [4.5, 3.0]
    assert np.isnan(late_returns([[]])[0])


@pytest.mark.parametrize(("latest", "wrapped"), [(2500, False), (30, False), (30, True)])
def test_correlations_are_of_the_latest_steps(population, small, monkeypatch, latest, wrapped):
    monkeypatch.setattr("regrow.control.looks._CORRELATED", latest)
    runs = population(
        [Arm(), METHODS["r2n"]], [0, 1], replace(small, replay=50 if wrapped else None)
    )
    runs.run_to_(130)
    replay = runs.replay
    ages = [(129 - place) % 50 if wrapped else 129 - place for place in range(len(replay))]
    chosen = [place for place, age in enumerate(ages) if 0 <= age < latest]
    learned = runs.models.reward(replay.inputs)
    for run, found in enumerate(correlations(runs.models, replay)):
        both = np.stack([learned[run, chosen].numpy(), replay.rewards[run, chosen].numpy()])
        assert found == pytest.approx(np.corrcoef(both)[0, 1], abs=1e-4)


def test_attention_is_the_share_of_real_features_in_slopes(population):
    """By finite differences of outputs; reward models end in tanh, critics do not."""
    runs = population([Arm()], [0])
    runs.run_to_(130)
    found = attended(runs.networks, runs.layers, runs.replay, runs.noise.real)
    inputs, d = runs.replay.inputs[:, :130].double(), runs.noise.total
    for name in ("critic", "reward_model"):
        net = runs.networks[name]

        def out(x, net=net, squash=name != "critic"):
            wide = x.expand(net.members, -1, -1)
            values = net.each(wide, [w.detach().double() for w in net.weights])[..., 0]
            return values.tanh() if squash else values

        worth = []
        for feature in range(d):
            step = torch.zeros_like(inputs)
            step[..., feature] = 1e-6
            slope = (out(inputs + step) - out(inputs - step)) / 2e-6
            worth.append(slope.square().mean() * inputs[0, :, feature].var(correction=0))
        share = sum(worth[: int(runs.noise.real.sum())]) / sum(worth)
        assert found[f"{name}_attention"][0] == pytest.approx(float(share), rel=0.02)


def test_teachers_are_told_what_was_seen_done_and_when(population, small):
    """By places in the buffer, also after it wrapped; shadows and learned rewards are not."""
    told = []

    def teacher(query):
        told.append(query)
        return TEACHERS["oracle"](query)

    runs = population([Arm()], [0], replace(small, replay=50), teacher=teacher)
    runs.run_to_(120)
    query, d = told[-1], runs.noise.total
    assert len(told) == 3 and query.episode == 20
    assert runs.features_shown > d and query.observations.shape == (1, 6, 2, 5, d)
    assert query.actions.shape == (1, 6, 2, 5, 2)
    assert query.recent_return.tolist() == pytest.approx(runs.late_returns())
    assert query.steps.min() >= 70 and query.steps.max() <= 115
    for pair in range(6):
        for which in (0, 1):
            steps = torch.arange(5) + int(query.steps[0, pair, which])
            inputs = runs.replay.inputs[0, steps % 50]
            assert torch.equal(query.observations[0, pair, which], inputs[:, :d])
            assert torch.equal(query.actions[0, pair, which], inputs[:, -2:])
            assert torch.equal(query.rewards[0, pair, which], runs.replay.rewards[0, steps % 50])
